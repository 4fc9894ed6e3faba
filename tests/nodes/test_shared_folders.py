"""Local folders that the nodes do not share: refused before anything is labelled.

The nodes of these tests are one machine. Where `~` is another folder on a node, as where homes
are not shared, or the working directory of its processes, that stands for a disk of its own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from clusters import Mixed, Nodes, arguments, following
from drivers import Driver
from oracle import Output, check_frames
from places import Place
from tiny import Assets, put_tars


def refusal(cluster_address: str, place: Mixed, home: Path) -> str:
    """Run the command; gives the one line with which it refuses."""
    environment = {"RAY_ADDRESS": cluster_address, "HOME": str(home)}
    with Driver(["pipelines/label_stream.py", *arguments(place)], environment=environment) as run:
        assert run.wait() == 2, run.err
        (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture
def homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Of the driver, and of another node. Ray's tokens are the same everywhere."""
    token = Path("~/.ray/auth_token").expanduser()
    for name in ("driver", "elsewhere"):
        (tmp_path / name).mkdir()
    if token.exists():
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    return tmp_path / "driver", tmp_path / "elsewhere"


def test_an_output_that_the_nodes_do_not_share_is_refused_before_labelling(
    nodes: Nodes, place: Place, assets: Assets, homes: tuple[Path, Path]
) -> None:
    """Labels were scattered over the nodes' disks, with exit code 0."""
    here, elsewhere = homes
    put_tars(place.input, shards=1, frames=4)
    local = Place("~", assets)
    cluster = nodes({"env_vars": {"HOME": str(here)}}, {"env_vars": {"HOME": str(elsewhere)}})
    line = refusal(cluster.address, Mixed(place.input, local.output, assets), here)
    assert f"output {here}/out is not the same folder on " in line
    assert "give the address of an object store" in line
    assert not list(here.rglob("*.parquet"))
    assert not [path for path in elsewhere.rglob("*") if path.is_file()], "nothing is left there"
    assert not list(here.rglob(".mint-stream-probe-*"))


def test_a_folder_that_all_nodes_share_is_labelled_into(
    nodes: Nodes, assets: Assets, tmp_path: Path
) -> None:
    place = Place(str(tmp_path), assets)
    ids = put_tars(place.input, shards=2, frames=8)
    cluster = nodes({}, {})
    environment = {"RAY_ADDRESS": cluster.address}
    with Driver(["pipelines/label_stream.py", *arguments(place)], environment=environment) as run:
        assert run.wait() == 0, run.err
    check_frames(Output.read(place.output), ids)
    assert not list(tmp_path.rglob(".mint-stream-probe-*"))


def test_an_input_that_a_node_does_not_see_is_refused(
    nodes: Nodes, place: Place, assets: Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tars(str(tmp_path / "in"), shards=1, frames=4)
    cluster = nodes({}, {})
    here = Mixed("/proc/self/cwd/in", place.output, assets)
    environment = {"RAY_ADDRESS": cluster.address}
    program = [str(Path("pipelines/label_stream.py").resolve()), *arguments(here)]
    with Driver(program, environment=environment, cwd=tmp_path) as run:
        assert run.wait() == 2, run.err
        (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert "the input is a folder that not every node sees" in line
    assert "/proc/self/cwd/in/000.tar is not there" in line


def test_a_node_that_joins_without_the_folder_ends_the_run_before_it_commits(
    nodes: Nodes,
    assets: Assets,
    place: Place,
    homes: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here, elsewhere = homes
    monkeypatch.setenv("HOME", str(here))  # of the head as well
    cluster = nodes({"env_vars": {"HOME": str(here)}})
    mixed = Mixed(place.input, "~/out", assets)
    with following(cluster, mixed, environment={"HOME": str(here)}) as run:
        run.put(1)
        run.until(lambda: len(list(here.glob("out/labels/*"))) == 2, "the first shard is labelled")
        cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
        cluster.add_node(num_cpus=1, env_vars={"HOME": str(elsewhere)})
        run.put(1)
        assert run.driver.wait() == 1, run.driver.err
        assert "is not the same folder on" in run.driver.err
    assert not list(elsewhere.rglob("*.parquet"))
    assert os.path.isdir(here / "out")
