"""The command as people type it: flags, exit codes, what it prints, and what it never prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.compute as pc
import pytest
from drivers import REPOSITORY, label_stream
from oracle import Output, check_bank, check_frames
from places import Place
from s3_server import S3Server
from tiny import members, put, put_tars, tar

from mint_stream.config import PRESETS
from mint_stream.store.store import Store

FLAGS = {
    "--adapt",
    "--adapt-budget",
    "--anonymous",
    "--bank-scope",
    "--calibration",
    "--checkpoint-every",
    "--device",
    "--dtype",
    "--follow",
    "--help",
    "--id-column",
    "--image-column",
    "--in-process",
    "--input",
    "--labels",
    "--limit",
    "--log-json",
    "--max-reject-ratio",
    "--min-confidence",
    "--model",
    "--num-labelers",
    "--output",
    "--poll",
    "--preset",
    "--quiet",
    "--relabel-suspect",
    "--seed",
    "--top-k",
    "--unit-size",
    "--weights",
}


def arguments(place: Place, *more: str) -> list[str]:
    return [
        *("--input", place.input, "--output", place.output),
        *("--labels", str(place.assets.labels), "--model", str(place.assets.model)),
        *("--device", "cpu", "--dtype", "float32", "--unit-size", "4", *more),
    ]


def test_a_new_flag_is_meant() -> None:
    """Whoever adds one adds it here, and asks whether a preset would not do."""
    answer = subprocess.run(
        [sys.executable, "pipelines/label_stream.py", "--help"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", answer.stdout))
    assert {flag for flag in found if not flag.startswith("--no-")} == FLAGS


def test_a_run_on_s3_says_what_it_does_and_keeps_its_secrets(
    s3: str, s3_server: S3Server, local: Place
) -> None:
    place = Place(s3, local.assets)
    ids = put_tars(place.input, shards=2, frames=6)
    with label_stream(*arguments(place)) as driver:
        assert driver.wait() == 0, driver.err
        assert "2 shards are left" in driver.err
        assert re.search(r"labelled\s+12 frames in 4 units", driver.out)
        assert f"{place.output}/labels/" in driver.out
        assert "\x1b[" not in driver.out + driver.err, "colours are for terminals"
        assert "Traceback" not in driver.err
        assert_not_told(s3_server.secret_key, driver.folder)
    output = Output.read(place.output)
    check_frames(output, ids)
    check_bank(output, PRESETS["realtime"])
    for table in output.labels.values():
        assert pc.all(pc.greater_equal(table["drift"], 0.0)).as_py(), "every frame has its drift"
        assert table["bank_domain"].null_count == 0
    store = Store(place.output)
    assert not any(s3_server.secret_key.encode() in store.read(i.name) for i in store.list())
    with label_stream(*arguments(place)) as driver:
        assert driver.wait() == 0
        assert "12 frames are done already" in driver.err
        assert re.search(r"nothing to do: all 12 frames were done before", driver.out)


def assert_not_told(secret: str, folder: Path) -> None:
    """`secret` stands in no file that the driver or Ray wrote."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("raylet") for path in files), "Ray's logs are elsewhere"
    told = [path for path in files if secret.encode() in path.read_bytes()]
    assert not told


def test_a_run_that_fails_says_why_in_one_line(local: Place) -> None:
    bad = [(f"{n}.png", b"nothing") for n in range(60)]
    put(local.input, {"0.tar": tar(members(range(4))), "1.tar": tar(bad)})
    with label_stream(*arguments(local, "--preset", "frozen", "--quiet")) as driver:
        assert driver.wait() == 1, driver.err
        assert driver.out == ""
        (line,) = [line for line in driver.err.splitlines() if line.startswith("error: ")]
        assert "--max-reject-ratio 0.5" in line
        assert driver.err.splitlines()[-1] == line
        assert "Traceback" not in driver.err
    assert len(Output.read(local.output).label_rows) == 4


@pytest.mark.parametrize("flag", ["--no-such-flag", "--preset=best"])
def test_a_misspelled_flag_is_told(flag: str) -> None:
    answer = subprocess.run(
        [sys.executable, "pipelines/label_stream.py", flag],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert flag.partition("=")[0] in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
