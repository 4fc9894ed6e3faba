"""The realtime preset and its guard on streams of real pictures, where they are at hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from mint_stream.config import PRESETS, MethodConfig, ModelConfig, RunConfig
from mint_stream.evaluation.run import run_preset
from mint_stream.input.truth import read_truth
from mint_stream.output.accuracy import accuracy_by, with_truth
from mint_stream.output.read import read_labels

SHARED = Path(__file__).resolve().parents[3] / "shared"
STREAMS, MODEL = SHARED / "streams", SHARED / "models" / "small-photo-clip"
REALTIME = PRESETS["realtime"]

pytestmark = pytest.mark.skipif(
    not (STREAMS.is_dir() and MODEL.is_dir()), reason=f"no streams and model in {SHARED}"
)


def gains(stream: str, method: MethodConfig, folder: Path, frames: int) -> dict[str, float]:
    """Points above frozen CLIP for each segment, and `overall`."""
    source = STREAMS / stream
    config = RunConfig(
        input=str(source),
        output=str(folder),
        labels=str(source / "labels.txt"),
        model=ModelConfig(model=str(MODEL), device="cpu", dtype="float32"),
        method=method,
        limit=frames,
    )
    run_preset(config)
    rows = accuracy_by(with_truth(read_labels(str(folder)), read_truth(str(source))))
    return {
        "overall" if row.overall else row.name: 100 * (row.accuracy - row.source_accuracy)
        for row in rows
    }


def test_drift_is_won_back(tmp_path: Path) -> None:
    found = gains("small-photos-drift", REALTIME, tmp_path / "out", frames=1200)
    assert found.pop("overall") > 3
    assert found["2-night"] > 10
    assert found["1-fog"] > 5
    # 400 frames a segment: a frame is a quarter of a point.
    assert min(found.values()) > -2


def test_the_guard_keeps_a_correlated_stream_where_frozen_clip_is(tmp_path: Path) -> None:
    unguarded = dataclasses.replace(REALTIME, guard=False)
    assert gains("small-photos-correlated", unguarded, tmp_path / "unguarded", 1000)["overall"] < -5
    assert gains("small-photos-correlated", REALTIME, tmp_path / "guarded", 1000)["overall"] > -0.5


def test_the_table_of_cameras_gains_where_frames_resemble_those_before(tmp_path: Path) -> None:
    found = gains("small-photos-correlated", PRESETS["cameras"], tmp_path / "runs", 1000)
    assert found["overall"] > 10
    assert min(found.values()) > 0


def test_the_table_of_cameras_loses_nothing_on_shuffled_frames(tmp_path: Path) -> None:
    found = gains("small-photos-drift", PRESETS["cameras"], tmp_path / "out", frames=1200)
    assert found.pop("overall") > 0
    # The night may cost a little: 400 frames, of which a frame is a quarter of a point.
    assert min(found.values()) > -3
