"""The share of a labeler's time that adapting may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mint_stream.method.stopwatch import Stopwatch

BUDGET = "budget"
"""In place of a guard's verdict, where there was no time to adapt."""


class AdaptBudget:
    """Keeps what adapting takes below `share` of all the time that `stopwatch` measures.

    On a device that queues its work the stopwatch has to `settle`.

    One rule: there is time for a frame if afterwards, it having taken what is expected, adapting
    will have taken at most that share. What is expected is the mean so far.
    """

    def __init__(self, share: float, stopwatch: Stopwatch) -> None:
        self.share, self._stopwatch = share, stopwatch
        self.spent_s = 0.0
        self._frames = 0

    def affordable(self, frames: int, guess_s: float = 0.0) -> int:
        """For how many of the next `frames` there is time.

        guess_s: what one takes, as long as none was measured.
        """
        expected_s = self.spent_s / self._frames if self._frames else guess_s
        each_s = (1 - self.share) * expected_s
        left_s = self.share * self._stopwatch.total_s - self.spent_s
        if left_s < 0:
            return 0
        return frames if frames * each_s <= left_s else int(left_s / each_s)

    @contextmanager
    def spending(self, frames: int = 0, *, stage: str | None = None) -> Iterator[None]:
        """What is measured in here goes to adapting, for so many frames.

        stage: only what this stage takes.
        """
        before_s = self._measured(stage)
        try:
            yield
        finally:
            self.spent_s += self._measured(stage) - before_s
            self._frames += frames

    def _measured(self, stage: str | None) -> float:
        return self._stopwatch.total_s if stage is None else self._stopwatch.seconds[stage]
