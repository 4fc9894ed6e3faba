"""What a run tells Prometheus, through Ray's metrics export: few numbers, all named `mint_...`.

Ray puts `ray_` in front and `_total` behind a counter: `ray_mint_frames_total{output="..."}`.

Units are counted by the driver, when they are committed: a retry counts once, and a metric costs
microseconds a unit. Retries of the store and checkpoints are counted where they happen.

A metric never ends what it tells of: whatever it raises is logged, once a process, and that is all.
Ray takes tags in ASCII; `tag_text` writes any other text so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from ray.util.metrics import Counter, Gauge, Histogram

from mint_stream.output.units import CameraDomain, CommittedUnit

log = logging.getLogger(__name__)

MOST_CAMERAS = 100
"""Cameras with series of their own; the others' frames are counted together, as `others`."""
_COMMIT_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
_AGAIN_S = 1.0
"""Between two times that a gauge is set; the shortest interval at which Ray exports."""
_REJECT_STAGES = ("list", "read", "decode", "label")
_NOTHING = 1e-300
"""What a counter begins with: Ray refuses to add 0, and anything added to this is itself."""
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_failed: set[str] = set()
"""What was said to fail."""


def tag_text(text: str) -> str:
    """`text` in printable ASCII, everything else and `%` as in an URL: `Süd` is `S%C3%BCd`.

    `urllib.parse.unquote(..., errors="surrogatepass")` gives the text back.
    """
    return quote(text, safe=_PLAIN, errors="surrogatepass")


class Metric:
    """A metric of Ray's, `mint_NAME`, tagged with the output and `tags`, that raises nothing."""

    def __init__(self, make: Callable[..., Any], name: str, what: str, *tags: str, **how: Any):
        self.name = name
        self._metric: Any = None
        with _harmless(name):
            self._metric = make(f"mint_{name}", what, tag_keys=("output", *tags), **how)

    def inc(self, by: float, tags: Mapping[str, str]) -> None:
        """Add `by` to a counter."""
        self._tell("inc", by, tags)

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        """Set a gauge."""
        self._tell("set", value, tags)

    def observe(self, value: float, tags: Mapping[str, str]) -> None:
        """Add one observation to a histogram."""
        self._tell("observe", value, tags)

    def _tell(self, verb: str, number: float, tags: Mapping[str, str]) -> None:
        with _harmless(self.name):
            if self._metric is not None:
                plain = {tag: tag_text(text) for tag, text in tags.items()}
                getattr(self._metric, verb)(number, plain)


@contextmanager
def _harmless(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if name not in _failed:
            _failed.add(name)
            log.warning("the metric %s is not told as it should be: %r", name, error)


class RunMetrics:
    """What the driver knows: the run itself, and each unit once it is committed."""

    def __init__(self, output: str, *, follow: bool) -> None:
        self._tags = {"output": output}
        self._active = KeptGauge("run_active", "1 while a run labels into this output", "follow")
        self._active_tags = {**self._tags, "follow": str(follow).lower()}
        self._frames = counter("frames", "Frames labelled and committed")
        self._adapted = counter("adapted_frames", "Frames whose adapted answer stands")
        self._spared = counter("spared_frames", "Frames that an adaptation budget had no time for")
        self._abstained = counter("abstained_frames", "Frames without a label: not sure enough")
        self._rejects = counter("rejects", "Rows written to rejects/", "stage")
        self._seconds = counter("stage_seconds", "Seconds spent, by stage", "stage")
        self._commit = Metric(
            Histogram,
            "commit_seconds",
            "Seconds from a unit's first PUT until it is committed",
            boundaries=_COMMIT_SECONDS,
        )
        self._seq = KeptGauge("bank_seq", "Merges that the bank has seen")
        self._merges = 0
        self._staleness = KeptGauge(
            "bank_staleness", "Merges of other labelers that the latest unit had not seen"
        )
        self._drift = KeptGauge(
            "drift_score", "How far a camera lies from its bank's first domain", "camera"
        )
        self._guard = counter("guard_frames", "Frames by what the guard said", "state", "camera")
        self._cameras: set[str] = set()
        self._gauges = (self._active, self._seq, self._staleness, self._drift)

    def start(self) -> None:
        """The run labels from now on."""
        self._active.set(1, self._active_tags)
        # Prometheus sees what is added to a counter that it knows; the first value is no increase.
        self._inc(self._frames, _NOTHING)
        self._inc(self._adapted, _NOTHING)
        self._inc(self._spared, _NOTHING)
        self._inc(self._abstained, _NOTHING)
        for stage in _REJECT_STAGES:
            self._inc(self._rejects, _NOTHING, stage=stage)

    def add(self, unit: CommittedUnit) -> None:
        """Count a unit."""
        with _harmless("of a unit"):
            self._add(unit)

    def _add(self, unit: CommittedUnit) -> None:
        facts = unit.facts
        for stage, spent_s in facts.stage_seconds.items():
            self._inc(self._seconds, spent_s, stage=stage)
        self._commit.observe(facts.stage_seconds["commit"], self._tags)
        if not unit.won:
            return
        self._inc(self._frames, facts.labelled)
        self._inc(self._adapted, facts.adapted)
        self._inc(self._spared, facts.spared)
        self._inc(self._abstained, facts.abstained)
        for stage, rejects in facts.rejected.items():
            self._inc(self._rejects, rejects, stage=stage)
        if facts.bank_seq is not None:
            # Units of several labelers are committed in any order.
            self._merges = max(self._merges, facts.bank_seq)
            self._seq.set(self._merges, self._tags)
            self._staleness.set(facts.bank_staleness or 0, self._tags)
        for camera in facts.cameras:
            self._add_camera(camera)

    def _add_camera(self, about: CameraDomain) -> None:
        camera = about.camera
        if len(self._cameras) < MOST_CAMERAS:
            self._cameras.add(camera)
        if camera in self._cameras:
            self._drift.set(about.drift or 0.0, {**self._tags, "camera": camera})
        else:
            camera = "others"
        self._inc(self._guard, about.frames, state=about.guard, camera=camera)

    def end(self) -> None:
        """The run labels no more."""
        self._active.set(0, self._active_tags)
        for gauge in self._gauges:
            gauge.rest()

    def _inc(self, counter: Metric, by: float, **tags: str) -> None:
        if by > 0:
            counter.inc(by, {**self._tags, **tags})


class CheckpointMetrics:
    """What the bank server knows."""

    def __init__(self, output: str) -> None:
        self._seq = KeptGauge(
            "bank_checkpoint_seq", "Merges that this run's newest checkpoint holds; 0 before"
        )
        self._tags = {"output": output}
        self.saved(0)

    def saved(self, seq: int) -> None:
        """A checkpoint of `seq` merges is down."""
        self._seq.set(seq, self._tags)


class KeptGauge:
    """A gauge that stays in view: Ray forgets a value that was not set for two export intervals."""

    def __init__(self, name: str, what: str, *tags: str) -> None:
        self._gauge = Metric(Gauge, name, what, *tags)
        self._values: dict[tuple[tuple[str, str], ...], float] = {}
        self._lock = threading.Lock()
        self._resting = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keep {name}", daemon=True)

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Show `value` from now on, until another one is set."""
        with self._lock:
            self._values[tuple(tags.items())] = value
            self._gauge.set(value, tags)
            if self._thread.ident is None:
                self._thread.start()

    def rest(self) -> None:
        """Let Ray forget the values."""
        self._resting.set()

    def _keep(self) -> None:
        while not self._resting.wait(_AGAIN_S):
            with self._lock:
                for tags, value in self._values.items():
                    self._gauge.set(value, dict(tags))


def counter(name: str, what: str, *tags: str) -> Metric:
    """A counter of this package, tagged with the output and `tags`."""
    return Metric(Counter, name, what, *tags)
