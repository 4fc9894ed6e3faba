"""Debian's Prometheus beside a head of the tests, with the files of infra/."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

from drivers import wait_until
from s3_server import free_ports

INFRA = Path(__file__).resolve().parents[2] / "infra"


class PrometheusServer:
    """`infra/prometheus` as it is, but for where Ray's file lies and for how long all takes.

    Args:
        folder: for its files and its data.
        ray: the head's `--temp-dir`.
    """

    def __init__(self, folder: Path, ray: Path) -> None:
        self._folder = folder
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        folder.mkdir()
        scrape = (INFRA / "prometheus" / "prometheus.yml").read_text()
        assert "/tmp/ray/" in scrape
        scrape = scrape.replace("/tmp/ray/", f"{ray}/").replace("15s", "1s")
        (folder / "prometheus.yml").write_text(scrape)
        alerts = (INFRA / "prometheus" / "alerts.yml").read_text()
        (folder / "alerts.yml").write_text(re.sub(r"for: \d+m", "for: 1s", alerts))

    def __enter__(self) -> PrometheusServer:
        self._started_s = time.time()
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={self._folder}/prometheus.yml",
                    f"--storage.tsdb.path={self._folder}/data",
                    f"--web.listen-address={self._address}",
                ],
                stdout=log,
                stderr=log,
            )
        try:
            wait_until(self._ready, "Prometheus is ready")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def shown(self, expression: str) -> list[dict[str, Any]]:
        """Series with a number at some time since it was started, as a dashboard draws them."""
        asked = {"query": expression, "start": self._started_s, "end": time.time(), "step": 1}
        url = f"http://{self._address}/api/v1/query_range?{urllib.parse.urlencode(asked)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            series = json.loads(answer.read())["data"]["result"]
        return [one for one in series if any(value != "NaN" for _, value in one["values"])]

    def fired(self) -> set[str]:
        """Names of the alerts that fired since it was started."""
        return {one["metric"]["alertname"] for one in self.shown('ALERTS{alertstate="firing"}')}

    def _ready(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            with urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=5):
                return True
        except (urllib.error.URLError, ConnectionError):
            return False


def panel_queries() -> list[tuple[str, str]]:
    """Each panel of the dashboard with its queries, for a window of a minute and all outputs."""
    dashboard = json.loads((INFRA / "grafana" / "mint_stream.json").read_text())
    return [
        (
            panel["title"],
            target["expr"].replace("$__rate_interval", "1m").replace("$output", ".*"),
        )
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]
