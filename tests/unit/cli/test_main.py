"""`mint-stream`: its parts by name, each with help and an example."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from mint_stream.cli.main import PARTS, main

ROOT = Path(__file__).resolve().parents[3]


def test_the_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="mint-stream")
    assert command.load() is main


def test_help_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, part in PARTS.items():
        assert re.search(rf"^  {name} +{re.escape(part.says)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", PARTS)
def test_each_part_has_help_with_an_example(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mint_stream", name, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    text = " ".join(done.stdout.split())
    assert f"usage: mint-stream {name}" in text
    assert f"Example: mint-stream {name} " in text


def test_without_a_part_the_help_is_shown_and_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "usage: mint-stream PART" in capsys.readouterr().out


def test_a_misspelled_part_is_named_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verfy", "out"]) == 2
    said = capsys.readouterr().err
    assert "there is no part 'verfy' (did you mean verify?)" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("script", ["evaluate", "inspect_output", "label_stream", "make_drift"])
def test_the_scripts_are_two_lines_over_it(script: str) -> None:
    lines = (ROOT / "pipelines" / f"{script}.py").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith(('"""', "from __future__"))]
    assert code[0] == "import sys"
    assert len(code) == 4


def test_a_part_of_an_output_loads_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from mint_stream.cli.main import main; main(['verify', 'nothing-here']); "
        "print({'torch', 'ray', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
