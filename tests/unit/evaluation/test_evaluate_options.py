"""What `evaluate` refuses at once, and what it compares without being told."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from label_tables import CLASSES, labels_table, truth_table

from mint_stream.cli.evaluate import Options, _write_scores
from mint_stream.evaluation.scores import study

WHERE = ["--input", "nowhere", "--labels", "none.txt", "--output", "out", "--model", "none"]


@pytest.mark.parametrize(
    ("presets", "said"),
    [
        ("frozen,realtme", "'realtme'"),
        ("frozen,realtime,paper+stepz=1", "paper+stepz=1"),
        ("frozen,paper+steps=x", "'x'"),
        ("realtime", "a list that begins with frozen"),
        ("frozen,", "''"),
    ],
)
def test_a_typo_in_presets_fails_at_once_and_imports_no_torch(presets: str, said: str) -> None:
    """Before anything is read: neither input, nor labels, nor model exist here."""
    code = (
        "import sys; from mint_stream.cli.evaluate import main; "
        f"code = main({[*WHERE, '--presets', presets]!r}); "
        "print(*{'torch', 'ray'} & set(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_the_default_preset_of_runs_is_among_those_that_are_compared() -> None:
    options = Options(input="in", labels="labels.txt", output=Path("out"), model="m")
    names = [method.name for method in options.methods()]
    assert names[:2] == ["frozen", "realtime"]


def test_a_camera_that_is_a_formula_is_text_in_the_scores(tmp_path: Path) -> None:
    labels = labels_table(["car", "bus"])
    at = labels.schema.get_field_index("camera")
    labels = labels.set_column(at, labels.schema.field("camera"), pa.array(["=1+1", "b"]))
    truth = truth_table(["car", "bus"], ["day", "day"])
    found = study({"frozen": labels}, truth, CLASSES, {})
    _write_scores(tmp_path / "scores.csv", found)
    with (tmp_path / "scores.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'=1+1" in cells
    assert "=1+1" not in cells
