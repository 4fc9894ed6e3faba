"""Where a test's runs read and write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oracle import check_verified
from tiny import Assets

from mint_stream.config import RunConfig
from mint_stream.pipeline.run import prepare_run
from mint_stream.pipeline.summary import RunSummary


@dataclass(frozen=True)
class Place:
    """An empty root on one kind of store, with an input and outputs below it."""

    root: str
    assets: Assets

    @property
    def input(self) -> str:
        return f"{self.root}/in"

    @property
    def output(self) -> str:
        return f"{self.root}/out"

    def config(self, **changes: Any) -> RunConfig:
        """A small run from `input` to `output`."""
        output = changes.pop("output", self.output)
        return self.assets.config(changes.pop("input", self.input), output, **changes)

    def run(self, *, alone: bool = True, **changes: Any) -> RunSummary:
        """Prepare, execute and verify it; `alone`: no other run writes to the output."""
        config = self.config(**changes)
        summary = prepare_run(config).execute()
        if alone:
            check_verified(config.output)
        return summary
