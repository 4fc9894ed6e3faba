"""A device that fails never turns a frame into a reject: less at once, then the run ends."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from ray.exceptions import RayTaskError
from tiny import METHOD, Assets, put_tars, write_assets

from mint_stream.bank.client import BankClient
from mint_stream.bank.server import BankServer
from mint_stream.clip.encoder import ImageEncoder, Stem
from mint_stream.config import PRESETS, MethodConfig
from mint_stream.input.units import ShardTask, read_shard
from mint_stream.labeler.device import DeviceFailed
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.method import frozen
from mint_stream.output.units import CommittedUnit, UnitFacts
from mint_stream.pipeline.control import RunControl
from mint_stream.pipeline.parts import labeler_config, read_config, run_bank
from mint_stream.pipeline.preflight import prepare
from mint_stream.pipeline.run import Run, _readable
from mint_stream.pipeline.summary import RunFailed
from mint_stream.pipeline.tally import RECENT_FRAMES, Tally

METHODS = (PRESETS["frozen"], PRESETS["realtime"], METHOD)
FRAMES = 8


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


class Labelling:
    """A labeler, and a unit of eight frames for it."""

    def __init__(self, assets: Assets, root: Path, method: MethodConfig) -> None:
        put_tars(str(root / "in"), shards=1, frames=FRAMES, cameras=("north",))
        config = assets.config(str(root / "in"), str(root / "out"), method=method, unit_size=FRAMES)
        prepared = prepare(config)
        (shard,) = prepared.shards
        reading = read_config(config, prepared)
        (self.unit,) = read_shard(ShardTask(shard=shard), reading, RunControl(), lambda _: None)
        bank = BankClient(BankServer(run_bank(config, prepared))) if config.keeps_bank else None
        self.labeler = MintLabeler(labeler_config(config, prepared, 0), bank)

    def label(self) -> tuple[list[dict[str, Any]], dict[str, int]]:
        """The rows of its labels, and the rejects by stage."""
        labelled = self.labeler.label_unit(self.unit)
        rows = pq.read_table(io.BytesIO(labelled.labels)).to_pylist()
        return rows, dict(labelled.facts.rejected)


@pytest.fixture(params=METHODS, ids=lambda method: method.name)
def labelling(request: pytest.FixtureRequest, assets: Assets, tmp_path: Path) -> Labelling:
    return Labelling(assets, tmp_path, request.param)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An encoder that fails with `error` for more than `room` images; `sizes` of its passes."""
    state = SimpleNamespace(error=None, room=0, sizes=[])
    blocks = ImageEncoder._blocks

    def failing(self: ImageEncoder, stem: Stem, *rest: Any) -> Any:
        state.sizes.append(len(stem.x_BTD))
        if state.error is not None and len(stem.x_BTD) > state.room:
            raise state.error
        return blocks(self, stem, *rest)

    monkeypatch.setattr(ImageEncoder, "_blocks", failing)
    return state


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        MemoryError(),
    ],
)
def test_too_little_memory_halves_the_batch_and_costs_no_frame(
    error: Exception, assets: Assets, tmp_path: Path, labelling: Labelling, passes: SimpleNamespace
) -> None:
    alone = Labelling(assets, tmp_path, labelling.labeler.config.method)
    wanted, _ = alone.label()
    passes.error, passes.room = error, 3
    rows, rejected = labelling.label()
    assert rejected == {}
    assert [row["label"] for row in rows] == [row["label"] for row in wanted]
    for mine, theirs in zip(rows, wanted, strict=True):
        assert mine["confidence"] == pytest.approx(theirs["confidence"], rel=1e-3)
    assert labelling.labeler.adapter.encoder.at_once in (2, 3)
    passes.sizes.clear()
    labelling.unit = replace(labelling.unit, unit=f"{'0' * 20}-00000001")
    assert labelling.label()[1] == {}
    assert max(passes.sizes) <= 3, "the next unit does not try again what was too much"


def test_a_device_without_room_for_one_image_ends_the_run_with_a_remedy(
    labelling: Labelling, passes: SimpleNamespace
) -> None:
    passes.error = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(
        DeviceFailed, match=r"too little memory .*CUDA out of memory.*fewer labeler"
    ):
        labelling.label()
    assert 1 in passes.sizes


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_device_that_fails_ends_the_run_and_rejects_nothing(
    error: Exception, labelling: Labelling, passes: SimpleNamespace
) -> None:
    passes.error = error
    with pytest.raises(DeviceFailed, match=r"the device cpu failed .* error: .*--device"):
        labelling.label()
    if isinstance(error, torch.AcceleratorError):
        assert len(passes.sizes) == 1, "what a GPU says of itself does not pass"


def test_a_device_that_fails_while_it_makes_views_is_not_the_frames_fault(
    labelling: Labelling, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = frozen.make_views, frozen.first_views

    def on_device(make: Any) -> Any:
        def failing(*given: Any, device: torch.device | None = None, **more: Any) -> Any:
            if device is not None:
                raise RuntimeError("CUDA error: unspecified launch failure")
            return make(*given, device=device, **more)

        return failing

    monkeypatch.setattr(frozen, "make_views", on_device(made[0]))
    monkeypatch.setattr(frozen, "first_views", on_device(made[1]))
    with pytest.raises(DeviceFailed, match="unspecified launch failure"):
        labelling.label()


def test_a_device_that_fails_while_it_adapts_is_not_the_frames_fault(
    labelling: Labelling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    for name in ("label_frames", "label_frozen"):
        monkeypatch.setattr(labelling.labeler.adapter, name, failing)
    with pytest.raises(DeviceFailed, match="CUDA out of memory"):
        labelling.label()


def test_a_frame_whose_pixels_are_no_image_is_a_reject_and_the_others_are_labelled(
    labelling: Labelling,
) -> None:
    frames = list(labelling.unit.frames)
    frames[2] = replace(frames[2], pixels_height=frames[2].pixels_height + 1)
    frames[5] = replace(frames[5], pixels=b"", pixels_height=0)
    labelling.unit = replace(labelling.unit, frames=tuple(frames))
    rows, rejected = labelling.label()
    assert rejected == {"label": 2}
    names = [frame.frame for frame in frames]
    assert [row["frame"] for row in rows] == [names[n] for n in (0, 1, 3, 4, 6, 7)]
    assert labelling.labeler.adapter.encoder.at_once is None


def test_the_run_says_it_in_the_devices_words() -> None:
    failed = DeviceFailed("the device cuda failed while labelling (x); check it")
    told = str(_readable(RayTaskError("LabelUnits", "a trace", failed)))
    assert (
        told == "the device cuda failed while labelling (x); check it. What was committed is kept"
    )


def committed(labelled: int, rejected: int) -> CommittedUnit:
    facts = UnitFacts(labelled=labelled, rejected={"label": rejected})
    return CommittedUnit(unit="0-0", won=True, facts=facts)


def test_a_burst_of_rejects_after_a_million_good_frames_stops_the_run() -> None:
    run: Any = SimpleNamespace(config=SimpleNamespace(max_reject_ratio=0.5, output="/out"))
    tally = Tally()
    for _ in range(1000):
        tally.add(committed(1000, 0))
        Run._check_rejects(run, tally)
    bursts = []

    def burst() -> None:
        while len(bursts) * 16 < 10 * RECENT_FRAMES:
            bursts.append(committed(0, 16))
            tally.add(bursts[-1])
            Run._check_rejects(run, tally)

    with pytest.raises(RunFailed, match=r"of the last 10,\d\d\d frames were rejected .*/out/rej"):
        burst()
    assert len(bursts) * 16 <= RECENT_FRAMES * 6 // 10
    assert len(tally._recent) < 2 * RECENT_FRAMES // 16


def test_a_bad_shard_among_good_ones_does_not_stop_the_run() -> None:
    run: Any = SimpleNamespace(config=SimpleNamespace(max_reject_ratio=0.5, output="/out"))
    tally = Tally()
    for _ in range(10):
        for rejected in [0] * 600 + [16] * 100:
            tally.add(committed(16 - rejected, rejected))
            Run._check_rejects(run, tally)
