"""What a run asks Ray for, held against every way in which Ray may place it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_stream.pipeline import placement
from mint_stream.pipeline.placement import COMMIT_CPUS, SOURCE_CPUS, Asks, Node, asks

CPU_NODES = st.lists(st.integers(0, 6).map(lambda n: Node(float(n))), min_size=1, max_size=4)


def placements(nodes: list[Node], labelers: int, asked: Asks) -> list[tuple[int, ...]]:
    """Labelers on each node, in all ways in which they fit."""
    ways: list[tuple[int, ...]] = [()]
    for node in nodes:
        each = asked.labeler_cpus
        most = labelers if not each else int((node.cpus + 1e-9) / each)
        if asked.labeler_gpus:
            on_one = int((1 + 1e-9) / asked.labeler_gpus)
            most = min(most, int(node.gpus) * on_one)
        ways = [(*way, n) for way in ways for n in range(min(most, labelers - sum(way)) + 1)]
    return [way for way in ways if sum(way) == labelers]


def leaves_room(nodes: list[Node], way: tuple[int, ...], asked: Asks) -> bool:
    """Whether a reader and a commit task fit beside the labelers."""
    beside = asked.reader_cpus + COMMIT_CPUS + SOURCE_CPUS
    free = (node.cpus - n * asked.labeler_cpus + 1e-9 for node, n in zip(nodes, way, strict=True))
    return any(cpus >= beside for cpus in free)


@given(CPU_NODES, st.integers(1, 6))
def test_wherever_ray_puts_the_labelers_reading_goes_on(nodes: list[Node], labelers: int) -> None:
    if not any(node.cpus for node in nodes):
        return
    asked = asks(nodes, labelers, "cpu")
    ways = placements(nodes, labelers, asked)
    assert ways, "the labelers find no place"
    assert all(leaves_room(nodes, way, asked) for way in ways)


def test_two_labelers_on_two_nodes_of_one_cpu_do_not_stand_still() -> None:
    """Each node had half a CPU left, and readers asked for 0.505."""
    nodes = [Node(0), Node(1), Node(1)]
    asked = asks(nodes, 2, "cpu")
    assert asked.labeler_cpus + asked.reader_cpus + COMMIT_CPUS + SOURCE_CPUS <= 1


@pytest.mark.parametrize("labelers", [1, 2, 3, 8])
def test_labelers_on_one_core_leave_ray_data_a_share_for_reading(labelers: int) -> None:
    """Two of 0.25 CPUs left room for a reader, and Ray Data started none all the same."""
    asked = asks([Node(1)], labelers, "cpu")
    assert labelers * asked.labeler_cpus <= 0.34
    assert asked.reader_cpus < 0.5, "two of them, so that one that ends late holds nobody up"


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 16, 48])
def test_readers_and_labelers_stay_apart(cpus: int) -> None:
    """Four labelers on two cores were one stage with their readers: each took a whole shard."""
    found = [asks([Node(cpus)], labelers, "cpu") for labelers in range(1, 65)]
    assert not {each.reader_cpus for each in found} & {each.labeler_cpus for each in found}
    assert found[0].labeler_cpus + found[0].reader_cpus + 0.11 <= cpus, "one of each, and the rest"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=4), st.integers(1, 40))
def test_every_labeler_gets_its_share_of_one_gpu(gpus: list[int], labelers: int) -> None:
    """Three on two GPUs were given 0.66 each, so that the third one waited for ever."""
    nodes = [Node(16, n) for n in gpus]
    asked = asks(nodes, labelers, "auto")
    if not sum(gpus):
        assert asked.labeler_gpus == 0
        return
    places = sum(gpus) * int((1 + 1e-9) / asked.labeler_gpus)
    assert places >= labelers
    assert asked.labeler_gpus == 1 or places - sum(gpus) < labelers, "no smaller than it must be"


def test_gpus_are_asked_for_where_they_can_come() -> None:
    none_yet = [Node(4)]
    assert asks(none_yet, 2, "auto").labeler_gpus == 0
    assert asks(none_yet, 2, "auto", to_come=8).labeler_gpus == 1
    assert asks(none_yet, 2, "cuda").labeler_gpus == 1
    assert asks(none_yet, 2, "cpu", to_come=8).labeler_gpus == 0
    assert asks([Node(4, 1)], 4, "auto", to_come=2).labeler_gpus == 0.5
    assert asks([Node(4, 1)], 4, "auto", to_come=2).labeler_cpus > 0.1, "theirs come as well"


def test_a_node_with_gpus_and_no_cpus_is_of_use() -> None:
    assert asks([Node(0, 4), Node(4)], 3, "auto").labeler_cpus == 0


@pytest.mark.parametrize(
    ("device", "nodes", "to_come", "said"),
    [
        ("auto", [Node(4)], 0, "there is no GPU on this machine: labelling on CPUs"),
        ("auto", [Node(0), Node(4)], 0, "on any of the 2 nodes: labelling on CPUs (--device cuda"),
        ("auto", [Node(4)], 8, None),
        ("auto", [Node(4), Node(4, 1)], 0, None),
        ("cpu", [Node(4)], 0, None),
        ("cuda", [Node(4), Node(4)], 0, None),
    ],
)
def test_cpus_in_place_of_gpus_are_said_once(
    device: str,
    nodes: list[Node],
    to_come: int,
    said: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(placement, "nodes_there", lambda: nodes)
    monkeypatch.setattr(placement, "gpus_to_come", lambda: to_come)
    placement._warn_once.cache_clear()
    for _ in range(3):
        placement.say_if_no_gpu(device)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]
