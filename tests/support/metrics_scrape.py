"""What a node's metrics export port tells, as Prometheus would read it."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OF_DOMAINS = {"ray_mint_drift_score", "ray_mint_guard_frames_total"}
"""Only the realtime preset tells them."""


def scrape(address: str) -> dict[str, float]:
    """Samples by `name{labels}`, of the node at `host:port`; none while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return {}
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def names(samples: dict[str, float]) -> set[str]:
    """Of the metrics among `samples`."""
    return {sample.partition("{")[0] for sample in samples}


def total(samples: dict[str, float], name: str, **labels: str) -> float:
    """The sum over the samples of the metric `name` that carry `labels`."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for sample, value in samples.items()
        if sample.partition("{")[0] == name and all(label in sample for label in wanted)
    )


def watched() -> set[str]:
    """The metrics that the dashboard and the alerts use."""
    queries = [
        target["expr"]
        for panel in json.loads((ROOT / "infra/grafana/mint_stream.json").read_text())["panels"]
        for target in panel["targets"]
    ]
    text = "\n".join(queries) + (ROOT / "infra/prometheus/alerts.yml").read_text()
    return set(re.findall(r"\bray_\w+", text))
