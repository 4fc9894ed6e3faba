"""The command line of `python -m mint_stream`: what people do with an output."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tyro
from rich.console import Console

from mint_stream.config import ConfigError
from mint_stream.storage import StorageError


@dataclass(frozen=True, kw_only=True)
class Inspect:
    """What is in an output: units, labels by class and camera, rejects, bank checkpoints."""

    output: tyro.conf.Positional[str]
    """A folder or an URL."""
    json: bool = False
    """Everything, as JSON."""

    def run(self, console: Console) -> int:
        """Print it."""
        from mint_stream.outputs.contents import describe
        from mint_stream.outputs.tables import print_contents

        contents = describe(self.output)
        _print_json(contents.as_dict()) if self.json else print_contents(contents, console)
        return 0


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Whether an output is what it must be: exit code 0, or 1 with a line for each finding."""

    output: tyro.conf.Positional[str]
    """A folder or an URL, into which no run is writing now."""
    input: str | None = None
    """What was labelled: then each of its frames must be there, once, and no other."""
    image_column: str | None = None
    """As it was given to the run."""
    id_column: str | None = None
    """As it was given to the run."""
    json: bool = False
    """The findings as JSON."""

    def run(self, console: Console) -> int:
        """Print what was found."""
        from mint_stream.outputs.tables import print_verdict
        from mint_stream.outputs.verify import verify

        verdict = verify(
            self.output,
            input_url=self.input,
            image_column=self.image_column,
            id_column=self.id_column,
        )
        _print_json(verdict.as_dict()) if self.json else print_verdict(verdict, console)
        return 0 if verdict.clean else 1


@dataclass(frozen=True, kw_only=True)
class Diff:
    """How two outputs differ: exit code 0 if they say the same, 1 if not."""

    output_a: tyro.conf.Positional[str]
    """A folder or an URL."""
    output_b: tyro.conf.Positional[str]
    """Another one over the same input."""
    json: bool = False
    """Everything, as JSON."""

    def run(self, console: Console) -> int:
        """Print it."""
        from mint_stream.outputs.compare import compare
        from mint_stream.outputs.tables import print_diff

        diff = compare(self.output_a, self.output_b)
        _print_json(diff.as_dict()) if self.json else print_diff(diff, console)
        return 0 if diff.same else 1


COMMANDS: dict[str, Any] = {"inspect": Inspect, "verify": Verify, "diff": Diff}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse and run: 0 well, 1 something was found, 2 it could not be done."""
    options = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="python -m mint_stream",
        args=arguments,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return int(options.run(Console(highlight=False)))
    except (ConfigError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values, indent=1, default=str))
