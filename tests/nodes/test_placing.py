"""What finds no place is said, and a stop request ends the run all the same."""

from __future__ import annotations

from clusters import Nodes, arguments, following
from drivers import Driver
from oracle import Output, check_frames
from places import Place
from tiny import put_tars


def test_a_labeler_that_finds_no_place_is_said_and_a_stop_request_ends_the_run(
    nodes: Nodes, place: Place
) -> None:
    """Two labelers on the CPUs of another run: nothing was said, and nothing ended it."""
    cluster = nodes({"num_cpus": 2})
    put_tars(place.input, shards=1, frames=4)
    environment = {"RAY_ADDRESS": cluster.address}
    with Driver(["tests/nodes/hold_all_cpus.py"], environment=environment) as holder:
        holder.until(lambda: "held" in holder.out, "no CPU is left")
        with Driver(
            ["pipelines/label_stream.py", *arguments(place, "--num-labelers", "2")],
            environment=environment,
        ) as run:
            run.until(lambda: "waiting for a place" in run.err, "it says what it waits for")
            run.interrupt()
            assert run.wait(60) == 0, run.err
            (line,) = [line for line in run.err.splitlines() if "labelers are waiting" in line]
            assert "2 labelers are waiting for a place: 0.5 CPUs for each" in line
            assert "1 node of 2 CPUs (no CPU free)" in line
            assert "stop requested" in run.out


def test_a_run_that_waited_goes_on_when_there_is_room(nodes: Nodes, place: Place) -> None:
    cluster = nodes()
    with following(cluster, place) as run:
        ids = run.put(1)
        run.until(lambda: "waiting for a place" in run.driver.err, "it says what it waits for")
        cluster.add_node(num_cpus=1)
        run.until_all()
        run.stop()
    check_frames(Output.read(place.output), ids)
