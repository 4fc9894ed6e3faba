"""Bodies on their way in: how many at a time, and for how long.

A request that has been begun takes one of the replica's places, whether or not its body ever
comes. So the bodies that are read at a time are fewer than those places, and while another one
waits to be read the oldest has only `SPARED_S`, from its beginning, to be complete:

    async with arrivals.place():
        upload = await receive(request, ...)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from mint_stream.serving.http.problems import Problem

MOST_ARRIVING = 32
"""Bodies that a replica reads at a time: half of the requests that Serve gives it."""
SPARED_S = 1.0
"""A body that others wait for is not cut off before it had this long."""


class Arrivals:
    """Places for bodies. Not thread-safe: all calls come from one event loop.

    within_s: for one body, when nobody waits for its place.
    """

    def __init__(self, most: int, within_s: float) -> None:
        self._most, self._within_s = most, within_s
        self._places = asyncio.Semaphore(most)
        self._waiting = 0
        self._unhurried: dict[asyncio.Timeout, float] = {}
        """When each may be cut off at the earliest, oldest first; without those that will be."""
        self._hurried: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place while a body is read, in the order of asking. Raises `Problem` too-slow."""
        self._waiting += 1
        try:
            self._hurry()
            await self._places.acquire()
        finally:
            self._waiting -= 1
        now, limit = asyncio.get_running_loop().time(), asyncio.timeout(self._within_s)
        try:
            async with limit:
                self._unhurried[limit] = now + SPARED_S
                self._hurry()
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            seconds = asyncio.get_running_loop().time() - now
            raise Problem(
                "too-slow",
                f"the body was not complete after {seconds:.1f} s"
                + (" and others waited" if limit in self._hurried else ""),
                "Send it again, over a faster connection or scaled down.",
            ) from None
        finally:
            self._unhurried.pop(limit, None)
            self._hurried.discard(limit)
            self._places.release()

    def _hurry(self) -> None:
        """As many of those under way as others wait are cut off soon, the oldest first."""
        now = asyncio.get_running_loop().time()
        while self._unhurried and len(self._unhurried) + self._waiting > self._most:
            limit = next(iter(self._unhurried))
            earliest = max(now, self._unhurried.pop(limit))
            self._hurried.add(limit)
            if not limit.expired():
                limit.reschedule(min(earliest, limit.when() or earliest))
