"""What can be known before a run: one clear line, exit code 2, no model loaded, no Ray started."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from places import Place
from s3_server import S3Server, free_ports
from tiny import CLASSES, put_tars, write_classes, write_clip

from mint_stream.cli.label import main
from mint_stream.config import PRESETS
from mint_stream.labeler import labeler
from mint_stream.pipeline.preflight import prepare
from mint_stream.store.store import Store

Refused = Callable[..., str]


@pytest.fixture
def refused(
    local: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Refused:
    """Runs the command with what is given changed; gives the one line that it refuses with."""
    monkeypatch.setattr(labeler, "load_clip", lambda config: pytest.fail("a model was loaded"))
    monkeypatch.setattr(ray, "init", lambda **settings: pytest.fail("Ray was started"))
    put_tars(local.input, shards=1, frames=4)
    usual = {
        "input": local.input,
        "output": local.output,
        "labels": str(local.assets.labels),
        "model": str(local.assets.model),
        "device": "cpu",
        "preset": "frozen",
    }

    def run(**changes: str | None) -> str:
        options = {k: v for k, v in {**usual, **changes}.items() if v is not None}
        arguments = [text for k, v in options.items() for text in (f"--{k.replace('_', '-')}", v)]
        started = time.monotonic()
        assert main(arguments) == 2
        assert time.monotonic() - started < 30
        captured = capsys.readouterr()
        (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
        assert captured.err.splitlines()[-1] == line
        assert "Traceback" not in captured.err
        return line

    return run


def test_input(refused: Refused, local: Place, tmp_path: Path) -> None:
    missing = f"{local.root}/nothing"
    assert missing in refused(input=missing)
    assert "no shards" in refused(input=missing)
    other = tmp_path / "video.mp4"
    other.write_bytes(b"film")
    assert "video.mp4" in refused(input=str(other))
    assert "must be a tar" in refused(input=str(other))


def test_output(refused: Refused, tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_bytes(b"")
    line = refused(output=str(taken / "out"))
    assert str(taken) in line
    assert "a file is where a folder should be" in line


def test_class_list(refused: Refused, tmp_path: Path) -> None:
    assert "no such file" in refused(labels=str(tmp_path / "none.txt"))
    one = write_classes(tmp_path / "one.txt", ["car", "# bus"])
    assert "must have at least 2" in refused(labels=str(one))
    twice = write_classes(tmp_path / "twice.txt", ["car", "bus", "car"])
    assert "line 3 repeats 'car'" in refused(labels=str(twice))
    assert "--labels" in refused(labels=None)


def test_model_and_weights(refused: Refused, local: Place, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    assert "config.json" in refused(model=str(bare))
    (bare / "config.json").write_text((local.assets.model / "config.json").read_text())
    assert "model.safetensors" in refused(model=str(bare))
    assert "does not exist" in refused(weights=str(tmp_path / "none.bin"))
    (bare / "config.json").write_text("{")
    (bare / "model.safetensors").write_bytes(b"")
    assert "no model configuration" in refused(model=str(bare))
    assert "needs weights" in refused(model="ViT-B-16")
    assert "'nobody'" in refused(model="ViT-B-16", weights="nobody")
    assert "ViT-B-16" in refused(model="ViT-Z-99")
    assert "no Vision Transformer" in refused(model="RN50", weights="random")


def test_device(refused: Refused) -> None:
    assert "CUDA_VISIBLE_DEVICES=99" in refused(device="cuda:99")
    assert "has no float64" in refused(device="mps")
    assert "'gpu'" in refused(device="gpu")


def test_numbers(refused: Refused) -> None:
    assert "num-labelers is 0" in refused(num_labelers="0")
    assert "limit is 0" in refused(limit="0")
    assert "max-reject-ratio is 2.0" in refused(max_reject_ratio="2")


def test_another_output_for_other_settings(refused: Refused, local: Place, tmp_path: Path) -> None:
    more = write_classes(tmp_path / "more.txt", [*CLASSES[1:], "tram"])
    other = write_clip(tmp_path / "other", seed=1)
    prepared = prepare(local.config(method=PRESETS["frozen"], unit_size=16))
    assert prepared.unit_size == 16
    line = refused(labels=str(more))
    assert "without car and with tram" in line
    assert "choose another --output" in line
    assert "model was" in refused(model=str(other))
    line = refused(preset="paper")
    assert "preset.steps was 0, now 3" in line
    assert "preset.name was 'frozen', now 'paper'" in line
    assert "seed was 0, now 1" in refused(seed="1")
    assert "bank_scope was 'shared', now 'camera'" in refused(bank_scope="camera")


def test_a_damaged_settings_file_is_named(refused: Refused, local: Place) -> None:
    Store(local.output).write("run.json", b"{")
    assert "run.json is damaged" in refused()


def test_addresses_with_credentials_are_refused_without_showing_them(refused: Refused) -> None:
    line = refused(output="s3://user:hunter2@bucket/out")
    assert "hunter2" not in line
    assert "credentials" in line


def test_s3(
    refused: Refused, s3: str, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_tars(f"{s3}/in", shards=1, frames=4)
    bucket = f"s3://no-such-bucket-here/{s3.rpartition('/')[2]}"
    for field in ("input", "output"):
        line = refused(**{field: bucket})
        assert "no-such-bucket-here" in line
        assert "NoSuchBucket" in line
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong" * 8)
    for field in ("input", "output"):
        line = refused(**{field: f"{s3}/{field[:2]}"})
        assert "AWS_SECRET_ACCESS_KEY" in line
        assert "wrongwrong" not in line
        assert s3_server.secret_key not in line
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert "no credentials were found" in refused(input=f"{s3}/in")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for field in ("input", "output"):
        line = refused(**{field: f"{s3}/{field[:2]}"})
        assert endpoint in line
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:80")
    assert "http://" in refused(input=f"{s3}/in")
