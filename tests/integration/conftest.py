"""A Ray cluster in this process, a tiny CLIP, and places to read from and write to."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from places import Place
from s3_server import S3Server, use_environment
from tiny import Assets, write_assets


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """A tiny CLIP and a class list."""
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="session")
def cluster(s3_server: S3Server) -> Iterator[None]:
    """Ray for all runs in this process; its workers know the S3 server."""
    with pytest.MonkeyPatch.context() as environment:
        use_environment(environment, s3_server.environment())
        environment.setenv("OMP_NUM_THREADS", "1")
        ray.init(include_dashboard=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture
def local(tmp_path: Path, assets: Assets) -> Place:
    """A folder."""
    return Place(str(tmp_path), assets)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, assets: Assets) -> Place:
    """A folder, then a prefix on a real S3 server."""
    if request.param == "local":
        return Place(str(tmp_path), assets)
    return Place(str(request.getfixturevalue("s3")), assets)


@pytest.fixture(scope="session")
def make_place(tmp_path_factory: pytest.TempPathFactory, assets: Assets) -> Callable[[], Place]:
    """Folders for fixtures that outlive a test."""
    return lambda: Place(str(tmp_path_factory.mktemp(f"place{secrets.token_hex(2)}")), assets)
