"""`mint-stream label`, which is `pipelines/label_stream.py`: options, and what they start."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Console

from mint_stream.config import (
    BUNDLED,
    PRESETS,
    WHICH_MODEL,
    ConfigError,
    Dtype,
    MethodConfig,
    ModelConfig,
    RunConfig,
    installed_presets,
    require,
)
from mint_stream.logs import json_until_ray
from mint_stream.output.lease import LeaseHeld
from mint_stream.pipeline.progress import LoggedProgress, RunProgress
from mint_stream.pipeline.summary import RunFailed, RunSummary, left_text, print_summary
from mint_stream.store.address import anonymous
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

_TO_LABEL = ("realtime", "cameras", "paper", "frozen")
"""Presets of this package; with the others they are compared (`mint-stream evaluate`)."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Label a stream of images with a CLIP that adapts at test time.

    Without --input this renders a small street-camera feed, labels it with the frozen model and
    with the adapting one, and writes a report that compares them.

    Example: mint-stream label --input feed --output labelled --labels labels.txt --model ViT-B-16
    --weights laion2b_s34b_b88k
    """

    input: str | None = None
    """Folder, file or pattern (`*`, `{00000..00009}`), local or any fsspec URL: tar (WebDataset),
    Parquet, loose images."""
    anonymous: bool = False
    """Read the input without keys: a public bucket on s3:// or gs://."""
    output: str | None = None
    """Where labels, rejects and bank checkpoints go: a folder or an URL. Without --input the
    demonstration's folder, `quickstart` if not given."""
    labels: str | None = None
    """Class list: text, one class a line, or YAML with synonyms and templates."""
    model: str | None = None
    """With --input: a model name of open_clip (ViT-B-16), a folder with its configuration and
    weights, or bundled: the small CLIP that ships with the package and knows rendered street scenes
    only."""
    weights: str | None = None
    """A pretrained tag of open_clip (openai), or a file."""
    preset: str = "realtime"
    """realtime: for streams, one encoder pass a frame. cameras: likewise, new, for cameras whose
    frames resemble the ones before. paper: the published algorithm, hundreds of passes. frozen does
    not adapt. Or one of another package that is installed."""
    num_labelers: int = 1
    """Replicas of the model, one actor each; they share the bank."""
    device: str = "auto"
    """auto, cpu, or cuda: Ray chooses one for each labeler; with --in-process also cuda:N."""
    dtype: Dtype = "auto"
    """Precision of the encoder. auto: bfloat16 where the hardware computes in it."""
    bank_scope: Literal["shared", "camera"] = "shared"
    """One bank for all cameras, or one for each."""
    adapt: Literal["on", "shadow", "off"] = "on"
    """shadow: the bank learns, but the frozen answer stands and the adapted one is recorded beside
    it. off: frozen answers, and the bank stays as it is. May change from run to run."""
    adapt_budget: Annotated[float | None, tyro.conf.arg(metavar="SHARE")] = None
    """Largest share of a labeler's time that adapting may take, such as 0.05; frames that there is
    no time for keep the frozen answer. An output keeps that of its first run."""
    relabel_suspect: bool = False
    """Label nothing new, but again the frames that were adapted to shortly before the guard refused
    their domain, by the bank as it is now."""
    in_process: bool = False
    """In this process, without Ray: one labeler. For a folder of pictures on a laptop."""
    limit: int | None = None
    """Label only the first frames of the input, counted over all runs into this output."""
    seed: int = 0
    """Of the random views and of the bank's start."""
    unit_size: int = 16
    """Frames that are labelled and committed as a whole; an output keeps that of its first run."""
    checkpoint_every: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 60.0
    """Seconds between bank checkpoints; there is one at the end in any case."""
    follow: bool = False
    """Keep listing the input for new shards until stopped (SIGTERM or Ctrl-C)."""
    poll: Annotated[float, tyro.conf.arg(metavar="SECONDS")] = 5.0
    """Seconds between two listings with --follow."""
    max_reject_ratio: float = 0.5
    """Stop when more than this share of the frames is rejected."""
    top_k: int = 5
    """Labels and scores kept for each frame."""
    calibration: str | None = None
    """A file of `mint-stream calibrate`: rows get a calibrated confidence, and no label
    where it is below their class's least."""
    min_confidence: float | None = None
    """Rows below this confidence get no label; with --calibration instead of its numbers."""
    image_column: str | None = None
    """Parquet column with the images, where it cannot be told."""
    id_column: str | None = None
    """Parquet column that names the frames; default: the row number."""
    quiet: bool = False
    """No progress and no summary."""
    log_json: bool = False
    """Log as JSON, one object a line on standard error, progress and summary too: with run, unit
    and camera, for a log collector."""

    def method(self) -> MethodConfig:
        """The preset. Raises `ConfigError` for one that there is not."""
        presets = {name: PRESETS[name] for name in _TO_LABEL} | installed_presets()
        require(self.preset in presets, "--preset", self.preset, "one of " + ", ".join(presets))
        return presets[self.preset]

    def check_demonstration(self) -> None:
        """Refuse what the demonstration would pass over: it has a model and classes of its own."""
        for name, own in (("model", BUNDLED), ("weights", None), ("labels", None)):
            given = getattr(self, name)
            require(given in (None, own), f"--{name}", given, "left out without --input")

    def run_config(self) -> RunConfig:
        """The run that these options describe. Raises `ConfigError`."""
        for name in ("input", "output", "labels"):
            require(getattr(self, name) is not None, f"--{name}", None, "given with --input")
        require(self.model is not None, "--model", None, WHICH_MODEL)
        return RunConfig(
            input=anonymous(str(self.input)) if self.anonymous else str(self.input),
            output=str(self.output),
            labels=str(self.labels),
            model=ModelConfig(
                model=str(self.model), weights=self.weights, device=self.device, dtype=self.dtype
            ),
            method=self.method(),
            num_labelers=self.num_labelers,
            bank_scope=self.bank_scope,
            adapt=self.adapt,
            adapt_budget=self.adapt_budget,
            relabel_suspect=self.relabel_suspect,
            unit_size=self.unit_size,
            limit=self.limit,
            seed=self.seed,
            top_k=self.top_k,
            calibration=self.calibration,
            min_confidence=self.min_confidence,
            checkpoint_every_s=self.checkpoint_every,
            follow=self.follow,
            poll_s=self.poll,
            max_reject_ratio=self.max_reject_ratio,
            image_column=self.image_column,
            id_column=self.id_column,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, and answer with an exit code: 0 done, 1 the run failed or left something
    that it could not read, 2 it could not start."""
    options = tyro.cli(Options, args=arguments, prog="mint-stream label")
    if options.log_json:
        # Read when Ray is imported: lines of two labelers that differ in digits alone would be one,
        # with a remark of Ray's behind it that is no JSON.
        os.environ["RAY_DEDUP_LOGS"] = "0"
        json_until_ray()
    else:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    console = Console(stderr=True, highlight=False)
    try:
        options.method()
        if options.input is None:
            options.check_demonstration()
            from mint_stream.demo.quickstart import quickstart

            report = quickstart(
                options.output or "quickstart",
                frames=options.limit,
                seed=options.seed,
                device=options.device,
                dtype=options.dtype,
                quiet=options.quiet,
            )
            return 0 if report else 1
        run = label_in_process if options.in_process else label
        return run(options.run_config(), console, quiet=options.quiet, log_json=options.log_json)
    except (ConfigError, StorageError, LeaseHeld) as error:
        _say(error, options)
        return 2
    except RunFailed as error:
        _say(error, options)
        return 1


def _say(error: Exception, options: Options) -> None:
    if options.log_json:
        log.error("%s", error)
    else:
        print(f"error: {error}", file=sys.stderr)


def label(config: RunConfig, console: Console, *, quiet: bool, log_json: bool = False) -> int:
    """Run the pipeline with progress and a summary."""
    # Ray takes a second to import: not for --help, and not for a flag that does not exist.
    from mint_stream.pipeline.core_lines import core_lines_kept_out
    from mint_stream.pipeline.run import prepare_run

    show = _progress(config, console, quiet=quiet, log_json=log_json)
    with core_lines_kept_out(), show as progress:
        run = prepare_run(
            config,
            on_start=progress.start,
            on_commit=progress.update,
            on_bank=progress.bank,
            handle_signals=True,
            log_json=log_json,
        )
        summary = run.execute()
    return _tell(summary, quiet=quiet, log_json=log_json)


def label_in_process(
    config: RunConfig, console: Console, *, quiet: bool, log_json: bool = False
) -> int:
    """The same without Ray."""
    from mint_stream.pipeline.in_process import run_in_process

    with _progress(config, console, quiet=quiet, log_json=log_json) as progress:
        summary = run_in_process(
            config, on_start=progress.start, on_commit=progress.update, handle_signals=True
        )
    return _tell(summary, quiet=quiet, log_json=log_json)


def _progress(
    config: RunConfig, console: Console, *, quiet: bool, log_json: bool
) -> RunProgress | LoggedProgress:
    if log_json:
        return LoggedProgress(quiet=quiet)
    return RunProgress(console, total=config.limit, quiet=quiet)


def _tell(summary: RunSummary, *, quiet: bool, log_json: bool) -> int:
    if log_json:
        log.info("run ended", extra=dataclasses.asdict(summary))
    elif not quiet:
        print_summary(summary, Console(highlight=False))
    elif summary.left:
        log.warning("%s. For example: %s", left_text(summary), summary.left_example)
    return 1 if summary.left else 0
