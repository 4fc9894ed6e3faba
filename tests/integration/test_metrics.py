"""Metrics as Prometheus finds them, and log lines as a collector reads them, of one running run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from drivers import Driver, label_stream, wait_until
from fault_proxy import FaultProxy
from hypothesis import example, given
from hypothesis import strategies as st
from metrics_scrape import OF_DOMAINS, names, scrape, total, watched
from oracle import check_verified
from places import Place
from s3_server import S3Server
from tiny import Assets, members, put, put_tars, tar

from mint_stream.config import PRESETS
from mint_stream.output.units import CameraDomain, CommittedUnit, UnitFacts
from mint_stream.pipeline import metrics


def exported(driver: Driver) -> dict[str, float]:
    """What the driver's own node exports; nothing before it does."""
    files = (driver.folder / "ray" / "session_latest").glob("metrics_export_port_*")
    ports = [file.read_text().strip() for file in files]
    return scrape(f"127.0.0.1:{ports[0]}") if ports and ports[0] else {}


def test_a_running_pipeline_shows_every_metric_and_logs_json(
    s3: str, s3_server: S3Server, local: Place
) -> None:
    place = Place(s3, local.assets)
    put_tars(place.input, shards=2, frames=6, cameras=["north"])
    put(place.input, {"bad.tar": tar([*members(range(90, 92)), ("z.png", b"nothing")])})
    arguments = ["--input", place.input, "--output", place.output, "--num-labelers", "2"]
    arguments += ["--labels", str(place.assets.labels), "--model", str(place.assets.model)]
    arguments += ["--device", "cpu", "--dtype", "float32", "--unit-size", "4", "--poll", "0.5"]
    arguments += ["--checkpoint-every", "0.5", "--follow", "--log-json", "--preset", "paper"]
    with FaultProxy(s3_server.port) as proxy:
        fault = proxy.inject("slow_down", method="PUT", path="labels/", times=2)
        environment = s3_server.environment(proxy.endpoint)
        environment["RAY_metrics_report_interval_ms"] = "1000"
        with label_stream(*arguments, environment=environment) as driver:
            seen: dict[str, float] = {}

            def all_there() -> bool:
                # In one look: what was set once and long ago has to be in view as well.
                seen.clear()
                seen.update(exported(driver))
                return (
                    watched() - OF_DOMAINS <= names(seen)
                    and total(seen, "ray_mint_frames_total") == 14
                    and total(seen, "ray_mint_bank_checkpoint_seq") == 5
                )

            try:
                driver.until(all_there, "every metric is exported")
            except AssertionError:
                print("missing:", watched() - OF_DOMAINS - names(seen))
                print({name: value for name, value in seen.items() if "ray_mint" in name})
                raise
            driver.interrupt()
            assert driver.wait() == 0, driver.err
            lines = [json.loads(line) for line in driver.err.splitlines()]
            assert driver.out == ""
    assert fault.hit == 2
    check_verified(place.output)
    out = {"output": place.output}
    assert total(seen, "ray_mint_adapted_frames_total", **out) == 14
    assert total(seen, "ray_mint_rejects_total", stage="decode", **out) == 1
    assert total(seen, "ray_mint_store_retries_total", operation="create", **out) == 2
    assert total(seen, "ray_mint_commit_seconds_count", **out) == 5
    assert total(seen, "ray_mint_run_active", follow="true", **out) == 1
    assert total(seen, "ray_mint_bank_seq", **out) == 5
    assert total(seen, "ray_mint_bank_checkpoint_seq", **out) == 5
    assert total(seen, "ray_mint_stage_seconds_total", stage="encoder", **out) > 0
    mine = {name for name in names(seen) if name.startswith("ray_mint_")}
    assert {name.removesuffix("_count").removesuffix("_sum") for name in mine} - watched() == {
        "ray_mint_commit_seconds"
    }, "a metric that nobody looks at"
    check_lines(lines)


def check_lines(lines: list[dict[str, object]]) -> None:
    (run,) = {line["run"] for line in lines if "run" in line}
    labelled = [line for line in lines if line["message"] == "labelled"]
    assert len(labelled) == 5
    assert {line["run"] for line in labelled} == {run}
    assert len({line["unit"] for line in labelled}) == 5
    assert [line.get("camera") for line in labelled].count("north") == 4
    assert driver_line(lines)["process"] not in {line["process"] for line in labelled}
    retried = [line for line in lines if "SlowDown" in str(line["message"])]
    assert {line["levelname"] for line in retried} == {"WARNING"}
    assert all(line["unit"] and line["run"] == run for line in retried)
    messages = [line["message"] for line in lines]
    assert messages[0] == "run started"
    assert messages.count("run ended") == 1, "once, though Ray brought a handler of its own"
    ended = next(line for line in lines if line["message"] == "run ended")
    assert (ended["frames"], ended["stopped"]) == (14, "stop requested")
    assert any(str(message).startswith("Stopping") for message in messages)


def driver_line(lines: list[dict[str, object]]) -> dict[str, object]:
    return next(line for line in lines if line["message"] == "run started")


def test_a_run_that_cannot_start_says_so_as_json(tmp_path: Path) -> None:
    arguments = ["--input", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]
    arguments += ["--model", "bundled"]
    with label_stream(*arguments, "--labels", str(tmp_path / "no.txt"), "--log-json") as driver:
        assert driver.wait() == 2
        (line,) = driver.err.splitlines()
    assert json.loads(line)["levelname"] == "ERROR"
    assert "no.txt" in json.loads(line)["message"]


def test_a_gauge_is_told_again_until_it_may_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    class Noted:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def set(self, value: float, tags: object) -> None:
            told.append(value)

    monkeypatch.setattr(metrics, "Gauge", Noted)
    monkeypatch.setattr(metrics, "_AGAIN_S", 0.001)
    gauge = metrics.KeptGauge("of_a_test", "")
    gauge.set(7, {"output": "o"})
    wait_until(lambda: told[1:] == [7] * len(told[1:]) and len(told) > 2, "it is told again")
    gauge.set(0, {"output": "o"})
    gauge.rest()
    assert told[-1] == 0


UNIT = CommittedUnit(
    unit="u",
    won=False,
    facts=UnitFacts(labelled=4, stage_seconds={"encoder": 0.5, "commit": 0.25, "views": 0.0}),
)
WON = replace(UNIT, won=True)


def of_camera(name: str, drift: float) -> CommittedUnit:
    """A committed unit of one camera."""
    domain = CameraDomain(camera=name, domain=1, drift=drift, guard="adapting", frames=4)
    return replace(WON, facts=replace(WON.facts, cameras=(domain,)))


Told = list[tuple[str, float, dict[str, str]]]
"""Name, number and tags of what Ray was told."""


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told: Told = []

    class Noted:
        def __init__(self, name: str, *_: object, **__: object) -> None:
            self.name = name

        def inc(self, by: float, tags: dict[str, str]) -> None:
            told.append((self.name, by, {k: v for k, v in tags.items() if k != "output"}))

        set = observe = inc

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, Noted)
    return told


def test_counters_of_a_unit_that_lost_the_race_are_left_out(told: Told) -> None:
    """Its seconds were spent; its frames are another attempt's."""
    run = metrics.RunMetrics("out", follow=False)
    run.add(UNIT)
    assert [(name, by) for name, by, _ in told] == [
        ("mint_stage_seconds", 0.5),
        ("mint_stage_seconds", 0.25),
        ("mint_commit_seconds", 0.25),
    ]
    told.clear()
    run.add(WON)
    numbers = [(name, by) for name, by, _ in told]
    assert ("mint_frames", 4) in numbers
    assert ("mint_adapted_frames", 0) not in numbers, "Ray refuses to add nothing"


def test_every_camera_has_its_drift_up_to_a_bound(told: Told) -> None:
    run = metrics.RunMetrics("out", follow=False)
    for number in range(metrics.MOST_CAMERAS + 20):
        run.add(of_camera(f"c{number}", number / 8))
    run.end()
    drift = [(by, tags) for name, by, tags in told if name == "mint_drift_score"]
    assert (1.0, {"camera": "c8"}) in drift
    assert len({tags["camera"] for _, tags in drift}) == metrics.MOST_CAMERAS
    guard = [(by, tags) for name, by, tags in told if name == "mint_guard_frames"]
    assert guard[8] == (4, {"state": "adapting", "camera": "c8"})
    assert guard[-20:] == [(4, {"state": "adapting", "camera": "others"})] * 20


@given(st.text(st.characters(), max_size=12))
@example("Süd")
@example("50 %")
@example("Lager\n2\x00")
@example("\ud800 half of a pair")
def test_any_text_becomes_a_tag_that_ray_takes_and_back(text: str) -> None:
    """A camera called "Süd" ended the run: Ray's tags are ASCII."""
    tag = metrics.tag_text(text)
    assert tag.isascii()
    assert tag.isprintable()
    assert unquote(tag, errors="surrogatepass") == text


def test_a_tag_that_ray_takes_as_it_is_stays_readable() -> None:
    assert metrics.tag_text("s3://fleet/out (v2)/cam_7") == "s3://fleet/out (v2)/cam_7"
    assert metrics.tag_text("Süd") == "S%C3%BCd"


def test_names_beyond_ascii_reach_ray_escaped(told: Told) -> None:
    run = metrics.RunMetrics("münchen", follow=False)
    run.add(of_camera("Süd", 0.5))
    run.end()
    tags = [tags for name, _, tags in told if name in ("mint_drift_score", "mint_guard_frames")]
    assert {tag["camera"] for tag in tags} == {"S%C3%BCd"}


@pytest.mark.parametrize("fails", ["made", "told"])
def test_no_metric_ends_a_run(
    fails: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def __init__(self, name: str, *_: object, **__: object) -> None:
            if fails == "made":
                raise OSError(f"{name} cannot be made")

        def inc(self, by: float, tags: dict[str, str]) -> None:
            raise UnicodeEncodeError("ascii", "", 0, 1, "of a test")

        set = observe = inc

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, Broken)
    monkeypatch.setattr(metrics, "_failed", set())
    for _ in range(3):
        run = metrics.RunMetrics("out", follow=False)
        run.start()
        run.add(WON)
        run.add(None)  # type: ignore[arg-type]
        run.end()
        metrics.CheckpointMetrics("out").saved(7)
        metrics.counter("store_retries", "", "operation").inc(1, {"output": "o", "operation": "r"})
    said = [record.getMessage() for record in caplog.records]
    assert any("mint_frames" in line or "metric frames " in line for line in said)
    assert len(said) == len(set(said)), "each once"


def test_a_camera_called_sued_is_labelled_by_the_default_preset(
    cluster: None, tmp_path: Path, assets: Assets
) -> None:
    place = Place(str(tmp_path / "Aufnahmen März 50%"), assets)
    ids = put_tars(place.input, shards=1, frames=8, cameras=["Süd", "北"])
    assert place.run(method=PRESETS["realtime"]).frames == len(ids)
