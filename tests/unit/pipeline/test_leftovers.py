"""What is left for the next run: not done, told of, and tried again by a source that follows."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console
from tiny import members, png, put, tar

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Left
from mint_stream.input.grid import unit_id
from mint_stream.input.shard import Shard
from mint_stream.input.shards import count_frames
from mint_stream.input.units import LeftBehind, ShardTask
from mint_stream.output.done import Done
from mint_stream.output.names import labels_name, shard_end_name
from mint_stream.pipeline.leftovers import MOST_UNREACHABLE, Leftovers
from mint_stream.pipeline.plan import REPLACED, plan
from mint_stream.pipeline.source import FollowConfig, _Listing
from mint_stream.pipeline.summary import RunFailed, RunSummary, left_text, print_summary
from mint_stream.store.errors import ObjectMissing, StorageError, StoreUnreachable
from mint_stream.store.store import Store

ADDRESS = "/in/a.tar"
SHARD = Shard(ADDRESS, "0" * 12 + "1" * 8, "tar", "/in", ())


def left(
    shard: Shard = SHARD, error: StorageError | None = None, frame: str | None = None
) -> LeftBehind:
    error = error or ObjectMissing("it is gone")
    return LeftBehind.of(shard, Left(frame, shard.uri, None, 0, error))


def never(shard: Shard, error: StorageError) -> None:
    raise AssertionError(f"{shard.uri}: {error}")


def test_a_limit_does_not_count_what_cannot_be_read(root: str) -> None:
    store = put(root, {f"{n}.tar": tar(members(range(6))) for n in range(3)})
    shards = discover(root, unit_size=4)
    store.delete("0.tar")
    missing: list[Shard] = []
    rows = plan(shards, Done(4), count_frames, 8, leave=lambda shard, _: missing.append(shard))
    assert missing == [shards[0]]
    assert [(task.shard.uri, task.stop) for task in rows] == [
        (shards[1].uri, None),
        (shards[2].uri, 2),
    ]


def test_images_that_were_left_are_not_refused_for_the_name_of_the_group_that_they_were_in(
    root: str,
) -> None:
    """Of a..d the ends were missing: they are a group that is called a..d as well."""
    store = put(root, {f"{name}.png": png(1) for name in "abcd"})
    (whole,) = discover(root, unit_size=4)
    done = Done(4, labels=[labels_name(unit_id(whole.id, 1))], partial=[], frames_of=lambda _: 2)
    taken = {store.uri("b.png"), store.uri("c.png")}
    ends = discover(root, unit_size=4, taken=taken)
    assert [shard.uri for shard in ends] == [whole.uri]
    (row,) = plan(ends, done, count_frames, None, leave=never)
    assert row.refused is None


def test_what_is_left_is_told_once_and_what_was_committed_since_no_more(root: str) -> None:
    other = replace(SHARD, id="2" * 12 + "1" * 8, uri="/in/b.tar")
    leftovers = Leftovers()
    leftovers.add([left(), left(other)])
    leftovers.add([left()])
    assert (leftovers.shards, leftovers.images) == (2, 0)
    assert leftovers.reasons == {"ObjectMissing": 2}
    # Another version of the first one was read to its end meanwhile.
    version = SHARD.id[:12] + "3" * 8
    put(root, {labels_name(unit_id(version, 0)): b"", shard_end_name(version, 4): b""})
    leftovers.settle(Store(root), 4)
    assert list(leftovers.what) == ["/in/b.tar"]


def test_a_store_that_stays_out_of_reach_ends_the_run_and_one_that_comes_back_does_not() -> None:
    leftovers = Leftovers()
    gone = left(error=StoreUnreachable("cannot read it: no route. What was committed is intact"))
    for _ in range(MOST_UNREACHABLE):
        leftovers.add([gone])
        leftovers.committed()
    for _ in range(MOST_UNREACHABLE - 1):
        leftovers.add([gone])
    for _ in range(100):
        leftovers.add([left()])  # which costs no waiting
    with pytest.raises(RunFailed, match=r"3 shards in a row could not be read: cannot read it"):
        leftovers.add([gone])


def test_the_summary_says_how_many_why_and_what_to_do() -> None:
    leftovers = Leftovers()
    group = replace(SHARD, kind="images", uri="/in#a.png..b.png")
    leftovers.add([left(), left(group, frame="/in/a.png"), left(group, frame="/in/b.png")])
    leftovers.add([left(replace(SHARD, uri="/in/c.tar"), StorageError("may not"))])
    summary = RunSummary(
        output="/out",
        preset="frozen",
        frames=0,
        units=0,
        seconds=1.0,
        left_shards=leftovers.shards,
        left_images=leftovers.images,
        left_why=leftovers.reasons,
        left_example=leftovers.example,
    )
    assert summary.left == 4
    assert left_text(summary) == (
        "2 shards and 2 images could not be read (missing 3, refused 1): run the same command "
        "again, which labels what is there by then"
    )
    console = Console(file=io.StringIO(), width=30)
    print_summary(summary, console)
    assert "such as   it is gone\n" in console.file.getvalue()  # type: ignore[attr-defined]


def listing(root: str, output: str) -> _Listing:
    follow = FollowConfig(
        input=root, output=Store(output), unit_size=4, poll_s=1e-3, known=frozenset()
    )
    return _Listing(follow, [])


def looks(source: _Listing, left_rows: list[LeftBehind]) -> tuple[int, ShardTask]:
    """How many looks it takes until something is handed out, and what."""
    for look in range(1, 200):
        for row in source.stable(left_rows):
            return look, row
    raise AssertionError("nothing was handed out")


@pytest.fixture
def outputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("out"))


def test_a_source_that_follows_hands_out_again_what_could_not_be_had(
    root: str, outputs: str
) -> None:
    put(root, {"a.tar": tar(members(range(8)))})
    source = listing(root, outputs)
    _, row = looks(source, [])
    shard = row.shard
    assert [source.stable([]) for _ in range(3)] == [[], [], []]
    put(outputs, {labels_name(unit_id(shard.id, 0)): b""})
    noted = [left(shard)]
    waits = []
    for _ in range(4):
        look, again = looks(source, noted)
        waits.append(look)
        assert again.shard == shard
        assert again.frames_from == {0: 4}, "what is committed of it is not handed out again"
        noted.append(left(shard))
    assert waits == sorted(waits), "ever less often"
    assert len(set(waits)) > 2


def test_a_source_that_follows_takes_the_new_version_of_what_was_replaced_before_it_was_read(
    root: str, outputs: str
) -> None:
    store = put(root, {"a.tar": tar(members(range(8)))})
    source = listing(root, outputs)
    _, row = looks(source, [])
    old = row.shard
    store.write("a.tar", tar(members(range(20, 24))))
    assert [source.stable([]) for _ in range(4)] == [[]] * 4, "the old one may be being read"
    _, again = looks(source, [left(old)])
    assert again.shard.id != old.id
    assert (again.refused, again.frames_from) == (None, {})


def test_a_source_that_follows_refuses_the_new_version_of_what_was_labelled_in_part(
    root: str, outputs: str
) -> None:
    store = put(root, {"a.tar": tar(members(range(8)))})
    source = listing(root, outputs)
    _, row = looks(source, [])
    old = row.shard
    put(outputs, {labels_name(unit_id(old.id, 0)): b""})
    store.write("a.tar", tar(members(range(20, 24))))
    _, again = looks(source, [left(old)])
    assert again.refused == REPLACED


def test_a_source_that_follows_hands_out_loose_images_again(root: str, outputs: str) -> None:
    store = put(root, {f"{name}.png": png(1) for name in "abcd"})
    source = listing(root, outputs)
    _, row = looks(source, [])
    group = row.shard
    noted = [left(group, frame=store.uri(f"{name}.png")) for name in "ad"]
    _, again = looks(source, noted)
    members_again = again.shard.members
    assert [member.name for member in members_again] == ["a.png", "d.png"]
    assert again.refused is None
