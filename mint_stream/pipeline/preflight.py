"""What can be known to be wrong before a model is loaded, and is then said in one line.

Input, output, credentials, class list, weights, and whether the output was started with the same
settings. Everything here takes seconds and loads no weights.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from typing import Any

from mint_stream.clip.class_list import ClassList, load_class_list
from mint_stream.clip.device import device_index
from mint_stream.clip.model_files import model_identity, vision_shape
from mint_stream.clip.name_length import check_name_length
from mint_stream.config import ConfigError, RunConfig, as_dict
from mint_stream.input.discovery import discover
from mint_stream.input.left_out import LeftOut
from mint_stream.input.shard import Shard
from mint_stream.labeler.abstention import Abstention
from mint_stream.labeler.calibration_file import read_calibration
from mint_stream.output import schema
from mint_stream.output.names import LEFT_OUT
from mint_stream.output.settings import pin
from mint_stream.store.store import PREFLIGHT, Store, split_url

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    store: Store
    classes: ClassList
    shards: list[Shard]
    model_hash: str
    width: int
    """Of the image tower, and so of the bank."""
    image_size: int
    """Side of the image tower's input, pixels."""
    unit_size: int
    """The output's own: the size that its first run had."""
    abstention: Abstention | None = None
    """When a row carries no label; None if it always does."""
    left_out: LeftOut = field(default_factory=LeftOut)
    """Files of the input that are of kinds that are not read."""


def prepare(config: RunConfig) -> Prepared:
    """Check everything that a run of `config` needs, and pin the output's settings.

    Raises:
        ConfigError: with one line that names the setting, its value and the remedy.
        StorageError: the same for what a store refuses.
    """
    classes = load_class_list(config.labels, retry=PREFLIGHT)
    model_hash = model_identity(config.model)
    width, image_size = vision_shape(config.model)
    check_name_length(classes, config.model, config.method.templates)
    _check_device(config.model.device)
    left_out = LeftOut(but=_within(config.labels, config.input))
    shards = discover(config.input, unit_size=config.unit_size, retry=PREFLIGHT, left_out=left_out)
    if not shards and not config.follow:
        others = f"; what is there is not read: {left_out}" if left_out else ""
        raise ConfigError(
            f"input is {config.input!r}; there are no shards in it (.tar, .parquet or images)"
            + others
        )
    check = Store(config.output, retry=PREFLIGHT)
    _check_apart(config.input, check)
    settings = _settings(config, classes, model_hash, width)
    abstention, settings["abstention"] = _abstention(config, classes, model_hash)
    pinned = pin(check, settings)
    unit_size = int(pinned["unit_size"])
    if unit_size != config.unit_size:
        # Loose images are grouped by it.
        shards = discover(config.input, unit_size=unit_size, retry=PREFLIGHT)
    return Prepared(
        store=Store(config.output),
        classes=classes,
        shards=shards,
        model_hash=model_hash,
        width=width,
        image_size=image_size,
        unit_size=unit_size,
        abstention=abstention,
        left_out=left_out,
    )


def _within(file: str, folder: str) -> str | None:
    """The name of `file` below `folder`, both addresses; None if it does not lie there."""
    parent, name = split_url(file)
    uri, root = Store(parent or ".").uri(name), f"{Store(folder).uri().rstrip('/')}/"
    return uri.removeprefix(root) if uri.startswith(root) else None


def tell_left_out(prepared: Prepared) -> None:
    """Say what of the input no run reads, and note it in the output, which is this run's alone."""
    store, left_out = prepared.store, prepared.left_out
    if left_out:
        log.warning("in the input are files of kinds that are not read: %s", left_out)
        store.write(LEFT_OUT, left_out.to_json().encode())
    elif store.exists(LEFT_OUT):
        store.delete(LEFT_OUT)


def _abstention(
    config: RunConfig, classes: ClassList, model_hash: str
) -> tuple[Abstention | None, dict[str, Any] | None]:
    """When rows carry no label, and how `run.json` says so."""
    if config.calibration is None and config.min_confidence is None:
        return None, None
    calibration = digest = None
    if config.calibration is not None:
        calibration, digest = read_calibration(config.calibration)
        for name, own, asked in (
            ("model", calibration.model_hash, model_hash),
            ("class list", calibration.classes_hash, classes.hash),
            ("preset", calibration.preset, config.method.name),
            ("top-k", calibration.top_k, min(config.top_k, len(classes.names))),
        ):
            if own != asked:
                raise ConfigError(
                    f"calibration {config.calibration} was fitted on another {name} ({own}, this "
                    f"run has {asked}): fit one to this run's labels"
                )
    abstention = Abstention(
        calibration=calibration,
        min_confidence=config.min_confidence,
        classes=len(classes.names),
    )
    return abstention, {"calibration": digest, "min_confidence": config.min_confidence}


def _check_device(name: str) -> None:
    if device_index(name) is None or os.environ.get("RAY_ADDRESS"):
        return  # nothing to look for, or the labelers run elsewhere
    # Torch knows which devices there are, and takes seconds to import.
    from mint_stream.clip.model import pick_device

    pick_device(name)


def _check_apart(input_url: str, output: Store) -> None:
    """Labels are Parquet files: within the input they would be taken for shards."""
    root = Store(input_url, retry=PREFLIGHT).uri()
    if f"{output.uri()}/".startswith(f"{root.rstrip('/')}/"):
        raise ConfigError(
            f"output {output.url!r} lies within the input {input_url!r}, and would be read as "
            "input: choose a folder beside it"
        )


def _settings(config: RunConfig, classes: ClassList, model_hash: str, width: int) -> dict[str, Any]:
    return {
        "schema_version": schema.SCHEMA_VERSION,
        "model": config.model.model,
        "weights": config.model.weights,
        "model_hash": model_hash,
        "classes": list(classes.names),
        "classes_hash": classes.hash,
        "preset": as_dict(config.method.fitted(len(classes.names), width)),
        "bank_scope": config.bank_scope,
        "adapt_budget": config.adapt_budget,
        "seed": config.seed,
        "unit_size": config.unit_size,
    }
