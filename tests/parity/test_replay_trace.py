"""The replay command: what it accepts and catches, and that it reads all from the directory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import replay_trace
import torch
from random_models import Shape, World
from reference_records import Settings
from torch import Tensor
from trace_files import Trace, TraceError, read_trace, write_trace

from mint_stream.clip.encoder import query_blocks

DATA = Path(__file__).resolve().parent / "data"
FULL_FOLDER = DATA.parents[3] / "shared" / "traces"
UNLIKE_THE_RECORDINGS = World(
    seed=7,
    shape=Shape(layers=5, heads=3, grid=3, quick_gelu=False, text_layers=3, context_length=24),
    settings=Settings(
        query_layers=(0, 3),
        top_k=4,
        selection_fraction=0.7,
        steps=4,
        learning_rate=2e-3,
        weight_decay=0.2,
        distance_weight=0.3,
    ),
    n_classes=4,
    n_context=3,
    n_entries=9,
    prompt_rows=6,
    n_views=5,
    n_images=2,
    usage_state="weighted",
)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return read_trace(DATA / "b")


@pytest.fixture(scope="module")
def computed(trace: Trace) -> dict[str, Tensor]:
    """What the product makes of `trace`, computed once."""
    return replay_trace.replay(trace)


def edited(trace: Trace, name: str, at: int, by: float) -> Trace:
    """The trace with one of its recorded numbers moved."""
    tensor = trace.tensors[name].clone()
    tensor.view(-1)[at] += by
    return Trace(trace.meta, trace.weights, {**trace.tensors, name: tensor})


def with_meta(trace: Trace, directory: Path, **changes: object) -> Path:
    """A copy of the trace with other hyper-parameters."""
    write_trace(Trace({**trace.meta, **changes}, trace.weights, trace.tensors), directory)
    return directory


@pytest.mark.parametrize("name", ["a", "b"])
def test_agrees_with_the_small_traces(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_trace.main([str(DATA / name)]) == 0
    assert "all 16 agree" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a", "b"])
def test_agrees_with_the_full_traces(name: str) -> None:
    directory = FULL_FOLDER / name
    if not directory.is_dir():
        pytest.skip(f"the full traces are not beside the checkout ({directory})")
    assert replay_trace.main([str(directory)]) == 0


def test_runs_as_a_command() -> None:
    command = [sys.executable, str(DATA.parent / "replay_trace.py"), str(DATA / "b")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "retrieved.indices" in done.stdout


def test_reads_every_number_from_the_directory(tmp_path: Path) -> None:
    write_trace(UNLIKE_THE_RECORDINGS.trace(), tmp_path)
    assert replay_trace.main([str(tmp_path)]) == 0


def test_the_products_own_query_blocks_are_the_recorded_ones(trace: Trace) -> None:
    assert query_blocks(12, 3) == tuple(trace.meta["query_layers"])


def differing_row(printed: str) -> list[str]:
    """The words of the only row that is marked in the table."""
    (row,) = [line for line in printed.splitlines() if "DIFFERS" in line]
    return row.split()


# encode_image.plain is compared at unit length: a change of direction must show all the same.
@pytest.mark.parametrize("name", ["loss", "logits.final", "queries", "encode_image.plain"])
def test_a_number_off_by_more_than_the_tolerance_fails(
    trace: Trace, computed: dict[str, Tensor], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert not replay_trace.report(edited(trace, name, at=-1, by=1e-4), computed)
    assert differing_row(capsys.readouterr().out)[0] == name


def test_a_number_off_by_less_than_the_tolerance_passes(
    trace: Trace, computed: dict[str, Tensor]
) -> None:
    assert replay_trace.report(edited(trace, "loss", at=0, by=5e-7), computed)


def test_a_number_that_is_not_one_fails(trace: Trace, computed: dict[str, Tensor]) -> None:
    assert not replay_trace.report(edited(trace, "loss", at=0, by=float("nan")), computed)


@pytest.mark.parametrize(
    "name",
    ["retrieved.indices", "final.indices", "confident_views", "bank.usage.after_image"],
)
def test_another_choice_fails(
    trace: Trace, computed: dict[str, Tensor], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert not replay_trace.report(edited(trace, name, at=0, by=1), computed)
    assert differing_row(capsys.readouterr().out)[:3] == [name, "1", "unequal"]


def test_a_difference_is_exit_status_1(trace: Trace, tmp_path: Path) -> None:
    write_trace(edited(trace, "loss", at=0, by=1e-4), tmp_path)
    assert replay_trace.main([str(tmp_path)]) == 1


@pytest.mark.parametrize("name", ["meta.json", "clip.safetensors", "trace.safetensors"])
def test_a_missing_file_is_named(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_trace(trace, tmp_path)
    (tmp_path / name).unlink()
    assert replay_trace.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name} is missing" in line


def test_a_missing_quantity_is_named(trace: Trace, computed: dict[str, Tensor]) -> None:
    tensors = {key: value for key, value in trace.tensors.items() if key != "loss"}
    with pytest.raises(TraceError, match="loss"):
        replay_trace.report(Trace(trace.meta, trace.weights, tensors), computed)


@pytest.mark.parametrize("name", ["views", "bank.usage.init"])
def test_a_missing_tensor_of_the_start_is_named(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    tensors = {key: value for key, value in trace.tensors.items() if key != name}
    write_trace(Trace(trace.meta, trace.weights, tensors), tmp_path)
    assert replay_trace.main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert name in line


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inject_layers", [0, 1]),
        ("query_layers", [7, 3]),
        ("optimizer", "SGD"),
        ("optimizer", "AdamW(betas=(0.5,0.999), eps=1e-8)"),
        ("prompt_length", 3),
    ],
)
def test_what_the_product_does_not_do_is_refused(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str], field: str, value: object
) -> None:
    assert replay_trace.main([str(with_meta(trace, tmp_path, **{field: value}))]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_trace_without_a_hyper_parameter_is_refused(
    trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = {name: value for name, value in trace.meta.items() if name != "top_k"}
    write_trace(trace, tmp_path)
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    assert replay_trace.main([str(tmp_path)]) == 2
    assert "top_k" in capsys.readouterr().err


def test_quantities_that_method_md_does_not_name_are_listed(
    trace: Trace, computed: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {**trace.tensors, "novelty": torch.zeros(1)}
    assert replay_trace.report(Trace(trace.meta, trace.weights, tensors), computed)
    assert "not compared" in capsys.readouterr().out
