"""Who can reach the ports of a service that nobody thinks of: those of its replicas.

Serve's replicas listen on every interface, wherever the proxy listens, and unpickle what comes:
whoever reaches such a port runs code. Only Ray's own token closes it (docs/security.md).
"""

from __future__ import annotations

import ipaddress
import logging
import os

import ray
from ray.serve.context import _get_global_client

from mint_stream.config import ConfigError

log = logging.getLogger("ray.serve.mint_stream")

_REMEDY = (
    "start Ray with its own token (export RAY_AUTH_MODE=token for every node, driver and job; "
    "docs/cluster.md makes one)"
)


def require_closed(host: str | None, ray_auth_mode: str) -> None:
    """Refuse a service that others are to reach while Ray asks nobody for a token.

    host: on which Serve's proxy listens; None where none does, or none is known. Raises
    `ConfigError`; on a loopback host it is a warning in the log.
    """
    if ray_auth_mode.lower() == "token":
        return
    if host is None or _is_loopback(host):
        log.warning(
            "Ray asks for no token: the replicas' ports are open on every interface of this "
            "machine, and whoever reaches them runs code: %s, or close them by a firewall",
            _REMEDY,
        )
        return
    raise ConfigError(
        f"the service is to listen on {host} and RAY_AUTH_MODE is {ray_auth_mode!r}: its "
        "replicas have ports that run what anybody sends there, whatever token the service asks "
        f"for; {_REMEDY}, or let Serve listen on 127.0.0.1"
    )


def check_exposure() -> None:
    """`require_closed` for the Serve that runs here, if one does. Raises `ConfigError`."""
    if not ray.is_initialized():
        return
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is not None:
        require_closed(client.http_config.host, os.environ.get("RAY_AUTH_MODE", ""))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
