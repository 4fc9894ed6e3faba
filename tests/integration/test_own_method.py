"""The page "Your own method", word for word: another package's preset, everywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from oracle import check_verified
from tiny import Assets, put_tars

from mint_stream.output.read import read_labels

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-method.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's module and its entry point, as an installer would lay them."""
    folder = tmp_path_factory.mktemp("site")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(code.splitlines()) < 60
    (folder / "class_shares.py").write_text(code)
    toml = r"```toml\n\[project\.entry-points\.\"(.*?)\"\]\n(.*?)```"
    ((group, entries),) = re.findall(toml, PAGE.read_text(), re.DOTALL)
    info = folder / "class_shares-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: class-shares\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n" + entries.replace('"', ""))
    return folder


def run(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(package), os.environ.get("PYTHONPATH", ""), str(PAGE.parents[1])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "mint_stream", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_it_labels_learns_and_resumes(package: Path, assets: Assets, tmp_path: Path) -> None:
    put_tars(str(tmp_path / "in"), shards=2, frames=12)
    command = [
        *("label", "--in-process", "--preset", "shares", "--unit-size", "4"),
        *("--input", str(tmp_path / "in"), "--labels", str(assets.labels)),
        *("--model", str(assets.model), "--device", "cpu", "--dtype", "float32"),
    ]
    whole, twice = str(tmp_path / "whole"), str(tmp_path / "twice")
    done = run(package, *command, "--output", whole)
    assert done.returncode == 0, done.stderr
    for limit in ("8", "24"):
        done = run(package, *command, "--output", twice, "--limit", limit)
        assert done.returncode == 0, done.stderr
    check_verified(whole)
    rows, again = read_labels(whole), read_labels(twice)
    assert rows.num_rows == 24
    assert set(rows["preset"].to_pylist()) == {"shares"}
    assert rows["adapted"].to_pylist() == [True] * 24
    different = np.array(rows["confidence"]) != np.array(rows["source_confidence"])
    assert different[1:].all(), "from the second frame on there is something to add"
    for column in ("frame", "label", "confidence", "adapted_label", "bank_seq"):
        assert rows[column].to_pylist() == again[column].to_pylist()


def test_it_is_compared_and_a_misspelled_one_names_it(
    package: Path, assets: Assets, tmp_path: Path
) -> None:
    put_tars(str(tmp_path / "in"), shards=1, frames=12)
    where = ["--input", str(tmp_path / "in"), "--labels", str(assets.labels)]
    model = ["--model", str(assets.model), "--device", "cpu", "--dtype", "float32"]
    wrong = run(package, "label", "--preset", "share", *where, *model, "--output", str(tmp_path))
    assert wrong.returncode == 2
    assert "shares" in wrong.stderr
    assert wrong.stderr.count("\n") == 1
