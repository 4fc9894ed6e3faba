"""Which node of a cluster plays which part, and runs that follow their input on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import psutil
from drivers import Driver
from places import Place
from ray._private.node import Node
from ray.cluster_utils import Cluster
from tiny import Assets, put_tars

from mint_stream.store.store import Store

FRAMES, UNIT = 8, 4
"""Of a shard, of a unit."""
Nodes = Callable[..., Cluster]
"""The fixture `nodes`."""
LABELER, BANK, CONTROL = "LabelUnits", "_BankActor", "RunControl"
"""As the titles of Ray's processes name them."""


def arguments(place: Place | Mixed, *more: str) -> list[str]:
    """Of the command, for a small run from `place.input` to `place.output`."""
    return [
        *("--input", place.input, "--output", place.output),
        *("--labels", str(place.assets.labels), "--model", str(place.assets.model)),
        *("--device", "cpu", "--dtype", "float32", "--unit-size", str(UNIT), *more),
    ]


def nodes_of(cluster: Cluster, part: str) -> list[Node]:
    """The workers (not the head) on which a process of this part runs."""
    found = []
    for node in cluster.worker_nodes:
        with contextlib.suppress(psutil.NoSuchProcess):
            raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
            if any(_plays(process, part) for process in raylet.children(recursive=True)):
                found.append(node)
    return found


def _plays(process: psutil.Process, part: str) -> bool:
    try:
        return part in " ".join(process.cmdline())
    except psutil.Error:
        return False


@dataclass
class Following:
    """A run that labels what is put into its input, until it is stopped."""

    place: Place | Mixed
    driver: Driver
    shards: int = 0

    def put(self, shards: int) -> list[str]:
        """More shards; gives the ids of their frames."""
        ids = put_tars(
            self.place.input, shards=shards, frames=FRAMES, first=self.shards, cameras=("a", "b")
        )
        self.shards += shards
        return ids

    @property
    def committed(self) -> int:
        return len(Store(self.place.output).list("labels/"))

    def until_all(self) -> None:
        """Wait until all that was put there is committed."""
        units = self.shards * FRAMES // UNIT
        self.until(lambda: self.committed == units, f"{units} units are committed")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        self.driver.until(condition, what)

    def stop(self) -> None:
        """As Ctrl-C does."""
        self.driver.interrupt()
        assert self.driver.wait() == 0, self.driver.err


@contextlib.contextmanager
def following(
    cluster: Cluster,
    place: Place | Mixed,
    *more: str,
    program: str = "pipelines/label_stream.py",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Following]:
    """A run in a process of its own that has joined `cluster`, with an input of nothing yet."""
    Store(place.input).write("README.md", b"shards come here")
    follow = ("--follow", "--poll", "0.3", "--checkpoint-every", "0.5")
    with Driver(
        [program, *arguments(place, *follow, *more)],
        environment={"RAY_ADDRESS": cluster.address, **(environment or {})},
    ) as driver:
        yield Following(place, driver)


@dataclass(frozen=True)
class Mixed:
    """A `Place` of which input and output lie apart."""

    input: str
    output: str
    assets: Assets
