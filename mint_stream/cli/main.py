"""The command `mint-stream`, which is `python -m mint_stream`: its parts, by name.

A part is loaded when it is asked for: `mint-stream verify` loads neither torch nor Ray.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import mint_stream

PROGRAM = "mint-stream"


class Part(NamedTuple):
    """One part of the command: the module whose `main` takes its arguments, and what it is for."""

    module: str
    says: str
    named: bool = False
    """Whether `main` is told the part's name before its arguments."""


PARTS: dict[str, Part] = {
    "label": Part("mint_stream.cli.label", "label a stream of images; without --input a demo"),
    "evaluate": Part("mint_stream.cli.evaluate", "compare presets on a stream with known truth"),
    "make-drift": Part("mint_stream.cli.make_drift", "make a stream that drifts from pictures"),
    "inspect": Part("mint_stream.cli.outputs", "what is in an output", named=True),
    "verify": Part("mint_stream.cli.outputs", "whether an output is whole", named=True),
    "diff": Part("mint_stream.cli.outputs", "how two outputs differ", named=True),
    "report": Part("mint_stream.cli.outputs", "a page about an output", named=True),
    "export": Part("mint_stream.cli.outputs", "frames for people to review", named=True),
    "import-review": Part("mint_stream.cli.outputs", "what they answered, as truth", named=True),
    "calibrate": Part("mint_stream.cli.outputs", "fit confidences to known truth", named=True),
    "compact": Part("mint_stream.cli.outputs", "copy many small files into few", named=True),
    "rollback": Part("mint_stream.cli.outputs", "bring the bank back to earlier", named=True),
    "serve-check": Part("mint_stream.serving.check", "check a Serve configuration file"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one part: 0 well, 1 something was found or failed, 2 it could not be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given and given[0] == "--version":
        print(f"mint-stream {mint_stream.__version__}")
        return 0
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if given else 2
    name, rest = given[0], given[1:]
    if name not in PARTS:
        near = difflib.get_close_matches(name, PARTS, n=1)
        meant = f" (did you mean {near[0]}?)" if near else ""
        known = ", ".join(PARTS)
        print(f"error: there is no part {name!r}{meant}; the parts are {known}", file=sys.stderr)
        return 2
    part = PARTS[name]
    status: int = import_module(part.module).main([name, *rest] if part.named else rest)
    return status


def _help() -> str:
    width = max(map(len, PARTS))
    lines = [f"  {name:<{width}}  {part.says}" for name, part in PARTS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} PART ...",
            "",
            "Labels drifting image streams with a CLIP that adapts at test time.",
            "",
            *lines,
            "",
            f"{PROGRAM} PART --help says what a part takes, with an example.",
        ]
    )
