"""An input with bad frames on each kind of store, and what an undisturbed run makes of it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import cache

import pytest
from oracle import Output
from s3_server import S3Server
from world import World, make_world


@pytest.fixture(scope="session")
def world_on(
    cluster: None, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[World, Output]]:
    """The input on "local" disk or "s3", with the output of a run in which nothing happened."""

    @cache
    def make(place: str) -> tuple[World, Output]:
        folder = tmp_path_factory.mktemp("world")
        on_s3 = f"s3://{s3_server.bucket}/{secrets.token_hex(6)}"
        world = make_world(folder, shards=8, root=str(folder) if place == "local" else on_s3)
        undisturbed = world.plan(tmp_path_factory.mktemp("undisturbed"))
        world.run(undisturbed)
        return world, Output.read(undisturbed.output)

    return make
