"""The parts of a run, made from its configuration: bank, readers, labelers."""

from __future__ import annotations

import math
import os

from mint_stream.bank.server import BankConfig, bank_config
from mint_stream.config import MethodConfig, RunConfig
from mint_stream.input.units import ReadConfig
from mint_stream.labeler.config import LabelerConfig
from mint_stream.pipeline.preflight import Prepared


def run_bank(config: RunConfig, prepared: Prepared) -> BankConfig:
    """The bank of this run, for its bank server."""
    return bank_config(
        _method(config, prepared),
        store=prepared.store,
        width=prepared.width,
        model_hash=prepared.model_hash,
        scope=config.bank_scope,
        seed=config.seed,
        checkpoint_every_s=config.checkpoint_every_s,
        in_order=config.num_labelers == 1,
    )


def read_config(config: RunConfig, prepared: Prepared) -> ReadConfig:
    """How a run reads its shards."""
    return ReadConfig(
        unit_size=prepared.unit_size,
        image_column=config.image_column,
        id_column=config.id_column,
        # The smallest crop still has as many pixels as the encoder takes. The same for every
        # preset, so that the frozen answers are the same.
        min_short_side=math.ceil(prepared.image_size / math.sqrt(config.method.min_crop_area)),
    )


def labeler_config(config: RunConfig, prepared: Prepared, gpus: float) -> LabelerConfig:
    """A run's labelers, each with `gpus` GPUs or a share of one."""
    return LabelerConfig(
        model=config.model,
        method=_method(config, prepared),
        phrases=prepared.classes.phrases,
        templates=prepared.classes.templates,
        model_hash=prepared.model_hash,
        classes_hash=prepared.classes.hash,
        bank_scope=config.bank_scope,
        seed=config.seed,
        shadow=config.adapt == "shadow",
        adapt_budget=None if config.relabel_suspect else config.adapt_budget,
        relabels=config.relabel_suspect,
        top_k=config.top_k,
        abstention=prepared.abstention,
        labelers=config.num_labelers,
        threads=None if gpus else _threads(config.num_labelers),
    )


def _method(config: RunConfig, prepared: Prepared) -> MethodConfig:
    return config.method.fitted(len(prepared.classes.names), prepared.width)


def _threads(labelers: int) -> int:
    """Of torch in each labeler on this CPU; OMP_NUM_THREADS counts where it is set.

    Ray sets that variable in its workers, so it is read here.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return (
        int(asked)
        if asked.isdecimal() and int(asked)
        else max(1, (os.cpu_count() or 1) // labelers)
    )
