"""Nodes that die, that come, and that are small: every frame once."""

from __future__ import annotations

from clusters import BANK, CONTROL, LABELER, Nodes, following, nodes_of
from oracle import Output, check_frames, check_usage
from places import Place

from mint_stream.config import PRESETS


def check(place: Place, ids: list[str]) -> None:
    """Every frame once, and the bank with each adapted frame once."""
    output = Output.read(place.output)
    check_frames(output, ids)
    check_usage(output, PRESETS["realtime"])


def test_the_node_of_a_labeler_dies_in_mid_run(nodes: Nodes, place: Place) -> None:
    cluster = nodes({}, {})
    with following(cluster, place, "--num-labelers", "2") as run:
        ids = run.put(3)
        run.until(lambda: run.committed > 0, "something is committed")
        victim = nodes_of(cluster, LABELER)[0]
        cluster.remove_node(victim, allow_graceful=False)
        ids += run.put(2)
        run.until_all()
        run.stop()
    check(place, ids)


def test_the_node_of_the_only_labeler_dies_in_mid_run(nodes: Nodes, place: Place) -> None:
    cluster = nodes({}, {})
    with following(cluster, place) as run:
        ids = run.put(3)
        run.until(lambda: run.committed > 0, "something is committed")
        (victim,) = nodes_of(cluster, LABELER)
        cluster.remove_node(victim, allow_graceful=False)
        ids += run.put(2)
        run.until_all()
        run.stop()
    check(place, ids)


def test_the_nodes_of_bank_server_and_control_die_in_mid_run(nodes: Nodes, place: Place) -> None:
    cluster = nodes({}, {}, {})
    program = "tests/nodes/run_with_bank_on_a_worker.py"
    with following(cluster, place, program=program) as run:
        ids = run.put(3)
        run.until(lambda: run.committed > 0, "something is committed")
        victims = nodes_of(cluster, BANK)
        assert victims, "the bank server is on the head"
        assert nodes_of(cluster, CONTROL), "the run's control is on the head"
        for victim in {*victims, *nodes_of(cluster, CONTROL)}:
            cluster.remove_node(victim, allow_graceful=False)
        ids += run.put(2)
        run.until_all()
        run.stop()
    check(place, ids)


def test_two_labelers_on_nodes_of_one_cpu_and_a_node_that_comes(nodes: Nodes, place: Place) -> None:
    """Readers asked for more than a node had left, and nothing ever ran."""
    cluster = nodes({}, {})
    with following(cluster, place, "--num-labelers", "2") as run:
        ids = run.put(2)
        run.until_all()
        cluster.add_node(num_cpus=1)
        ids += run.put(2)
        run.until_all()
        run.stop()
    check(place, ids)
