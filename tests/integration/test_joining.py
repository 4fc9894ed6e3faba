"""A cluster that is not there, or that cannot be started: one line with the remedy, and soon."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from drivers import label_stream
from places import Place
from s3_server import free_ports
from tiny import put_tars

from mint_stream.config import ConfigError
from mint_stream.pipeline import cluster as joining


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has joined no cluster yet."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return monkeypatch


@pytest.fixture
def deaf() -> Iterator[str]:
    """The address of something that is connected to and says nothing."""
    with socket.create_server(("", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:{free}",
        "no-such-host.invalid:6379",
        "nonsense",
        "127.0.0.1:99999",
        "ray://127.0.0.1:{free}",
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(address: str, outside: pytest.MonkeyPatch) -> None:
    """Ray tries for minutes."""
    address = address.format(free=free_ports(1)[0])
    outside.setenv("RAY_ADDRESS", address)
    started = time.monotonic()
    with pytest.raises(ConfigError, match="unset RAY_ADDRESS") as refusal:
        joining.check_cluster()
    assert time.monotonic() - started < 20
    assert address in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_port_of_something_else_is_no_cluster(deaf: str, outside: pytest.MonkeyPatch) -> None:
    outside.setenv("RAY_ADDRESS", deaf)
    outside.setattr(joining, "REACH_S", 1.0)
    with pytest.raises(ConfigError, match="no head of Ray's"):
        joining.check_cluster()


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_long_for_sockets_is_said_with_the_remedy(
    variable: str, outside: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR"):
        outside.delenv(name, raising=False)
    outside.setenv(variable, str(tmp_path / ("ü" * 40)))
    with pytest.raises(ConfigError, match="set RAY_TMPDIR to a shorter one"):
        joining.check_cluster()
    outside.setenv(variable, "/tmp")
    joining.check_cluster()


def test_the_limit_is_that_of_ray(outside: pytest.MonkeyPatch) -> None:
    """The longest folder that is let through: with Ray's own check of a socket's path."""
    outside.delenv("RAY_ADDRESS", raising=False)
    longest = "/tmp/" + "x" * (joining._LONGEST_SOCKET_BYTES - len(joining._SOCKET) - len("/tmp/"))
    outside.setenv("RAY_TMPDIR", longest)
    joining.check_cluster()
    ray._private.utils.validate_socket_filepath(longest + joining._SOCKET)
    outside.setenv("RAY_TMPDIR", longest + "x")
    with pytest.raises(ConfigError):
        joining.check_cluster()
    with pytest.raises(OSError, match="AF_UNIX"):
        ray._private.utils.validate_socket_filepath(longest + "x" + joining._SOCKET)


def test_a_token_of_another_cluster_is_said_before_anything_is_done(
    cluster: None, local: Place
) -> None:
    put_tars(local.input, shards=1, frames=4)
    arguments = ["--input", local.input, "--output", local.output, "--device", "cpu"]
    arguments += ["--labels", str(local.assets.labels), "--model", str(local.assets.model)]
    environment = {
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
    }
    started = time.monotonic()
    with label_stream(*arguments, environment=environment) as driver:
        assert driver.wait() == 2
        (line,) = driver.err.splitlines()
    assert time.monotonic() - started < 60
    assert "refuses this run's token" in line
    assert "RAY_AUTH_TOKEN_PATH" in line
    assert not Path(local.output).exists()
