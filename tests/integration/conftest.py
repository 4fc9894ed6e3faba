"""A tiny CLIP, and places to read from and write to."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from places import Place
from tiny import Assets, write_assets


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """A tiny CLIP and a class list."""
    return write_assets(tmp_path_factory.mktemp("assets"))


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
