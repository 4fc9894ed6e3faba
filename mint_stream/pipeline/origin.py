"""Where a message or a metric comes from."""

from __future__ import annotations

from dataclasses import dataclass

from mint_stream import logs
from mint_stream.pipeline.metrics import counter
from mint_stream.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which run a task or an actor works for; it travels to them."""

    run: str
    """Id of this run, in every log line."""
    output: str
    """Root of the outputs as it was given, in every metric: the same when the run is repeated."""
    token: str | None = None
    """What `sharing.require_shared` looks for; None where every node reaches the output."""

    def enter(self) -> None:
        """Log and count for this run in this process."""
        logs.set_run(self.run)
        retries = counter("store_retries", "Attempts at the store beyond the first", "operation")
        Store.on_retry = lambda doing: retries.inc(
            1, {"output": self.output, "operation": doing.replace(" ", "_")}
        )

    def leave(self) -> None:
        """Count no more."""
        Store.on_retry = None
