"""Streams that drift: as their settings say, and the same bytes for the same seed."""

from __future__ import annotations

import itertools
import json
import runpy
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import members, png, put, tar

from mint_stream.config import ConfigError
from mint_stream.evaluation.corruptions import corrupt
from mint_stream.evaluation.drift import (
    NOTHING,
    Drift,
    parse_segment,
    read_pictures,
    stream_frames,
    write_stream,
)
from mint_stream.input.images import decode
from mint_stream.input.truth import read_truth

PICTURES: dict[str, Sequence[bytes]] = {
    name: [png(10 * n + k) for k in range(5)] for n, name in enumerate("abcd")
}


def sidecars(**changes: Any) -> list[dict[str, Any]]:
    return [dict(sidecar) for _, _, sidecar in stream_frames(PICTURES, Drift(**changes))]


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    drift = Drift(frames=30, segments=("clear", "snow", "shot_noise:2"), cameras=2, order="runs")
    for name in ("one", "two"):
        write_stream(tmp_path / name, PICTURES, drift, frames_per_shard=8)
    write_stream(tmp_path / "other", PICTURES, Drift(frames=30, seed=1))
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == [*(f"0000{n}.tar" for n in range(4)), "drift.json", "labels.txt"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    first = (tmp_path / "one" / "00000.tar").read_bytes()
    assert first not in (tmp_path / "other" / "00000.tar").read_bytes()
    assert (tmp_path / "one" / "labels.txt").read_text().split() == list("abcd")
    assert json.loads((tmp_path / "one" / "drift.json").read_text())["order"] == "runs"
    with pytest.raises(ConfigError, match="holds shards already"):
        write_stream(tmp_path / "one", PICTURES, drift)


def test_shards_tell_the_truth_to_whoever_reads_them(tmp_path: Path) -> None:
    drift = Drift(frames=24, segments=("clear", "fog:2", "clear"), cameras=2, interval_s=60)
    write_stream(tmp_path / "stream", PICTURES, drift)
    truth = read_truth(str(tmp_path / "stream")).to_pylist()
    assert [row["domain"] for row in truth] == ["0-clear"] * 8 + ["1-fog"] * 8 + ["2-clear"] * 8
    assert [row["camera"] for row in truth[:4]] == ["cam-01", "cam-02"] * 2
    assert [row["label"] for row in truth] == [s["label"] for s in sidecars(**vars(drift))]
    assert {(b["timestamp"] - a["timestamp"]).seconds for a, b in itertools.pairwise(truth)} == {60}
    # What was made can be made into another stream.
    again = read_pictures(str(tmp_path / "stream"))
    assert {name: len(found) for name, found in again.items()} == Counter(
        row["label"] for row in truth
    )


def test_severity_is_full_at_once_or_comes_and_goes() -> None:
    pictures = {"a": [png(0)], "b": [png(0)]}
    original = decode(png(0)).rgb_HW3

    def shown(change: Any) -> list[np.ndarray]:
        drift = Drift(frames=20, segments=("contrast:4", "clear"), cycles=2, change=change)
        return [picture for _, picture, _ in stream_frames(pictures, drift)]

    sudden = shown("sudden")
    wanted = corrupt("contrast", original, 4, np.random.default_rng(0))
    for index, picture in enumerate(sudden):
        expected = wanted if index // 5 % 2 == 0 else original
        np.testing.assert_array_equal(picture, expected)
    spread = [float(picture.std()) for picture in shown("gradual")[:5]]
    # Severities 0, 1.6, 3.2, 3.2, 1.6 of 4: the contrast falls and comes back.
    assert spread[0] > spread[1] > spread[2]
    assert spread[1] == pytest.approx(spread[4])
    assert spread[0] == pytest.approx(float(original.std()))


def test_classes_come_shuffled_in_runs_or_in_mixtures() -> None:
    shuffled = [s["label"] for s in sidecars(frames=400)]
    assert set(Counter(shuffled).values()) == {100}

    each = sidecars(frames=2400, order="runs", run_length=40, cameras=2)
    for camera in ("cam-01", "cam-02"):
        labels = [s["label"] for s in each if s["camera"] == camera]
        runs = [len(list(group)) for _, group in itertools.groupby(labels)]
        # Two runs of one class may follow each other; the last one is cut.
        assert min(runs[:-1]) >= 20
        assert 35 < np.mean(runs) < 70

    mixed = [s["label"] for s in sidecars(frames=4000, order="dirichlet", run_length=100)]
    stretches = [mixed[start : start + 100] for start in range(0, 4000, 100)]
    most = [max(Counter(stretch).values()) for stretch in stretches]
    assert np.mean(most) > 70
    assert len(set(mixed)) == 4


def test_an_episode_is_of_one_class_or_of_noise_on_one_camera() -> None:
    one = sidecars(frames=100, segments=("clear",), episode=(0.2, 0.5), only="c")
    assert [s["label"] for s in one[20:50]] == ["c"] * 30
    assert set(s["label"] for s in one[:20]) == set("abcd")
    assert list(dict.fromkeys(s["domain"] for s in one)) == ["0-clear", "1-clear only c", "2-clear"]

    originals = [decode(data).rgb_HW3 for many in PICTURES.values() for data in many]
    drift = Drift(frames=90, segments=("clear",), episode=(1 / 3, 2 / 3), noise_camera=2, cameras=3)
    for index, (_, picture, sidecar) in enumerate(stream_frames(PICTURES, drift)):
        noise = 30 <= index < 60 and sidecar["camera"] == "cam-02"
        assert (sidecar["label"] == NOTHING) == noise
        assert any(np.array_equal(picture, known) for known in originals) != noise


def test_unknown_classes_are_as_many_as_asked_and_not_in_the_list(tmp_path: Path) -> None:
    drift = Drift(frames=1000, unknown=("b", "d"), unknown_share=0.3, order="runs")
    counts = Counter(s["label"] for s in sidecars(**vars(drift)))
    assert 240 < counts["b"] + counts["d"] < 360
    assert min(counts["b"], counts["d"]) > 90
    write_stream(tmp_path / "stream", PICTURES, Drift(frames=8, unknown=("b", "d")))
    assert (tmp_path / "stream" / "labels.txt").read_text().split() == ["a", "c"]


def test_pictures_come_from_class_folders_or_sidecars(tmp_path: Path) -> None:
    folders = {f"in/{name}/{k}.png": png(k) for name in ("cat", "dog") for k in range(3)}
    put(str(tmp_path), folders)
    found = read_pictures(str(tmp_path / "in"))
    assert {name: len(many) for name, many in found.items()} == {"cat": 3, "dog": 3}
    put(str(tmp_path / "tars"), {"a.tar": tar(members(range(3)))})
    with pytest.raises(ConfigError, match="pictures whose class is known"):
        read_pictures(str(tmp_path / "tars"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": ("mist",)}, "segments is 'mist'"),
        ({"segments": ("fog:6",)}, "segments is 'fog:6'"),
        ({"segments": ("fog:thick",)}, "severity of 0 to 5"),
        ({"episode": (0.5, 0.2)}, "episode is"),
        ({"noise_camera": 2}, "noise-camera is 2"),
        ({"frames": 3}, "frames is 3"),
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Drift(**changes)


def test_classes_that_are_not_there_are_named(tmp_path: Path) -> None:
    for changes in ({"only": "z"}, {"unknown": ("z",)}):
        with pytest.raises(ConfigError, match="class is 'z'"):
            write_stream(tmp_path / "stream", PICTURES, Drift(frames=8, **changes))
    with pytest.raises(ConfigError, match="two classes"):
        write_stream(tmp_path / "stream", PICTURES, Drift(frames=8, unknown=tuple("abc")))
    assert parse_segment("fog") == ("fog", 3.0)


def test_the_command_writes_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put(str(tmp_path), {f"in/{name}/{k}.png": png(k) for name in ("cat", "dog") for k in range(3)})
    script = Path(__file__).parents[3] / "pipelines" / "make_drift.py"
    arguments = [
        "make_drift.py",
        "--input",
        str(tmp_path / "in"),
        "--output",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(sys, "argv", [*arguments, "--segments", "clear", "fog:1", "--frames", "12"])
    for expected in (0, 2):
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        assert ended.value.code == expected
    said = capsys.readouterr()
    assert "12 frames in 1 shards" in said.out
    assert "holds shards already" in said.err
