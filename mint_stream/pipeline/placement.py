"""What a run asks of Ray, so that all of it finds a place on the nodes that there are.

A task or an actor runs on one node: what counts is what each node has, not their sum. Ray puts
labelers where it likes, so that in the worst case they crowd on some nodes; wherever they land, a
reader and a commit task still have to fit on one.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ray

log = logging.getLogger(__name__)

COMMIT_CPUS = 0.1
SOURCE_CPUS = 0.01
_READER_CPUS = (0.505, 0.255)
"""Two readers share a core, or four where nodes are small.

More of them would wait less for a distant store, and take the labelers' time on a CPU. Never those
of a labeler, which have two digits: Ray Data makes one stage of two that ask for the same, and
whole shards would be read within the labelers.
"""


_OF_A_CORE = 0.34


@dataclass(frozen=True)
class Node:
    """What a node has in all."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Asks:
    """What each part of a run asks for."""

    labeler_cpus: float
    labeler_gpus: float
    reader_cpus: float


def nodes_there() -> list[Node]:
    """The living nodes of the cluster."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(each.get("CPU", 0.0), each.get("GPU", 0.0)) for each in resources]


def gpus_to_come() -> int:
    """GPUs that the cluster's autoscaler may have in all; 0 where there is none."""
    # Ray Data asks in the same way; there is no public one.
    most = ray._private.state.state.get_max_resources_from_cluster_config()
    return int((most or {}).get("GPU") or 0)


def say_if_no_gpu(device: str) -> None:
    """A line, once in this process, if `auto` means CPUs because the cluster has no GPU."""
    nodes = nodes_there()
    if device == "auto" and not gpus_to_come() and not any(node.gpus for node in nodes):
        alone = len(nodes) == 1
        where = "on this machine" if alone else f"on any of the {len(nodes)} nodes"
        wait = "" if alone else "--device cuda waits for one, "
        _warn_once(
            f"there is no GPU {where}: labelling on CPUs ({wait}--device cpu leaves this line out)"
        )


@functools.cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


def asks(nodes: Sequence[Node], labelers: int, device: str, to_come: int = 0) -> Asks:
    """What `labelers` on `device` ask for, with readers beside them.

    device: as in `ModelConfig`. `auto` takes GPUs where there are any or may come.
    to_come: GPUs that an autoscaler may have in all.
    """
    gpus = 0.0 if device == "cpu" else _gpu_share(nodes, labelers, device, to_come)
    cpus, reader_cpus = _cpus(nodes, labelers, gpus)
    return Asks(labeler_cpus=cpus, labeler_gpus=gpus, reader_cpus=reader_cpus)


def _gpu_share(nodes: Sequence[Node], labelers: int, device: str, to_come: int) -> float:
    """A whole GPU if there are enough, else a share of which every GPU holds as many."""
    # Ray gives shares of one device, never of two.
    gpus = max(sum(int(node.gpus) for node in nodes), to_come)
    if not gpus:
        return 0.0 if device == "auto" else 1.0
    on_each = math.ceil(labelers / gpus)
    return math.floor(10_000 / on_each) / 10_000


def _cpus(nodes: Sequence[Node], labelers: int, gpus: float) -> tuple[float, float]:
    """CPUs of a labeler, half of them all at most so that reading goes on; and of a reader."""
    total = sum(node.cpus for node in nodes)
    if not total:
        # Nodes that are still to come.
        return 0.5, _READER_CPUS[0]
    # Of a single core Ray Data finds no share for reading where labelers have half of it: two of
    # 0.25 stood still from the start, one of 0.5 once other nodes had died; 0.34 in all do not.
    share = 0.5 if total >= 2 else _OF_A_CORE
    hundredths = min(50, math.floor(total * share / labelers * 100))
    hosts = [node for node in nodes if node.gpus]
    if gpus and hosts and max(node.cpus for node in hosts) < 0.01:
        hundredths = 0
    if total >= 2 and _fit(nodes, labelers, hundredths, gpus, _READER_CPUS[0]):
        return hundredths / 100, _READER_CPUS[0]
    fewer = (h for h in range(hundredths, 0, -1) if _fit(nodes, labelers, h, gpus, _READER_CPUS[1]))
    return next(fewer, min(hundredths, 1)) / 100, _READER_CPUS[1]


def _fit(
    nodes: Sequence[Node], labelers: int, hundredths: int, gpus: float, reader_cpus: float
) -> bool:
    """Whether labelers of so many hundredths of a CPU all find a place, and wherever they do a
    reader and a commit as well."""
    room = list(_room(nodes, hundredths, gpus))
    # Those for whose GPUs nodes are still to come find CPUs there.
    if sum(room) < min(labelers, sum(_room(nodes, 0, gpus))):
        return False
    beside = reader_cpus + COMMIT_CPUS + SOURCE_CPUS
    crowd = 0
    for node, slots in zip(nodes, room, strict=True):
        if node.cpus < beside:
            continue
        if not hundredths:
            return True
        blocking = math.floor(round((node.cpus - beside) * 1000) / (10 * hundredths)) + 1
        if blocking > slots:
            return True
        crowd += blocking
    return crowd > labelers


def _room(nodes: Sequence[Node], hundredths: int, gpus: float) -> Iterator[float]:
    """How many labelers each node holds."""
    for node in nodes:
        by_cpus = round(node.cpus * 100) // hundredths if hundredths else math.inf
        by_gpus = int(node.gpus) * math.floor(1 / gpus + 1e-9) if gpus else math.inf
        yield min(by_cpus, by_gpus)
