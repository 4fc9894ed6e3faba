"""Stores for the tests: a local folder, memory, and a real S3 server that the session starts."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from hypothesis import HealthCheck, settings
from s3_server import S3Server, serve, use_environment

# A busy machine is not a failure.
settings.register_profile("mint", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mint")


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server for the whole session, started when the first test needs it."""
    with serve(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(s3_server: S3Server) -> Iterator[None]:
    """Ray for all runs in this process; its workers know the S3 server and the tests' modules."""
    own = [str(Path(__file__).parent / folder) for folder in ("support", "faults")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join([*own, os.environ.get("PYTHONPATH", ".")]))
        use_environment(environment, s3_server.environment())
        environment.setenv("OMP_NUM_THREADS", "1")
        front = "mint_stream.serving.http.front:middlewares"
        environment.setenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", front)
        ray.init(include_dashboard=False, logging_level="ERROR")
        yield
        ray.shutdown()


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty prefix on the S3 server; the environment reaches it."""
    use_environment(monkeypatch, s3_server.environment())
    return f"s3://{s3_server.bucket}/{secrets.token_hex(6)}"


@pytest.fixture(params=["local", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty root, on each kind of store in turn."""
    if request.param == "local":
        return str(tmp_path / "root")
    if request.param == "memory":
        return f"memory://{secrets.token_hex(6)}/root"
    return str(request.getfixturevalue("s3"))
