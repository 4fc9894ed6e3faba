"""Looks after a dataset that runs: says what finds no place on the cluster, and ends it if need be.

Ray lets a task or an actor wait for a place for ever and without a word, and Ray Data with it. A
stop request reaches only what runs. And where a node has died, what ran there crowds on those that
are left, beside which the rest of the run may find no room: then it has to ask for less.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.data._internal.execution.execution_callback import ExecutionCallback

from mint_stream.pipeline.control import RemoteControl
from mint_stream.pipeline.placement import COMMIT_CPUS, SOURCE_CPUS, Asks

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks at what waits."""
SAY_AFTER_S = 30.0
"""How long something waits until it is said."""
END_AFTER_S = 10.0
"""How long something waits, and nothing is committed, until the dataset is ended: where the run is
to stop, or would ask for something else by now."""

Shape = tuple[tuple[str, float], ...]
"""CPUs and GPUs that are asked for, without zeros. What else Ray Data adds, as memory, is its own
estimate and differs from task to task."""


class Unplaced(RuntimeError):
    """Parts of a run found no place, and the dataset was ended for it."""


@dataclass(frozen=True)
class Cluster:
    """What waits on a cluster, and what its nodes have."""

    waiting: Mapping[Shape, int]
    """How many of each shape wait for a place, of all jobs."""
    nodes: tuple[tuple[Shape, Shape], ...]
    """CPUs and GPUs of each node, in all and free."""


def look() -> Cluster:
    """The cluster as it is."""
    # What Ray's autoscaler goes by; `ray.util.state` needs a dashboard, which a run has not.
    state = get_cluster_resource_state(ray._private.worker.global_worker.gcs_client)
    waiting: Counter[Shape] = Counter()
    for pending in state.pending_resource_requests:
        waiting[shape(pending.request.resources_bundle)] += pending.count
    nodes = [
        (shape(node.total_resources), shape(node.available_resources))
        for node in state.node_states
        if node.total_resources
    ]
    return Cluster(waiting, tuple(nodes))


def shape(resources: Mapping[str, float]) -> Shape:
    """`resources` as they compare: Ray counts them in ten thousandths."""
    counted = ((name, round(resources.get(name, 0.0), 4)) for name in ("CPU", "GPU"))
    return tuple((name, n) for name, n in counted if n)


class Watch(ExecutionCallback):
    """Looks at the cluster while a dataset runs, from Ray Data's own loop.

    asked: what the parts of the run ask for, by which it knows them. ask_now: what they would ask
    for on the cluster as it is now.
    """

    def __init__(self, asked: Asks, control: RemoteControl, ask_now: Callable[[], Asks]) -> None:
        self._asked, self._control, self._ask_now = asked, control, ask_now
        self._labeler = shape({"CPU": asked.labeler_cpus, "GPU": asked.labeler_gpus})
        self._names = {
            shape({"CPU": COMMIT_CPUS}): "commit task",
            shape({"CPU": SOURCE_CPUS}): "listing",
            shape({"CPU": asked.reader_cpus}): "read task",
            self._labeler: "labeler",
        }
        self._next_look = 0.0
        self._progressed = time.monotonic()
        self._stopped: float | None = None
        self._since: dict[Shape, float] = {}
        self._said: set[Shape] = set()

    @contextmanager
    def over(self, dataset: ray.data.Dataset) -> Iterator[None]:
        """Look after `dataset` while it is iterated in this block."""
        key = secrets.token_hex(8)
        dataset.context.custom_execution_callback_classes.append(_WatchOf(key))
        _watches[key] = self
        try:
            yield
        finally:
            del _watches[key]

    def progressed(self) -> None:
        """Something was committed just now."""
        self._progressed = time.monotonic()

    def on_execution_step(self, executor: Any) -> None:
        """Called in each round of Ray Data's loop, which ends with what this raises: `Unplaced`."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_S
        try:
            cluster = look()
        except Exception as error:
            # The cluster's head does not answer: then Ray says so itself.
            log.debug("cannot see what waits: %r", error)
            return
        self._note(cluster, now)
        if self._control.asked_here:
            self._stopped = self._stopped or now
        if any(now - max(since, self._idle_since) >= END_AFTER_S for since in self._since.values()):
            if self._stopped is not None:
                raise Unplaced("it is to stop, and something waits for a place on the cluster")
            if self._ask_now() != self._asked:
                raise Unplaced("the cluster has other nodes now, which have no room for it")
        if self._stopped is None:
            self._say(cluster, now)

    @property
    def _idle_since(self) -> float:
        """When something was committed last, or the request to stop came."""
        return max(self._progressed, self._stopped or self._progressed)

    def _note(self, cluster: Cluster, now: float) -> None:
        """Since when what is the run's own has been waiting."""
        waiting = self._names.keys() & cluster.waiting.keys()
        self._since = {own: self._since.get(own, now) for own in waiting}
        self._said &= waiting

    def _say(self, cluster: Cluster, now: float) -> None:
        for own, since in self._since.items():
            # Read and commit tasks wait for each other as long as something is committed.
            idle_since = since if own == self._labeler else max(since, self._progressed)
            if own not in self._said and now - idle_since >= SAY_AFTER_S:
                self._said.add(own)
                count = cluster.waiting[own]
                log.warning(
                    "%d %s%s waiting for a place: %s%s; the cluster has %s. It goes on "
                    "once there is room: add nodes, or stop and run with fewer --num-labelers",
                    count,
                    self._names[own],
                    " is" if count == 1 else "s are",
                    words(own),
                    "" if count == 1 else " for each",
                    _nodes_in_words(cluster),
                )


_watches: dict[str, Watch] = {}


@dataclass(frozen=True)
class _WatchOf:
    """Gives Ray Data the watch of a dataset; a reference, because it travels to the tasks."""

    key: str

    def __call__(self) -> Watch:
        return _watches[self.key]


def words(asked: Shape) -> str:
    """`1 CPU and 0.5 GPUs`; `no CPU` where there is none."""
    found = [f"{n:g} {name}{'' if n == 1 else 's'}" for name, n in asked]
    return " and ".join(found) or "no CPU"


def _nodes_in_words(cluster: Cluster) -> str:
    """`2 nodes of 1 CPU (0.5 CPUs free)`, alike ones together."""
    found = [
        f"{count} node{'' if count == 1 else 's'} of {words(total)} ({words(free)} free)"
        for (total, free), count in Counter(cluster.nodes).items()
    ]
    return ", ".join(found) or "no nodes"
