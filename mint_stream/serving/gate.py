"""In front of the batches: questions wait here while the model works, and then go on together.

`@serve.batch` closes a batch on a timer. Any time is wrong twice: an idle service waits for nobody,
and a busy one closes batches of one or two that then queue for the model. With this in front the
timer is zero: a free model gets a question at once, a busy one gets next whatever came meanwhile.
Only a full batch, which nobody could join, goes on before that: it stands ready behind the one
that the model works on, so that the model does not wait for the event loop between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

AT_ONCE = 2
"""Batches that are let in: the one that the model works on, and a full one behind it."""


@dataclass(eq=False)
class _Batch:
    """Those who were let in together."""

    members: int
    """That have yet to leave."""


class Gate:
    """`async with gate.place()` waits for a place; up to `most` are let in together, in order.

    Not thread-safe: all calls come from one event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._under_way: list[_Batch] = []
        self._waiting: list[asyncio.Future[_Batch]] = []

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place in a batch, until the answer is there."""
        loop = asyncio.get_running_loop()
        ticket = loop.create_future()
        self._waiting.append(ticket)
        # Not at once: those who come in the same turn of the loop go together, in their order.
        loop.call_soon(self._let_in)
        try:
            await ticket
            yield
        finally:
            if not ticket.cancelled():
                # Perhaps it was let in, and gave up before it knew.
                self._leave(ticket.result())

    def free(self) -> None:
        """The model has finished a batch, whoever has yet to leave with its answer."""
        del self._under_way[:1]
        self._let_in()

    def _let_in(self) -> None:
        while len(self._under_way) < AT_ONCE:
            self._waiting = [ticket for ticket in self._waiting if not ticket.cancelled()]
            if len(self._waiting) < (self._most if self._under_way else 1):
                return
            together, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
            batch = _Batch(len(together))
            self._under_way.append(batch)
            for ticket in together:
                ticket.set_result(batch)

    def _leave(self, batch: _Batch) -> None:
        batch.members -= 1
        if batch.members == 0 and batch in self._under_way:
            # Only where all gave up before their batch began: else `free` has come first.
            self._under_way.remove(batch)
            self._let_in()
