"""One service with small limits, in this process, for all tests that ask it over HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import serving_world as world
from serving_client import limited_plan
from starlette.testclient import TestClient

from mint_stream.serving.service import Service, ServicePlan


@pytest.fixture(scope="session")
def limited(tmp_path_factory: pytest.TempPathFactory) -> ServicePlan:
    """Its plan."""
    return limited_plan(tmp_path_factory.mktemp("serving"))


@pytest.fixture(scope="session")
def running(limited: ServicePlan) -> Iterator[tuple[TestClient, Service]]:
    with world.serving(limited) as running:
        yield running


@pytest.fixture
def client(running: tuple[TestClient, Service]) -> TestClient:
    return running[0]
