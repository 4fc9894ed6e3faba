"""In front of the batches: questions wait here while the model works, and then go on together.

`@serve.batch` closes a batch on a timer. Any time is wrong twice: an idle service waits for nobody,
and a busy one closes batches of one or two that then queue for the model. With this in front the
timer is zero: a free model gets a question at once, a busy one gets next whatever came meanwhile.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Gate:
    """`async with gate` waits for a place; up to `most` are let in at a time, in their order.

    Not thread-safe: all calls come from one event loop.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self._inside == 0:
            self._inside = 1
            return
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.append(ticket)
        try:
            await ticket
        except asyncio.CancelledError:
            if ticket.done() and not ticket.cancelled():
                # It was let in, and gave up before it knew.
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def free(self) -> None:
        """The model has finished a batch, whoever has yet to leave with its answer."""
        let_in = 0
        while self._waiting and let_in < self._most:
            ticket = self._waiting.popleft()
            if not ticket.done():
                ticket.set_result(None)
                let_in += 1
        self._inside += let_in

    def _leave(self) -> None:
        self._inside -= 1
        if self._inside == 0:
            # Only where all gave up before their batch began: else `free` has come first.
            self.free()
