"""Scrape configuration, alerts and dashboard: read by Prometheus itself, and the alerts fire."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import encoder, plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "infra" / "prometheus"
ALERTS = PROMETHEUS / "alerts.yml"
DASHBOARD = ROOT / "infra" / "grafana" / "mint_stream.json"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)"
)


def promtool(*arguments: str | Path) -> str:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text())["panels"])


@needs_promtool
def test_the_scrape_configuration_and_the_alerts_are_sound() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert f"{len(rules())} rules found" in promtool("check", "rules", ALERTS)


@needs_promtool
def test_every_query_of_the_dashboard_is_one(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert len(queries) > len(panels()) > 5
    for query in queries:
        assert '{output=~"$output"}' in query, "a panel ignores the dashboard's variable"
    written = [query.replace("$__rate_interval", "1m") for query in queries]
    records = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(written)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": records}]}))
    promtool("check", "rules", file)


def test_grafana_knows_every_field_of_the_dashboard() -> None:
    """Through the types that Grafana generates of its own schemas, which drop what they lack."""
    plugins.register_default_plugins()
    text = DASHBOARD.read_text()

    def through_grafana(dashboard: object) -> object:
        model = Dashboard.from_json(dashboard)
        return json.loads(json.dumps(model, cls=encoder.JSONEncoder))

    assert lost(json.loads(text), through_grafana(json.loads(text))) == []
    misspelt = json.loads(text.replace('"legendFormat"', '"legend_format"', 1))
    assert lost(misspelt, through_grafana(misspelt)) == [".panels.0.targets.0.legend_format"]


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """Where `after` lacks something that `before` has, or has something else."""
    if isinstance(before, dict | list) and isinstance(after, type(before)):
        parts = before.items() if isinstance(before, dict) else enumerate(before)
        there = after if isinstance(after, dict) else dict(enumerate(after))
        return [p for key, part in parts for p in lost(part, there.get(key), f"{path}.{key}")]
    return [] if before == after else [path]


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    shown = ",".join(f'{key}="{value}"' for key, value in {"output": "o", **labels}.items())
    return {"series": f"ray_mint_{name}{{{shown}}}", "values": values}


WELL = [
    series("run_active", "1x60", follow="false"),
    series("frames_total", "0+600x60"),
    series("adapted_frames_total", "0+580x60"),
    series("rejects_total", "0+6x60", stage="decode"),
    series("bank_seq", "1+37x60"),
    series("bank_checkpoint_seq", "0+37x60"),
    series("commit_seconds_bucket", "0+40x60", le="0.3"),
    series("commit_seconds_bucket", "0+40x60", le="+Inf"),
    series("store_retries_total", "0+1x60", operation="create"),
    series("guard_frames_total", "0+570x60", camera="c", state="adapting"),
    series("guard_frames_total", "0+30x60", camera="c", state="narrow"),
    series("drift_score", "0.2x60", camera="c"),
]
"""An hour, a sample a minute, of a run that is well."""

ILL = {
    "MintStalled": [
        series("frames_total", "900x60"),
        series("rejects_total", "9x60", stage="decode"),
    ],
    "MintManyRejects": [series("rejects_total", "0+100x60", stage="decode")],
    "MintAdaptedShareLow": [series("adapted_frames_total", "0+200x60")],
    "MintCheckpointsStuck": [series("bank_checkpoint_seq", "1x60")],
    "MintCommitsSlow": [
        series("commit_seconds_bucket", "0+10x60", le="0.3"),
        series("commit_seconds_bucket", "0+10x60", le="30"),
        series("commit_seconds_bucket", "0+40x60", le="100"),
        series("commit_seconds_bucket", "0+40x60", le="+Inf"),
    ],
    "MintStoreRetries": [series("store_retries_total", "0+10x60", operation="create")],
    "MintCameraRefused": [
        series("guard_frames_total", "0+10x60", camera="c", state="adapting"),
        series("guard_frames_total", "0+590x60", camera="c", state="narrow"),
    ],
    "MintCameraDrifted": [series("drift_score", "0.2x25 1.6x35", camera="c")],
}
"""What is different where one thing is wrong."""


def hour(changes: list[dict[str, str]]) -> list[dict[str, str]]:
    other = {item["series"]: item for item in changes}
    return [*other.values(), *(item for item in WELL if item["series"] not in other)]


def test_each_alert_has_its_case_and_its_paragraph() -> None:
    names = {rule["alert"] for rule in rules()}
    assert names == set(ILL)
    manual = (ROOT / "docs" / "operations.md").read_text()
    for name in names:
        assert f"**{name}**" in manual, f"{name} is not explained"


@needs_promtool
def test_each_alert_fires_for_its_own_trouble_and_for_nothing_else(tmp_path: Path) -> None:
    def of(rule: dict[str, Any]) -> dict[str, str]:
        camera = {"camera": "c"} if "camera" in rule["expr"] else {}
        return {"output": "o", **camera}

    def firing(wrong: str | None) -> list[dict[str, Any]]:
        return [
            {
                "eval_time": "50m",
                "alertname": rule["alert"],
                "exp_alerts": [{"exp_labels": {**rule["labels"], **of(rule)}}]
                if rule["alert"] == wrong
                else [],
            }
            for rule in rules()
        ]

    # The text of a summary holds values: labels alone are compared.
    bare = [{k: v for k, v in rule.items() if k != "annotations"} for rule in rules()]
    (tmp_path / "alerts.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "mint_stream", "rules": bare}]})
    )
    cases = [(None, WELL), *((wrong, hour(changes)) for wrong, changes in ILL.items())]
    # An input that rests: nothing to label for a run that follows it.
    resting = [series("run_active", "1x60", follow="true"), *ILL["MintStalled"]]
    cases.append((None, resting))
    tests = [
        {"interval": "1m", "input_series": samples, "alert_rule_test": firing(wrong)}
        for wrong, samples in cases
    ]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": tests}))
    promtool("test", "rules", file)
