"""An input with bad frames in it, what an undisturbed run makes of it, and runs with kills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from kills import Kill, Plan
from oracle import Output
from world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), shards=3)


@pytest.fixture(scope="session")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Output:
    """What a run in which nothing happens makes of the input."""
    folder = tmp_path_factory.mktemp("undisturbed")
    world.run(Plan(folder, str(folder / "out"), []))
    return Output.read(str(folder / "out"))


@pytest.fixture
def planned(tmp_path: Path) -> Callable[[Sequence[Kill]], Plan]:
    return lambda kills: Plan(tmp_path, str(tmp_path / "out"), kills)
