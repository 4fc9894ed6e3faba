"""Joining a Ray cluster, or starting one here; and what can be known to be wrong with that before.

Ray itself tries for minutes to reach a cluster that is not there, and says so in lines of its core.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import sys
import threading

import ray
from ray.exceptions import AuthenticationError

from mint_stream.config import ConfigError
from mint_stream.logs import ray_formats
from mint_stream.pipeline.core_lines import core_lines_kept_out

REACH_S = 15.0
"""How long a cluster has to answer."""
_LONGEST_SOCKET_BYTES = 107
_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""What Ray puts below its folder."""
_CLIENT = "ray://"
"""Addresses of Ray Client, to which Ray Core's own questions cannot be put."""


def start_ray(*, log_json: bool = False) -> None:
    """Join the cluster that the environment names (`ray job submit` does), else start one here.

    log_json: Ray formats the log lines of this process and of its workers as JSON from here on.
    Raises `ConfigError` where there is no such cluster, or none can be started.
    """
    # What ends a run is said in one line at its end; Ray Data's own traces are in its log files.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return
    if not sys.stderr.isatty():
        os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # colours are for terminals
    check_cluster()
    joins = bool(os.environ.get("RAY_ADDRESS"))
    where = {} if joins else {"include_dashboard": False}
    how = ray.LoggingConfig(encoding="JSON") if log_json else None
    try:
        ray.init(logging_level=logging.ERROR, logging_config=how, **where)
    except (OSError, ValueError, RuntimeError, AuthenticationError) as error:
        text = " ".join(str(error).split())
        if joins:
            raise _not_there(text) from error
        raise ConfigError(
            f"Ray cannot be started here ({text}); its folder is {_ray_folder()}, which RAY_TMPDIR "
            "chooses"
        ) from error
    if log_json:
        ray_formats()


def check_cluster() -> None:
    """Say what is wrong with the cluster that the environment names, or with starting one here.

    Takes milliseconds where nothing is, and `REACH_S` at most. Raises `ConfigError`.
    """
    if ray.is_initialized():
        return
    address = os.environ.get("RAY_ADDRESS", "")
    if not address or address == "local":
        _check_folder()
    elif address.startswith(_CLIENT):
        _connect(address.removeprefix(_CLIENT))
    else:
        _ask(_host_and_port(address))


def _check_folder() -> None:
    folder = _ray_folder()
    over = len(os.fsencode(folder + _SOCKET)) - _LONGEST_SOCKET_BYTES
    if over > 0:
        raise ConfigError(
            f"Ray's folder is {folder!r}, {over} bytes too long for the sockets that Ray makes "
            "below it: set RAY_TMPDIR to a shorter one, such as /tmp"
        )


def _ray_folder() -> str:
    return str(ray._common.utils.get_default_system_temp_dir())


def _host_and_port(address: str) -> str:
    """What Ray makes of `address`, `auto` among them."""
    try:
        found = ray._private.services.canonicalize_bootstrap_address(address)
    except (OSError, ValueError) as error:
        raise _not_there(str(error)) from error
    if found is None:
        raise _not_there("no Ray runs on this machine")
    return str(found)


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S / 3).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _not_there(str(error)) from error


def _ask(address: str) -> None:
    """Ask the head at `address` for the cluster's id."""
    _connect(address)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            # The constructor asks. It cannot be told to give up, so that it gets a thread.
            ray._raylet.GcsClient(address=address)
            answers.put(None)
        except Exception as error:
            answers.put(error)

    with core_lines_kept_out():
        threading.Thread(target=ask, name="reach the cluster", daemon=True).start()
        try:
            failure = answers.get(timeout=REACH_S)
        except queue.Empty:
            raise _not_there(f"something answers at {address} that is no head of Ray's") from None
    if isinstance(failure, AuthenticationError):
        raise ConfigError(
            f"the cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']} refuses this run's token: set "
            "RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with the cluster's token"
        ) from failure
    if failure is not None:
        raise _not_there(" ".join(str(failure).split())) from failure


def _not_there(why: str) -> ConfigError:
    return ConfigError(
        f"there is no Ray cluster at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({why}): give the "
        "address of a head (host:6379), or unset RAY_ADDRESS to run on this machine alone"
    )
