"""A service that others reach asks for Ray's own token: its replicas' ports run what they get."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import ray

from mint_stream.config import ConfigError
from mint_stream.serving import exposure
from mint_stream.serving.application import build_app
from mint_stream.serving.exposure import require_closed


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.7", "10.0.0.1", "cameras.example.com", ""]
)
@pytest.mark.parametrize("mode", ["", "disabled", "tokens"])
def test_a_service_for_others_is_refused_without_ray_s_token(host: str, mode: str) -> None:
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE.*export RAY_AUTH_MODE=token") as raised:
        require_closed(host, mode)
    assert "\n" not in str(raised.value)
    assert f"listen on {host} " in str(raised.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "127.0.0.1", "localhost", None])
@pytest.mark.parametrize("mode", ["token", "TOKEN"])
def test_with_ray_s_token_it_may_listen_anywhere(
    host: str | None, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    require_closed(host, mode)
    assert caplog.records == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", None])
def test_a_local_service_is_warned(host: str | None, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("ray.serve").propagate = True
    with caplog.at_level(logging.WARNING, logger="ray.serve.mint_stream"):
        require_closed(host, "")
    assert "whoever reaches them runs code" in caplog.text


def test_build_app_asks_the_serve_that_runs_where_it_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = SimpleNamespace(http_config=SimpleNamespace(host="0.0.0.0"))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(exposure, "_get_global_client", lambda **_: client)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0"):
        build_app({"model": "bundled"})
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    build_app({"model": "bundled"})
