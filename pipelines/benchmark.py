"""Measure, always beside what it is to be compared with.

    python pipelines/benchmark.py exact --model ViT-B-16 --classes 10 --dtype float32

`exact` runs the paper preset and a faithful port of the published loop (`tests/parity`) on the
same images and prints the ratio of their times and the largest difference of their answers.

    python pipelines/benchmark.py presets --model ViT-B-16 --weights random

`presets` runs `frozen`, `realtime` and `paper` beside plain zero-shot CLIP on the same pictures.

    python pipelines/benchmark.py serve

`serve` puts the service under load, and calls the labeler that it wraps directly in the same run.

    python pipelines/benchmark.py bank --labelers 64 --unit-s 1 --rows 64

`bank` has simulated labelers merge at that rate into the real bank server. They share this machine
with it: look at the server's CPU time for a merge rather than at the rate reached.

    python pipelines/benchmark.py pipeline --input FOLDER --preset paper

`pipeline` runs the whole pipeline on Ray, and a bare loop over the same frames in this process.

    python pipelines/benchmark.py memory --frames 200000

`memory` runs the pipeline over many small frames and watches the sizes of driver and labelers.

    python pipelines/benchmark.py startup

`startup` starts `label_stream.py` and prints when each part of it was there, up to the first label.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from torch import Tensor

from mint_stream.benchmark import bank, memory, pipeline, presets, serve, startup
from mint_stream.benchmark import exact as exact_benchmark
from mint_stream.benchmark.exact import ExactOptions, Loop
from mint_stream.clip.model import LoadedClip
from mint_stream.config import ConfigError
from mint_stream.method.adapter import MintAdapter

PARITY = Path(__file__).resolve().parent.parent / "tests" / "parity"


def published_loop(clip: LoadedClip, names: list[str], adapter: MintAdapter) -> Loop:
    """The port that stands in `tests/parity`, with the adapter's own start."""
    sys.path.insert(0, str(PARITY))
    from reference import PublishedLoop
    from reference_records import Bank, Settings

    method, bank = adapter.method, adapter.bank
    settings = Settings(
        query_layers=adapter.encoder.query_blocks,
        top_k=method.retrieved,
        selection_fraction=method.confident_share,
        steps=method.steps,
        learning_rate=method.learning_rate,
        weight_decay=method.weight_decay,
        distance_weight=method.distance_weight,
    )
    loop: Any = PublishedLoop(
        clip.model,
        names,
        settings,
        context_NT=adapter.context_init_NW,
        bank=Bank(bank.keys_KD, bank.prompts_KPD, bank.usage_K),
        dtype=clip.dtype,
    )

    def adapt(views_VCHW: Tensor) -> Tensor:
        logits_C: Tensor = loop.adapt(views_VCHW).prediction.logits_C
        return logits_C

    return adapt


def exact(options: ExactOptions, console: Console) -> bool:
    """The comparison, with the port as its other side."""
    return exact_benchmark.compare(options, published_loop, console)


BENCHMARKS: dict[str, tuple[Any, Callable[[Any, Console], bool | None]]] = {
    "exact": (ExactOptions, exact),
    "presets": (presets.PresetsOptions, presets.compare),
    "serve": (serve.ServeOptions, serve.compare),
    "bank": (bank.BankLoad, bank.print_figures),
    "pipeline": (pipeline.PipelineOptions, pipeline.compare),
    "memory": (memory.MemoryOptions, memory.measure),
    "startup": (startup.StartupOptions, startup.measure),
}


def main() -> int:
    """Parse and run; 0 if the bounds hold, 1 if not, 2 for settings that cannot work."""
    options = tyro.extras.subcommand_cli_from_dict(
        {name: kind for name, (kind, _) in BENCHMARKS.items()}
    )
    # In a file or a pipe as wide as the tables are: figures are never cut.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    measure = next(run for kind, run in BENCHMARKS.values() if isinstance(options, kind))
    try:
        return 1 if measure(options, console) is False else 0
    except ConfigError as error:
        console.print(f"error: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())
