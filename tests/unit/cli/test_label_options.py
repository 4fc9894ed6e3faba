"""Which model labels is said by whoever labels: the bundled CLIP is no default."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import put_tars, write_classes

from mint_stream.cli import evaluate, label
from mint_stream.config import BUNDLED, ModelConfig
from mint_stream.method.adapter import MintAdapter


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A run that lacks nothing but a model."""
    put_tars(str(tmp_path / "in"), shards=1, frames=2)
    labels = write_classes(tmp_path / "labels.txt")
    return [
        *("--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")),
        *("--labels", str(labels)),
    ]


def test_an_input_without_a_model_is_not_labelled_by_the_bundled_clip(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --model is None; it must be named: ")
    assert "ViT-B-16 with laion2b_s34b_b88k" in line
    assert "bundled for the small CLIP of the demonstration" in line
    assert not (tmp_path / "out").exists()


def test_an_evaluation_without_a_model_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        evaluate.main(arguments)
    assert ended.value.code == 2


def test_the_bundled_clip_is_there_by_name(arguments: list[str]) -> None:
    options = label.Options(
        input="in", output="out", labels="labels.txt", model=BUNDLED
    ).run_config()
    assert options.model.folder == ModelConfig(model="bundled").folder
    assert (options.model.folder / "config.json").is_file()  # type: ignore[operator]


@pytest.mark.parametrize(
    "given", [["--model", "ViT-B-16"], ["--weights", "openai"], ["--labels", "mine.txt"]]
)
def test_the_demonstration_refuses_what_it_would_pass_over(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label.main([*given, "--output", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{given[0]} is '{given[1]}'; it must be left out without --input" in said


def test_an_adapter_is_built_from_a_model_that_is_named() -> None:
    with pytest.raises(TypeError, match="model"):
        MintAdapter.build(["car", "bus"])  # type: ignore[call-arg]
    assert MintAdapter.build(["car", "bus"], model="bundled", preset="frozen").labels == [
        "car",
        "bus",
    ]
