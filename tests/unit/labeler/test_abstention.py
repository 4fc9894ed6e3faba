"""Rows without a label: what is fitted, when it holds, and everything that reads such an output."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_run import run_plainly
from tiny import CLASSES, Assets, put_tars, write_assets

from mint_stream.cli.outputs import main
from mint_stream.config import PRESETS, ConfigError, RunConfig
from mint_stream.evaluation.calibrate import Known, cross_tested, fit_temperature, threshold
from mint_stream.evaluation.metrics import calibration_error, reliability
from mint_stream.input.truth import read_truth
from mint_stream.labeler.abstention import Abstention, Calibration, temper
from mint_stream.labeler.calibration_file import read_calibration, write_calibration
from mint_stream.output.accuracy import accuracy_by, with_truth
from mint_stream.output.read import read_labels
from mint_stream.pipeline.preflight import prepare
from mint_stream.reports.report import render_report, view_run
from mint_stream.upkeep.compaction import compact
from mint_stream.upkeep.compare import compare
from mint_stream.upkeep.contents import describe
from mint_stream.upkeep.verify.verify import verify

CALIBRATION = Calibration(
    temperature=2.0,
    thresholds={"car": 0.75, "bus": None},
    otherwise=0.5,
    model_hash="m",
    classes_hash="c",
    preset="p",
    top_k=3,
)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@given(st.integers(0, 999), st.floats(0.1, 10))
def test_with_all_scores_there_it_is_a_softmax_at_that_temperature(seed: int, t: float) -> None:
    logits = np.random.default_rng(seed).normal(0, 3, (4, 6))
    np.testing.assert_allclose(temper(softmax(logits), 6, t), softmax(logits / t), atol=1e-12)


@given(st.integers(0, 999), st.floats(0.1, 10), st.integers(1, 5))
def test_what_is_not_there_counts_as_spread_evenly(seed: int, t: float, k: int) -> None:
    p = np.sort(softmax(np.random.default_rng(seed).normal(0, 3, (4, 6))))[:, ::-1]
    spread = np.hstack([p[:, :k], np.repeat(p[:, k:].mean(1, keepdims=True), 6 - k, axis=1)])
    np.testing.assert_allclose(temper(p[:, :k], 6, t), temper(spread, 6, t)[:, :k], atol=1e-12)


def answers(rule: Abstention, *given: tuple[str, float]) -> list[bool]:
    labels = sorted({label for label, _ in given})
    indices = np.array([labels.index(label) for label, _ in given])
    stands: list[bool] = rule.answers(labels, indices, np.array([c for _, c in given])).tolist()
    return stands


def test_a_label_stands_from_the_least_of_its_class_on() -> None:
    rule = Abstention(calibration=CALIBRATION, classes=4)
    said = answers(rule, ("car", 0.75), ("car", 0.74), ("dog", 0.5))
    assert said == [True, False, True]
    assert answers(rule, ("bus", 1.0)) == [False], "never sure enough"
    assert (
        rule.describe() == "below 0.50 to 0.75, by class; 1 of the classes always; temperature 2.00"
    )
    assert rule.calibrated(np.array([[0.64, 0.16, 0.16, 0.04]])) == pytest.approx(8 / 18)
    alone = Abstention(min_confidence=0.6, classes=4)
    assert answers(alone, ("bus", 0.6), ("bus", 0.59)) == [True, False]
    assert alone.calibrated(np.array([[0.7, 0.3]])) is None
    both = Abstention(calibration=CALIBRATION, min_confidence=0.6, classes=4)
    assert answers(both, ("bus", 0.6)) == [True], "instead of the classes' own"


def test_a_file_keeps_it_and_its_hash_is_of_what_changes_answers(tmp_path: Path) -> None:
    file = str(tmp_path / "c.json")
    write_calibration(CALIBRATION, {"frames": 7}, file)
    calibration, digest = read_calibration(file)
    assert calibration == CALIBRATION
    write_calibration(CALIBRATION, {"frames": 8}, file)
    assert read_calibration(file)[1] == digest
    write_calibration(replace(CALIBRATION, otherwise=0.51), {}, file)
    assert read_calibration(file)[1] != digest


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 2}, "no calibration of format 1"),
        ({"temperature": 0}, "temperature is 0"),
        ({"thresholds": {"car": 1.5}}, "'car' is 1.5"),
        ({"thresholds": 7}, "lacks a sound"),
    ],
)
def test_a_broken_file_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    file = tmp_path / "c.json"
    write_calibration(CALIBRATION, {}, str(file))
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ConfigError, match=said):
        read_calibration(str(file))
    file.write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        read_calibration(str(file))
    with pytest.raises(ConfigError, match="no such file"):
        read_calibration(str(tmp_path / "none.json"))


def overconfident(frames: int, temperature: float, kept: int = 5) -> Known:
    """Answers whose logits are too large by a factor, of eight classes."""
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 2.5, (frames, 8))
    truth = [rng.choice(8, p=p) for p in softmax(logits)]
    scores = softmax(logits * temperature)
    order = np.argsort(-scores, axis=1)[:, :kept]
    place = [row.tolist().index(t) if t in row else -1 for t, row in zip(truth, order, strict=True)]
    return Known(
        labels_N=np.array([f"class {row[0]}" for row in order], dtype=object),
        scores_NK=np.take_along_axis(scores, order, 1),
        place_N=np.array(place),
        classes=8,
    )


@pytest.mark.parametrize("kept", [3, 8])
@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature: float, kept: int) -> None:
    fitted = fit_temperature(overconfident(4000, temperature, kept))
    assert fitted == pytest.approx(temperature, rel=0.1 if kept == 8 else 0.2)


def test_what_is_promised_holds_on_frames_that_it_was_not_fitted_on() -> None:
    known = overconfident(6000, 2.5)
    tested = cross_tested(known, 0.8)
    assert tested.ece_before > 0.1
    assert tested.ece_after < 0.03
    assert tested.precision >= 0.78
    assert 0.2 < tested.coverage < 0.9
    assert tested.accuracy == known.right_N.mean() < 0.75
    assert tested.ece_before == calibration_error(reliability(known.scores_NK[:, 0], known.right_N))


@given(st.integers(0, 999), st.floats(0.3, 0.95))
def test_no_lower_cut_would_be_right_as_often(seed: int, precision: float) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 20, 60) / 20
    right = rng.random(60) < confidence
    least = threshold(confidence, right, precision)

    def enough(cut: float) -> bool:
        taken = right[confidence >= cut]
        needed = precision * len(taken) + math.sqrt(len(taken) * precision * (1 - precision))
        return bool(taken.sum() >= needed)

    cuts = sorted(set(confidence.tolist()))
    assert least == next((cut for cut in cuts if enough(cut)), None)


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def stream(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("in"))
    put_tars(root, shards=2, frames=60, cameras=("north", "south"))
    return root


def labelled(assets: Assets, stream: str, output: Path, **changes: object) -> RunConfig:
    settings = {"method": PRESETS["realtime"], "unit_size": 20, **changes}
    config = assets.config(stream, str(output), **settings)
    run_plainly(config)
    return config


def test_every_reader_takes_rows_without_a_label(
    assets: Assets, stream: str, tmp_path: Path
) -> None:
    labelled(assets, stream, tmp_path / "all")
    every = read_labels(str(tmp_path / "all"))
    middle = float(np.median(every["confidence"].to_numpy()))
    config = labelled(assets, stream, tmp_path / "some", min_confidence=middle)
    output = str(tmp_path / "some")
    rows = read_labels(output).to_pylist()
    for one, other in zip(rows, every.to_pylist(), strict=True):
        assert one["topk_labels"] == other["topk_labels"]
        assert one["label"] == (other["label"] if one["confidence"] >= middle else None)
        assert one["calibrated"] is None
    missing = sum(row["label"] is None for row in rows)
    assert 0 < missing < len(rows)
    assert verify(output, input_url=stream).findings == ()
    contents = describe(output)
    assert contents.unlabelled == missing
    assert main(["inspect", output]) == 0
    diff = compare(str(tmp_path / "all"), output)
    assert diff.labels == missing
    assert {b for _, b, _ in diff.by_label} == {None}
    assert [name for name, _, _ in diff.settings] == ["abstention"]
    assert main(["diff", str(tmp_path / "all"), output]) == 1
    for kind in ("csv", "coco", "label-studio"):
        to = str(tmp_path / f"review.{kind}")
        where = ["--format", kind, "--to", to, "--image-url", "http://images/{member}"]
        assert main(["export", output, *where, "--limit", "200"]) == 0
    tasks = json.loads((tmp_path / "review.label-studio").read_text())
    assert all(task["data"]["predicted"] for task in tasks), "what the label would be"
    lines = (tmp_path / "review.csv").read_text().splitlines()[1:]
    assert sum(",," in line for line in lines) >= missing
    truth = read_truth(stream)
    page = render_report([view_run(output)], truth=truth)
    assert f"{missing} ({100 * missing / len(rows):.1f} %)" in page
    assert "no label" in render_report([view_run(output)])
    for row in accuracy_by(with_truth(read_labels(output), truth)):
        assert row.frames <= len(rows) - missing
    assert compact(output) is not None
    assert Counter(r["label"] for r in read_labels(output).to_pylist())[None] == missing
    with pytest.raises(ConfigError, match="abstention"):
        prepare(replace(config, min_confidence=middle / 2))
    with pytest.raises(ConfigError, match="abstention"):
        prepare(replace(config, min_confidence=None))


def test_a_row_without_a_label_needs_a_setting_that_says_so(
    assets: Assets, stream: str, tmp_path: Path
) -> None:
    labelled(assets, stream, tmp_path / "out", min_confidence=1.0, limit=16)
    settings = tmp_path / "out" / "run.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "abstention": None}))
    found = verify(str(tmp_path / "out")).findings
    assert found
    assert all("no class of run.json: None" in finding.what for finding in found)


def test_a_calibration_is_fitted_by_the_command_and_does_what_it_says(
    assets: Assets, stream: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled(assets, stream, tmp_path / "known")
    known = read_labels(str(tmp_path / "known"))
    # A truth by which the surer answers are right more often.
    rng = np.random.default_rng(0)
    sure = known["confidence"].to_numpy().argsort().argsort() / known.num_rows
    right = rng.random(known.num_rows) < 0.3 + 0.7 * sure
    best = known["topk_labels"].to_pylist()
    names = [row[0] if yes else row[1] for row, yes in zip(best, right, strict=True)]
    truth = str(tmp_path / "truth.parquet")
    pq.write_table(known.select(["frame"]).append_column("label", [names]), truth)
    file = str(tmp_path / "calibration.json")
    where = [str(tmp_path / "known"), "--truth", truth, "--to", file]
    assert main(["calibrate", *where, "--precision", "0.7"]) == 0
    said = capsys.readouterr().out
    assert "120 with a truth" in said
    calibration, digest = read_calibration(file)
    config = labelled(assets, stream, tmp_path / "out", calibration=file)
    rows = read_labels(str(tmp_path / "out")).to_pylist()
    rule = Abstention(calibration=calibration, classes=len(CLASSES))
    for row in rows:
        calibrated = rule.calibrated(np.array([row["topk_scores"]]))
        assert calibrated is not None
        assert row["calibrated"] == pytest.approx(calibrated[0])
        stands = answers(rule, (row["topk_labels"][0], float(calibrated[0])))
        assert [row["label"] is not None] == stands
    assert {row["label"] is None for row in rows} == {True, False}
    settings = json.loads((tmp_path / "out" / "run.json").read_text())
    assert settings["abstention"] == {"calibration": digest, "min_confidence": None}
    write_calibration(replace(calibration, otherwise=0.9), {}, file)
    with pytest.raises(ConfigError, match=r"abstention\.calibration was"):
        prepare(config)
    with pytest.raises(ConfigError, match="another preset"):
        prepare(replace(config, method=replace(config.method, name="other")))
    with pytest.raises(ConfigError, match="another top-k"):
        prepare(replace(config, top_k=2))
    assert main(["calibrate", *where, "--precision", "1.5"]) == 2
    assert main(["calibrate", where[0], "--to", file]) == 2
    few = known.slice(0, 99).select(["frame"]).append_column("label", [names[:99]])
    pq.write_table(few, truth)
    assert main(["calibrate", *where]) == 2
    assert "99 frames" in capsys.readouterr().err
