"""Where the time goes: seconds by stage."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up wall-clock seconds by stage; `with stopwatch("encoder"): ...`. Thread-safe.

    On a GPU the work is queued: a stage's seconds are then those that the host spent on it, and
    the wait falls to the stage that reads the answer. With `settle` (`clip.device.settler`) each
    stage waits for its own work, and pays for it: for whoever goes by these seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.settle: Callable[[], None] | None = None
        """Waits until the device has done all that it was given."""
        self._lock = threading.Lock()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.total_s = 0.0
        """Of all stages measured here, never taken away."""

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self.add(stage, self._now() - start)

    def _now(self) -> float:
        if self.settle is not None:
            self.settle()
        return self._clock()

    def add(self, stage: str, seconds: float) -> None:
        """Count what was measured elsewhere."""
        with self._lock:
            self.seconds[stage] += seconds
            self.total_s += seconds

    def take(self) -> dict[str, float]:
        """The seconds since the last `take`, by stage."""
        with self._lock:
            taken = dict(self.seconds)
            self.seconds.clear()
        return taken
