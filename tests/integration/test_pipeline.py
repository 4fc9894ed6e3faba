"""Whole runs of the pipeline: every frame once, resumed exactly; what is bad costs its own row."""

from __future__ import annotations

import gzip
import json
import lzma
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from forged import refuse_third_unit
from oracle import Output, check_bank, check_frames, check_same, check_verified
from places import Place
from safetensors.numpy import load_file, save_file
from tiny import CLASSES, METHOD, members, parquet, png, put, put_tars, tar

from mint_stream.bank.ledger import BankError
from mint_stream.bank.live import find_live
from mint_stream.config import PRESETS, ConfigError, ModelConfig
from mint_stream.output.read import read_labels, read_rejects
from mint_stream.pipeline.run import NAMESPACE, prepare_run
from mint_stream.pipeline.summary import BESIDE, RunFailed
from mint_stream.serving.banks.live import find_bank
from mint_stream.store.store import Store

pytestmark = pytest.mark.usefixtures("cluster")

CAMERAS = ("north", "south")


@pytest.fixture(scope="session")
def labelled(make_place: Callable[[], Place], cluster: None) -> Place:
    """Two tars of two cameras, labelled by one labeler."""
    place = make_place()
    put_tars(place.input, shards=2, frames=14, cameras=CAMERAS)
    place.run()
    return place


def put_mixed_input(root: str) -> list[str]:
    """130 frames in tars, a Parquet file and loose images; gives their ids."""
    ids = put_tars(f"{root}/a", shards=3, frames=25)
    names = [f"row-{n}" for n in range(20)]
    store = put(f"{root}/b", {"p.parquet": parquet([png(n) for n in range(20)], name=names)})
    ids += [f"{store.uri('p.parquet')}#{n}" for n in range(20)]
    for camera, count in (("east", 18), ("west", 17)):
        images = {f"camera={camera}/{n}.png": png(100 + n) for n in range(count)}
        store = put(f"{root}/c", images)
        ids += [store.uri(name) for name in images]
    return ids


def test_a_limited_run_is_continued_and_what_is_done_is_not_done_again(place: Place) -> None:
    ids = put_mixed_input(place.input)
    assert len(ids) == 130
    first = place.run(limit=60)
    assert (first.frames, first.already_done) == (60, 0)
    again = place.run(limit=60)
    assert (again.frames, again.already_done, again.units) == (0, 60, 0)
    logs = Output.read(place.output).logs
    more = place.run(limit=120)
    assert (more.frames, more.already_done) == (60, 60)
    logs |= Output.read(place.output).logs
    assert len(Output.read(place.output).frames) == 120
    rest = place.run()
    assert (rest.frames, rest.already_done) == (10, 120)
    output = Output.read(place.output)
    check_frames(output, ids)
    check_bank(output, METHOD, removed=logs)
    assert len(output.logs) < len(output.labels), "checkpoints cover the older log"
    assert place.run().frames == 0
    cameras = Counter(row["camera"] for row in output.label_rows)
    assert cameras == {None: 95, "east": 18, "west": 17}


def test_bad_input_costs_its_own_row(place: Place) -> None:
    good = members(range(6))
    cut = tar(members(range(10, 16)))
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\1\0\0\0\1\0\0\x08\2\0\0\0"
    objects = {
        "good.tar": tar(good),
        "images.tar": tar(
            [
                ("a.png", png(1)),
                ("a.json", b"{broken"),
                ("b.png", b""),
                ("c.png", b"not an image"),
                ("d.png", png(2)[:200]),
                ("e.png", bomb),
                ("f.jpg", png(3)),
                ("f.jpg", png(4)),
                ("notes.txt", b"text"),
                ("../g.png", png(5)),
            ]
        ),
        "cut.tar": cut[: len(cut) // 2],
        "empty.tar": b"",
        "garbage.tar": b"\x17" * 5000,
        "nulls.parquet": parquet([png(6), None, png(7)]),
        "garbage.parquet": b"PAR1 and no more",
        "loose.png": png(8),
        "loose-bad.png": b"GIF89a",
        "readme.md": b"no frame",
    }
    store = put(place.input, objects)
    place.run(max_reject_ratio=0.9)
    output = Output.read(place.output)
    labels = {row["frame"].removeprefix(store.uri() + "/") for row in output.label_rows}
    whole = sum(f"cut.tar#{n:06d}.png" in labels for n in range(10, 16))
    assert 0 < whole < 6
    assert labels == {
        *(f"good.tar#{name}" for name, _ in good),
        *(f"cut.tar#{n:06d}.png" for n in range(10, 10 + whole)),
        *(f"images.tar#{name}" for name in ("a.png", "f.jpg", "f.jpg~1", "../g.png")),
        *("nulls.parquet#0", "nulls.parquet#2", "loose.png"),
    }
    rejects = Counter(
        (row["shard"].removeprefix(store.uri() + "/"), row["stage"], row["member"])
        for row in output.reject_rows
    )
    assert rejects == {
        ("images.tar", "decode", "b.png"): 1,
        ("images.tar", "decode", "c.png"): 1,
        ("images.tar", "decode", "d.png"): 1,
        ("images.tar", "decode", "e.png"): 1,
        ("cut.tar", "read", None): 1,
        ("empty.tar", "read", None): 1,
        ("garbage.tar", "read", None): 1,
        ("nulls.parquet", "read", "1"): 1,
        ("garbage.parquet", "read", None): 1,
        (f"{store.uri()}#loose-bad.png..loose.png", "decode", "loose-bad.png"): 1,
    }
    assert all(row["message"] and row["error_type"] for row in output.reject_rows)
    check_bank(output, METHOD)
    assert place.run(max_reject_ratio=0.9).units == 0


def test_what_is_not_read_is_said_at_the_start_and_in_the_summary(
    local: Place, caplog: pytest.LogCaptureFixture
) -> None:
    first = [*members(range(5)), ("a.cls", b"7"), ("@eaDir/x.png", png(9)), ("b.cls", b"7")]
    second = members(range(5, 9))
    objects = {
        "two.tar.gz": gzip.compress(tar(first)) + gzip.compress(tar(second)),
        "three.tar.xz": lzma.compress(tar(members(range(9, 12)))),
        **{name: b"x" for name in ("a.zip", "d/b.zip", "c.arrow", "d.parquet.gzip")},
        **{name: png(1) for name in ("@eaDir/a.png", "#recycle/b.png", "lost+found/c.png")},
    }
    store = put(local.input, objects)
    files = "2 .zip (such as a.zip), 1 .arrow (c.arrow), 1 .parquet.gzip (d.parquet.gzip)"
    summary = local.run()
    assert (summary.frames, summary.rejected) == (12, 0)
    assert (summary.left_out, summary.left_out_members) == (files, "2 .cls (such as a.cls)")
    assert f"in the input are files of kinds that are not read: {files}" in caplog.text
    check_frames(
        Output.read(local.output),
        [
            *(f"{store.uri('two.tar.gz')}#{n:06d}.png" for n in range(9)),
            *(f"{store.uri('three.tar.xz')}#{n:06d}.png" for n in range(9, 12)),
        ],
    )
    again = local.run()
    assert (again.frames, again.left_out, again.left_out_members) == (0, files, "")


def test_a_run_is_resumed_with_other_labelers_and_another_unit_size(local: Place) -> None:
    ids = put_tars(local.input, shards=3, frames=15)
    local.run(limit=18)
    summary = local.run(num_labelers=3, unit_size=7)
    assert (summary.already_done, summary.frames) == (18, 27)
    output = Output.read(local.output)
    check_frames(output, ids)
    check_bank(output, METHOD)
    pinned = json.loads(Store(local.output).read("run.json"))
    assert pinned["unit_size"] == 4
    starts = {int(unit.rpartition("-")[2]) for unit in output.labels}
    assert starts <= {0, 3, 4, 8, 12}, "units lie on the grid of the first run"


def test_suspect_rows_are_labelled_again(local: Place) -> None:
    put_tars(local.input, shards=2, frames=14, cameras=CAMERAS)
    settings = {"method": PRESETS["realtime"], "unit_size": 4}
    local.run(**settings)
    refuse_third_unit(local.output)
    before = read_labels(local.output)
    again = local.run(**settings, relabel_suspect=True)
    assert (again.frames, again.units, again.relabels) == (8, 2, True)
    after = read_labels(local.output)
    assert after["frame"] == before["frame"]
    # By the bank of the whole stream, which eight units have taught.
    assert after.filter(after["relabelled"])["bank_seq"].to_pylist() == [8] * 8
    assert read_labels(local.output, relabelled=False).equals(before)
    more = local.run(**settings, relabel_suspect=True)
    assert (more.frames, more.units) == (0, 0)


def test_a_prefix_that_has_grown_adds_what_is_new(local: Place) -> None:
    ids = put_tars(f"{local.input}/tars", shards=1, frames=6)
    loose = {f"{n}.png": png(n) for n in range(0, 12, 2)}
    store = put(f"{local.input}/loose", loose)
    assert local.run().frames == 12
    ids += put_tars(f"{local.input}/tars", shards=1, frames=6, first=1)
    # Between and behind those that were there: their groups are no longer what they were.
    loose |= {f"{n}.png": png(n) for n in range(1, 15, 2)}
    put(f"{local.input}/loose", loose)
    ids += [store.uri(name) for name in loose]
    grown = local.run(num_labelers=2)
    assert (grown.already_done, grown.frames) == (12, 13)
    output = Output.read(local.output)
    check_frames(output, ids)
    check_bank(output, METHOD)
    assert local.run().units == 0


def test_a_replaced_shard_is_refused_once_and_not_labelled_twice(local: Place) -> None:
    ids = put_tars(local.input, shards=2, frames=5)
    local.run()
    store = put(local.input, {"001.tar": tar(members(range(5, 12)))})
    summary = local.run()
    assert (summary.frames, summary.rejects) == (0, {"list": 1})
    output = Output.read(local.output)
    check_frames(output, ids)
    (reject,) = output.reject_rows
    assert (reject["stage"], reject["shard"], reject["frame"]) == (
        "list",
        store.uri("001.tar"),
        None,
    )
    assert "name of its own" in reject["message"]
    again = local.run()
    assert (again.units, again.already_done) == (0, 10)


def test_two_runs_with_one_labeler_are_bit_identical(labelled: Place) -> None:
    output = f"{labelled.root}/again"
    labelled.run(output=output)
    again = Output.read(output)
    check_same(again, Output.read(labelled.output))
    assert len({row["label"] for row in again.label_rows}) > 1
    assert any(row["label"] != row["source_label"] for row in again.label_rows)
    # In the order of the stream, each unit on the bank that the one before left.
    seqs = {row["unit"]: row["bank_seq"] for row in read_labels(output).to_pylist()}
    assert list(seqs.values()) == list(range(8))


def test_each_camera_has_a_bank_of_its_own(labelled: Place) -> None:
    output = f"{labelled.root}/cameras"
    labelled.run(output=output, bank_scope="camera")
    found = Output.read(output)
    banks = check_bank(found, METHOD)
    assert set(banks.states) == set(CAMERAS)
    for row in found.label_rows:
        assert row["bank_scope"] == row["camera"]


def test_labels_and_rejects_are_read_back(labelled: Place) -> None:
    labels = read_labels(labelled.output)
    assert labels.num_rows == 28
    assert read_rejects(labelled.output).num_rows == 0
    row = labels.to_pylist()[1]
    assert row["frame"].endswith("/in/000.tar#000001.png")
    assert row["shard"].endswith("/in/000.tar")
    assert (row["member"], row["camera"]) == ("000001.png", "south")
    assert row["timestamp"] == datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
    assert (row["width"], row["height"]) == (45, 36)
    assert row["label"] in CLASSES
    assert len(row["topk_labels"]) == len(row["topk_scores"]) == 5
    assert row["topk_labels"][0] == row["label"]
    assert row["confidence"] == pytest.approx(row["topk_scores"][0])
    assert sum(row["topk_scores"]) == pytest.approx(1, abs=1e-5)
    assert row["preset"] == "tiny"
    assert row["adapted"]
    assert labels.schema.field("entropy").metadata[b"description"].startswith(b"entropy of")
    assert pa.types.is_timestamp(labels.schema.field("labelled_at").type)


def test_a_run_whose_input_is_plainly_wrong_stops(local: Place) -> None:
    names = [f"{n:03d}.png" for n in range(80)]
    put(local.input, {"a.tar": tar([(name, b"nothing") for name in names])})
    with pytest.raises(RunFailed, match=r"of \d+ frames were rejected .*max-reject-ratio"):
        local.run()
    stopped = Output.read(local.output)
    assert 50 <= len(stopped.frames) < 80
    assert local.run(max_reject_ratio=1.0).rejects.keys() == {"decode"}
    check_frames(
        Output.read(local.output), [f"{Store(local.input).uri('a.tar')}#{n}" for n in names]
    )


def test_the_frozen_preset_keeps_no_bank(local: Place) -> None:
    ids = put_tars(local.input, shards=1, frames=6)
    summary = local.run(method=PRESETS["frozen"])
    assert (summary.frames, summary.adapted, summary.bank_seq) == (6, 0, None)
    output = Output.read(local.output)
    check_frames(output, ids)
    assert not output.logs
    assert not output.checkpoints
    assert all(row["label"] == row["source_label"] for row in output.label_rows)


def test_the_live_bank_is_told_and_reached_by_that_name_while_the_run_goes_on(
    local: Place,
) -> None:
    put_tars(local.input, shards=1, frames=8)
    store, told, reached = Store(local.output), list[str](), list[int]()

    @ray.remote(num_cpus=0)
    def seq_of_the_live_bank() -> int:
        return find_bank(*find_live(store)).status().seq

    def look(name: str) -> None:
        told.append(name)
        assert find_live(store) == (name, NAMESPACE)
        # From another process, as a replica does.
        reached.append(ray.get(seq_of_the_live_bank.remote()))

    for frames in (4, 8):
        prepare_run(local.config(limit=frames), on_bank=look).execute()
        with pytest.raises(BankError, match="no run labels into"):
            find_live(store)
    assert len(set(told)) == 2
    # The second continues the bank of the first, one merge a unit.
    assert reached == [0, 1]
    check_verified(local.output)


def test_a_store_that_refuses_in_the_middle_ends_the_run_with_one_line(local: Place) -> None:
    put_tars(local.input, shards=1, frames=12)
    run = prepare_run(local.config())
    # A file where a folder is needed: nobody may write below it, whoever asks.
    Store(local.output).write("labels", b"")
    with pytest.raises(RunFailed) as failed:
        run.execute()
    assert "labels/" in str(failed.value)
    assert "\n" not in str(failed.value)
    assert not Store(local.output).exists("lease.json")


def test_weights_that_do_not_fit_are_refused_before_a_run_with_one_line(local: Place) -> None:
    put_tars(local.input, shards=1, frames=4)
    model = local.assets.model
    folder = Store(f"{local.root}/other")
    config = json.loads((model / "config.json").read_text())
    config["model_cfg"]["vision_cfg"]["layers"] = 4
    folder.write("config.json", json.dumps(config).encode())
    folder.write("model.safetensors", (model / "model.safetensors").read_bytes())
    wrong = ModelConfig(model=f"{local.root}/other", device="cpu", dtype="float32")
    with pytest.raises(ConfigError, match="holds the weights of another model") as refused:
        prepare_run(replace(local.config(), model=wrong))
    assert "\n" not in str(refused.value)


def test_weights_that_compute_nothing_end_the_run_with_one_line(local: Place) -> None:
    put_tars(local.input, shards=1, frames=4)
    tensors = load_file(local.assets.model / "model.safetensors")
    tensors["visual.proj"] = np.full_like(tensors["visual.proj"], np.nan)
    folder = Path(local.root) / "nothing"
    folder.mkdir()
    (folder / "config.json").write_bytes((local.assets.model / "config.json").read_bytes())
    save_file(tensors, folder / "model.safetensors")
    wrong = ModelConfig(model=str(folder), device="cpu", dtype="float32")
    run = prepare_run(replace(local.config(), model=wrong))
    with pytest.raises(RunFailed) as failed:
        run.execute()
    assert str(folder) in str(failed.value)
    assert "\n" not in str(failed.value)
    assert Output.read(local.output).label_rows == []


def test_a_budget_is_kept_and_told(local: Place) -> None:
    ids = put_tars(local.input, shards=2, frames=16)
    summary = local.run(adapt_budget=0.01)
    rows = read_labels(local.output)
    check_frames(Output.read(local.output), ids)
    spared = rows["guard"].to_pylist().count("budget")
    assert summary.spared == spared > 0
    assert summary.adapted == rows["adapted"].to_pylist().count(True) == 32 - spared
    inside_s = sum(s for stage, s in summary.stage_seconds.items() if stage not in BESIDE)
    assert 0 <= summary.adapt_s <= inside_s
