"""When a batch should close: when the model is expected to be free, and at once if it is.

`@serve.batch` closes a batch on a timer. A fixed time is wrong twice: an idle service waits for
nobody, and a busy one closes batches of one or two that then queue for the model. So the timer is
set, before each image joins, to what is left of the batch that runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_SHARE = 0.2
"""Weight of the newest measurement."""
_LEAST = 0.25
"""While the model is busy no batch closes in less than this share of a batch's time."""
_MOST_S = 1.0


class Pace:
    """Learns how long batches take. Not thread-safe: all calls come from the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[int, float] = {}
        self._running: tuple[float, float] | None = None

    def started(self, images: int) -> None:
        """A batch of `images` runs now."""
        self._running = self._clock(), self.expected_s(images)

    def finished(self, images: int) -> None:
        """It has run."""
        if self._running is None:
            return
        seconds = self._clock() - self._running[0]
        before = self._seconds.get(images, seconds)
        self._seconds[images] = before + _SHARE * (seconds - before)
        self._running = None

    def wait_s(self) -> float:
        """How long a batch that begins to fill now should wait for more images."""
        if self._running is None:
            return 0.0
        began, expected = self._running
        left = began + expected - self._clock()
        return min(_MOST_S, max(left, _LEAST * expected))

    def expected_s(self, images: int) -> float:
        """How long a batch of `images` takes, from the size nearest to it that was measured."""
        if not self._seconds:
            return 0.0
        nearest = min(self._seconds, key=lambda size: abs(size - images))
        return self._seconds[nearest] * max(1.0, images / nearest)
