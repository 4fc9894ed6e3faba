"""Presets compared on a stream: the pipeline's own answers, resumed, scored and reported."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import Output, check_frames, check_same
from places import Place
from tiny import CLASSES, METHOD, png, put, put_tars, tar

from mint_stream.cli.evaluate import main
from mint_stream.evaluation.costs import read_costs
from mint_stream.evaluation.run import run_preset

CAMERAS = ("north", "south")


@pytest.mark.usefixtures("cluster")
def test_the_answers_are_the_pipeline_s_also_after_a_cut(local: Place) -> None:
    put_tars(local.input, shards=2, frames=14, cameras=CAMERAS)
    local.run()
    pipeline = Output.read(local.output)
    config = local.config(output=f"{local.root}/whole")
    run_preset(config)
    check_same(Output.read(config.output), pipeline)
    # Cut off in the middle of a unit, and gone on with.
    output, told = f"{local.root}/cut", list[int]()
    run_preset(local.config(output=output, limit=6))
    run_preset(local.config(output=output, limit=22), told.append)
    assert (told[0], sum(told)) == (6, 22)
    run_preset(local.config(output=output), told.append)
    again = list[int]()
    run_preset(local.config(output=output), again.append)
    assert again == [28]
    costs = read_costs(output)
    each = 2 * METHOD.views + 1 + 2 * METHOD.steps * METHOD.confident_views
    assert (costs.frames, costs.passes_a_frame) == (28, each)
    assert costs.ms_a_frame > 0
    with (Path(output) / "costs.jsonl").open("a") as file:
        file.write('{"unit": "cut o')
    assert read_costs(output) == costs
    check_frames(
        Output.read(output), [f for t in pipeline.labels.values() for f in t["frame"].to_pylist()]
    )


def test_every_third_unit_is_labelled_and_later_the_others(local: Place) -> None:
    ids = put_tars(local.input, shards=2, frames=14)
    config = local.config()
    run_preset(config, every=3)
    wanted = [n for n in ids if int(n[-10:-4]) % 14 // 4 in (0, 3)]
    assert Counter(Output.read(config.output).frames) == Counter(wanted)
    told = list[int]()
    run_preset(config, told.append)
    assert sum(told) == 28
    check_frames(Output.read(config.output), ids)


def put_known(root: str) -> None:
    """20 frames of two segments and cameras, of three classes and of none."""
    contents = []
    for number in range(20):
        truth = (*CLASSES[:3], "kangaroo")[number % 4]
        sidecar = {
            "camera": CAMERAS[number % 2],
            "domain": "clear" if number < 8 else "fog",
            "label": truth,
        }
        contents += [
            (f"{number:03d}.png", png(number)),
            (f"{number:03d}.json", json.dumps(sidecar).encode()),
        ]
    put(root, {"a.tar": tar(contents)})


def test_a_study_says_what_its_frames_say(
    local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_known(local.input)
    output = tmp_path / "study"
    arguments = ["--input", local.input, "--labels", str(local.assets.labels)]
    arguments += ["--model", str(local.assets.model), "--output", str(output), "--device", "cpu"]
    small = "+views=6+confident_share=0.34"
    presets = f"frozen,ensemble,tpt{small},zero{small},paper+bank_size=24+steps=1{small}"
    arguments += ["--presets", presets, "--dtype", "float32"]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "macro accuracy" in shown
    assert "5 frames of unknown class" in shown

    frames = pq.read_table(output / "frames.parquet").to_pylist()
    assert len(frames) == 5 * 20
    with (output / "scores.csv").open() as file:
        scores = list(csv.DictReader(file))
    assert {row["name"] for row in scores} == {"clear", "fog", *CAMERAS, "overall"}
    assert len(scores) == 5 * 5
    for row in scores:
        own = [
            f
            for f in frames
            if f["preset"] == row["preset"]
            and f["truth"] != "kangaroo"
            and row["name"] in (f["domain"], f["camera"], "overall")
        ]
        share = sum(f["label"] == f["truth"] for f in own) / len(own)
        assert int(row["frames"]) == len(own)
        assert float(row["accuracy"]) == pytest.approx(share)
        assert float(row["adapted"]) == (row["preset"] not in ("frozen", "ensemble"))
    frozen = [f for f in frames if f["preset"] == "frozen"]
    assert all(f["label"] == f["source_label"] for f in frozen)
    ensemble = [f for f in frames if f["preset"] == "ensemble"]
    assert [f["confidence"] for f in ensemble] != [f["confidence"] for f in frozen]

    page = (output / "report.html").read_text()
    overall = {row["preset"]: row for row in scores if row["name"] == "overall"}
    assert f"frozen model labels {100 * float(overall['frozen']['accuracy']):.1f} % right" in page
    for name in (
        "Reliability",
        "By camera, with points to frozen",
        "tpt+views=6",
        *CLASSES[:3],
        "fog",
    ):
        assert name in page
    assert "<script" not in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    written = {path: path.stat().st_mtime_ns for path in output.rglob("labels/*.parquet")}
    assert main(arguments) == 0
    assert {p: p.stat().st_mtime_ns for p in output.rglob("labels/*.parquet")} == written


def test_the_truth_may_come_from_elsewhere(local: Place, tmp_path: Path) -> None:
    ids = put_tars(local.input, shards=1, frames=8, cameras=CAMERAS)
    truth = pa.table({"frame": ids, "label": [CLASSES[n % 2] for n in range(8)]})
    pq.write_table(truth, tmp_path / "truth.parquet")
    arguments = ["--input", local.input, "--labels", str(local.assets.labels), "--quiet"]
    arguments += ["--model", str(local.assets.model), "--output", str(tmp_path / "study")]
    arguments += ["--presets", "frozen", "--device", "cpu", "--dtype", "float32", "--limit", "6"]
    assert main([*arguments, "--truth", str(tmp_path / "truth.parquet")]) == 0
    frames = pq.read_table(tmp_path / "study" / "frames.parquet")
    assert frames["truth"].to_pylist() == [CLASSES[n % 2] for n in range(6)]
    assert frames["camera"].to_pylist() == [*CAMERAS] * 3
    assert set(frames["domain"].to_pylist()) == {None}


def test_what_cannot_be_scored_is_said(
    local: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put_tars(local.input, shards=1, frames=4)
    arguments = ["--input", local.input, "--labels", str(local.assets.labels), "--quiet"]
    arguments += ["--model", str(local.assets.model), "--output", str(tmp_path / "study")]
    arguments += ["--presets", "frozen", "--device", "cpu", "--dtype", "float32"]
    assert main(arguments) == 2
    assert "no frame has a truth" in capsys.readouterr().err
    assert main([*arguments, "--presets", "paper,frozen"]) == 2
    assert "begins with frozen" in capsys.readouterr().err
    assert main([*arguments, "--truth", str(tmp_path / "none.parquet")]) == 2
    assert "none.parquet" in capsys.readouterr().err
