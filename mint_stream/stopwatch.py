"""Where the time goes: seconds by stage."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up wall-clock seconds by stage; `with stopwatch("encoder"): ...`.

    On a GPU the work is queued: a stage's seconds are then those that the host spent on it, and
    the wait falls to the stage that reads the answer.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """The seconds since the last `take`, by stage."""
        taken = dict(self.seconds)
        self.seconds.clear()
        return taken
