"""What a run cannot have it leaves: nothing of that is committed, and the next run labels it."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest
from drivers import wait_until
from oracle import Output, check_bank, check_frames
from places import Place
from rich.console import Console
from tiny import METHOD, members, parquet, png, put, put_tars, tar

from mint_stream.cli import label as command
from mint_stream.config import RunConfig
from mint_stream.pipeline import run as runs
from mint_stream.pipeline.run import Run, prepare_run
from mint_stream.pipeline.summary import RunSummary
from mint_stream.store.store import Store
from mint_stream.upkeep.verify.verify import verify

pytestmark = pytest.mark.usefixtures("cluster")


def put_every_kind(root: str) -> tuple[list[str], dict[str, bytes]]:
    """Two tars, a Parquet file and five loose images; the ids of all frames, and what vanishes."""
    ids = put_tars(root, shards=2, frames=10)
    images = {f"loose/{n}.png": png(n) for n in range(5)}
    store = put(root, {"p.parquet": parquet([png(n) for n in range(6)]), **images})
    ids += [f"{store.uri('p.parquet')}#{n}" for n in range(6)]
    ids += [store.uri(name) for name in images]
    vanishing = ("000.tar", "p.parquet", "loose/0.png", "loose/3.png")
    return ids, {name: store.read(name) for name in vanishing}


def vanishes(run: Run, store: Store, names: dict[str, bytes]) -> RunSummary:
    """Execute a run whose input lost something after it was listed."""
    for name in names:
        store.delete(name)
    return run.execute()


@pytest.mark.parametrize("labelers", [1, 2])
def test_what_vanished_is_labelled_once_it_is_back(local: Place, labelers: int) -> None:
    ids, vanishing = put_every_kind(local.input)
    store = Store(local.input)
    run = prepare_run(local.config(num_labelers=labelers))
    summary = vanishes(run, store, vanishing)
    assert (summary.left_shards, summary.left_images) == (2, 2)
    assert summary.left_why == {"ObjectMissing": 4}
    assert "there is no such object" in str(summary.left_example)
    assert (summary.rejects, summary.frames) == ({}, 13)
    there = {store.uri(info.name) for info in store.list()}
    had = [frame for frame in ids if frame.partition("#")[0] in there]
    check_frames(Output.read(local.output), had)
    put(local.input, vanishing)
    found = verify(local.output, input_url=local.input).findings
    assert {finding.remedy for finding in found} == {"run the same command again"}
    again = local.run(num_labelers=labelers)
    assert (again.left, again.frames) == (0, 18)
    assert verify(local.output, input_url=local.input).clean
    output = Output.read(local.output)
    check_frames(output, ids)
    check_bank(output, METHOD)
    assert local.run().units == 0


def test_what_vanished_for_good_is_not_asked_for_by_the_next_run(local: Place) -> None:
    _, vanishing = put_every_kind(local.input)
    assert vanishes(prepare_run(local.config()), Store(local.input), vanishing).left == 4
    again = local.run()
    assert (again.left, again.units) == (0, 0)
    assert verify(local.output, input_url=local.input).clean


def test_a_limit_is_not_used_up_by_what_vanished(local: Place) -> None:
    ids = put_tars(local.input, shards=3, frames=6)
    store = Store(local.input)
    first = {"000.tar": store.read("000.tar")}
    summary = vanishes(prepare_run(local.config(limit=8)), store, first)
    assert (summary.frames, summary.left_shards) == (8, 1)
    check_frames(Output.read(local.output), ids[6:14])


def test_what_was_replaced_before_it_was_read_is_labelled_as_what_it_is(local: Place) -> None:
    put_tars(local.input, shards=1, frames=6)
    images = put(local.input, {f"loose/{n}.png": png(n) for n in range(3)})
    put(local.input, {"p.parquet": parquet([png(n) for n in range(4)])})
    run = prepare_run(local.config())
    old = {shard.id for shard in run.prepared.shards}
    new = {
        "000.tar": tar(members(range(40, 52))),
        "p.parquet": parquet([png(n) for n in range(50, 59)]),
        "loose/1.png": png(60),
    }
    put(local.input, new)
    summary = run.execute()
    assert (summary.left_shards, summary.left_images) == (2, 1)
    assert summary.left_why == {"ObjectChanged": 3}
    assert (summary.frames, summary.rejects) == (2, {})
    again = local.run()
    assert (again.left, again.frames, again.rejects) == (0, 12 + 9 + 1, {})
    output = Output.read(local.output)
    labelled = {unit.rpartition("-")[0] for unit in output.labels}
    assert len(labelled & old) == 1, "of the old ones the images that were not replaced"
    ids = [f"{images.uri('000.tar')}#{name}" for name, _ in members(range(40, 52))]
    ids += [f"{images.uri('p.parquet')}#{n}" for n in range(9)]
    check_frames(output, [*ids, *(images.uri(f"loose/{n}.png") for n in range(3))])
    assert local.run().units == 0


def test_the_command_says_what_is_left_and_ends_with_1(
    local: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_tars(local.input, shards=2, frames=6)
    store = Store(local.input)
    missing = {"001.tar": store.read("001.tar")}

    def listed_before_it_vanished(config: RunConfig, **settings: object) -> Run:
        run: Run = prepare_run(config, **settings)  # type: ignore[arg-type]
        store.delete("001.tar")
        return run

    def label() -> int:
        return command.label(local.config(), Console(file=io.StringIO()), quiet=False)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "prepare_run", listed_before_it_vanished)
        assert label() == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "6 frames in 2 units" in out
    assert "left 1 shard could not be read (missing 1): run the same command again" in out
    assert f"cannot open {store.uri('001.tar')}: there is no such object" in out
    put(local.input, missing)
    assert label() == 0
    assert "could not be read" not in capsys.readouterr().out


@pytest.fixture
def stop_when() -> Callable[[Run, Callable[[], bool]], None]:
    """Ask a run to stop once something holds, from a thread of its own."""

    def start(run: Run, holds: Callable[[], bool]) -> None:
        def wait() -> None:
            try:
                wait_until(holds, "what arrives is labelled", within_s=120)
            finally:
                run.stop("the test has seen enough")

        threading.Thread(target=wait, daemon=True).start()

    return start


def test_a_run_that_follows_labels_it_at_a_later_listing(
    local: Place, stop_when: Callable[[Run, Callable[[], bool]], None]
) -> None:
    """A tar and an image that were replaced before they were read, in one run."""
    put_tars(local.input, shards=2, frames=4)
    put(local.input, {f"loose/{n}.png": png(n) for n in range(4)})
    run = prepare_run(local.config(follow=True, poll_s=0.2))
    store = put(local.input, {"000.tar": tar(members(range(70, 74))), "loose/2.png": png(80)})

    def labelled() -> bool:
        return len(Store(local.output).list("labels/")) == 4

    stop_when(run, labelled)
    summary = run.execute()
    assert (summary.left, summary.frames, summary.rejects) == (0, 12, {})
    ids = [f"{store.uri('000.tar')}#{name}" for name, _ in members(range(70, 74))]
    ids += [f"{store.uri('001.tar')}#{name}" for name, _ in members(range(4, 8))]
    check_frames(
        Output.read(local.output), [*ids, *(store.uri(f"loose/{n}.png") for n in range(4))]
    )
