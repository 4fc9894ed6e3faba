"""Reading, comparing and shortening the trace directories that METHOD.md describes.

A directory holds `meta.json`, `clip.safetensors` and `trace.safetensors`. Run as a script, this
writes the first images of a trace as a directory of the same layout (how `data/` was made):

    python tests/parity/trace_files.py ../shared/traces/a tests/parity/data/a 2
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

META, CLIP_WEIGHTS, TRACE = "meta.json", "clip.safetensors", "trace.safetensors"
START = ("views", "bank.keys.init", "bank.prompts.init", "bank.usage.init", "ctx.init")
ONCE = (*START[1:], "encode_text.init")
"""The tensors without a leading axis of images."""
OPTIMIZER_FORM = "AdamW(betas=(0.9,0.999), eps=1e-8)"
OPTIMIZER = re.compile(r"AdamW\(betas=\(([0-9.e-]+), ?([0-9.e-]+)\), eps=([0-9.e-]+)\)")


class TraceError(Exception):
    """A directory that is not a complete trace; the message names the file and what is wrong."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """One recording: `meta` as in `meta.json`, `tensors` by name as in `trace.safetensors`."""

    meta: dict[str, Any]
    weights: dict[str, Tensor]
    tensors: dict[str, Tensor]

    @property
    def recorded(self) -> dict[str, Tensor]:
        """The recorded quantities: everything but the start."""
        return {name: value for name, value in self.tensors.items() if name not in START}

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """`meta`, with `betas` and `eps` taken out of the optimiser's text.

        Raises:
            TraceError: the optimiser is not AdamW in the words of METHOD.md's recordings.
        """
        optimizer = self.meta.get("optimizer")
        match = OPTIMIZER.fullmatch(str(optimizer))
        if match is None:
            raise TraceError(f"optimizer is {optimizer!r}; it must have the form {OPTIMIZER_FORM}")
        beta_1, beta_2, eps = (float(number) for number in match.groups())
        return {**self.meta, "betas": (beta_1, beta_2), "eps": eps}

    def build_clip(self, dtype: torch.dtype = torch.float64) -> CLIP:
        """The trace's CLIP, in eval mode; token embeddings that it does not list are zero."""
        model = CLIP(**self.meta["model_cfg"]).to(dtype)
        state = dict(self.weights)
        rows = state.pop("token_embedding.rows")
        values = state.pop("token_embedding.values")
        embedding = torch.zeros_like(model.token_embedding.weight, dtype=values.dtype)
        embedding[rows] = values
        model.load_state_dict({**state, "token_embedding.weight": embedding})
        return model.eval()

    def first_images(self, n_images: int) -> Trace:
        """The trace of a run that ended after the first `n_images` images."""
        tensors = {
            name: value if name in ONCE else value[:n_images].clone()
            for name, value in self.tensors.items()
        }
        return Trace({**self.meta, "n_images": n_images}, self.weights, tensors)


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far a computed quantity is from the recorded one.

    Attributes:
        name: the quantity, as in `trace.safetensors`.
        discrete: whether it is a choice or a count, which must be equal.
        largest: largest absolute difference; for a discrete quantity the number of unequal ones.
    """

    name: str
    discrete: bool
    largest: float

    def exceeds(self, tolerance: float) -> bool:
        """Whether the quantity fails: any unequal choice, or a number off by more (or NaN)."""
        return self.largest > 0 if self.discrete else not self.largest <= tolerance


def read_trace(directory: Path) -> Trace:
    """Read a trace directory.

    Raises:
        TraceError: a file or a tensor of the start is missing, or a file cannot be read.
    """
    for name in (META, CLIP_WEIGHTS, TRACE):
        if not (directory / name).is_file():
            raise TraceError(f"{directory} is not a trace: {name} is missing")
    try:
        meta = json.loads((directory / META).read_text())
    except ValueError as error:
        raise TraceError(f"{directory / META} is not JSON: {error}") from error
    loaded = {}
    for name in (CLIP_WEIGHTS, TRACE):
        try:
            loaded[name] = load_file(directory / name)
        except SafetensorError as error:
            raise TraceError(f"{directory / name} cannot be read: {error}") from error
    missing = [name for name in START if name not in loaded[TRACE]]
    if missing:
        raise TraceError(f"{directory / TRACE} lacks {', '.join(missing)}")
    absent = [name for name in ("model_cfg", "classnames") if name not in meta]
    if absent:
        raise TraceError(f"{directory / META} lacks {', '.join(absent)}")
    return Trace(meta, loaded[CLIP_WEIGHTS], loaded[TRACE])


def write_trace(trace: Trace, directory: Path) -> None:
    """Write `trace` as a directory that `read_trace` reads."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / META).write_text(json.dumps(trace.meta, indent=1) + "\n")
    save_file(trace.weights, directory / CLIP_WEIGHTS)
    save_file(trace.tensors, directory / TRACE)


def differences(recorded: Mapping[str, Tensor], computed: Mapping[str, Tensor]) -> list[Difference]:
    """Compare every recorded quantity with the computed one of the same name, in order of name.

    Raises:
        KeyError: a recorded quantity was not computed.
    """
    found = []
    for name, expected in sorted(recorded.items()):
        actual = computed[name].to(expected.device)
        discrete = not expected.is_floating_point()
        if actual.shape != expected.shape:
            largest = float("inf")
        elif discrete:
            largest = float((actual != expected).sum())
        else:
            largest = float((actual.double() - expected.double()).abs().max())
        found.append(Difference(name, discrete, largest))
    return found


def main(arguments: list[str]) -> int:
    """Write the first images of a trace; see the top of the file."""
    source, target, n_images = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    write_trace(read_trace(source).first_images(n_images), target)
    # Copied, not rewritten: the weights stay byte for byte what was recorded.
    shutil.copyfile(source / CLIP_WEIGHTS, target / CLIP_WEIGHTS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
