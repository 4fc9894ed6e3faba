"""--follow: what arrives is labelled while the labelers are warm, until a stop is asked for."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from drivers import Driver, label_stream
from oracle import Output, check_bank, check_frames
from places import Place
from tiny import members, png, put, put_tars, tar

from mint_stream.config import PRESETS
from mint_stream.pipeline.control import RunControl
from mint_stream.pipeline.source import FollowConfig, _arrivals, _Listing
from mint_stream.store.store import Store


def arguments(place: Place, *more: str) -> list[str]:
    return [
        *("--input", place.input, "--output", place.output),
        *("--labels", str(place.assets.labels), "--model", str(place.assets.model)),
        *("--device", "cpu", "--dtype", "float32", "--unit-size", "4", "--preset", "paper", *more),
    ]


def follow(place: Place, *more: str) -> Driver:
    return label_stream(*arguments(place, "--follow", "--poll", "0.5", *more))


def labelled(place: Place, count: int) -> Callable[[], bool]:
    """Whether so many units are committed."""
    folder = Path(place.output) / "labels"
    return lambda: len(list(folder.glob("*.parquet"))) >= count


def test_arrivals_are_labelled_until_a_stop_is_asked_for(local: Place) -> None:
    ids = put_tars(local.input, shards=1, frames=8)
    with follow(local) as driver:
        driver.until(labelled(local, 2), "the first shard is labelled")
        ids += put_tars(local.input, shards=1, frames=8, first=1)
        driver.until(labelled(local, 4), "a tar that arrived is labelled")
        loose = put(f"{local.input}/loose", {f"{n}.png": png(n) for n in range(3)})
        ids += [loose.uri(f"{n}.png") for n in range(3)]
        driver.until(labelled(local, 5), "loose images that arrived are labelled")
        put(f"{local.input}/loose", {f"{n}.png": png(n) for n in range(3, 5)})
        ids += [loose.uri(f"{n}.png") for n in range(3, 5)]
        driver.until(labelled(local, 6), "their folder has grown")
        put(local.input, {"000.tar": tar(members(range(90, 94)))})
        driver.until(labelled(local, 7), "a shard that was replaced is refused")
        # Long enough to be cut short: what is being labelled is finished, the rest is left, though
        # most of it has been read by then.
        ids += put_tars(local.input, shards=1, frames=120, first=3)
        driver.until(labelled(local, 8), "it has begun")
        driver.interrupt(signal.SIGTERM)
        assert driver.wait() == 0, driver.err
        assert "Stopping: finishing the units in flight" in driver.err
        assert "stop requested; run again to continue" in driver.out
        assert "Traceback" not in driver.err
    output = Output.read(local.output)
    assert 8 <= len(output.labels) < 37
    assert set(output.frames) < set(ids)
    check_frames(output, output.frames)
    check_bank(output, PRESETS["paper"])
    assert [row["stage"] for row in output.reject_rows] == ["list"]
    assert not (Path(local.output) / "lease.json").exists()
    with label_stream(*arguments(local)) as driver:
        assert driver.wait() == 0, driver.err
    output = Output.read(local.output)
    check_frames(output, ids)
    check_bank(output, PRESETS["paper"])


def test_a_labeler_that_dies_while_it_waits_is_followed_by_another(local: Place) -> None:
    ids = put_tars(local.input, shards=1, frames=8)
    with follow(local) as driver:
        driver.until(labelled(local, 2), "the first shard is labelled")
        driver.kill("LabelUnits")
        ids += put_tars(local.input, shards=1, frames=8, first=1)
        driver.until(labelled(local, 4), "a tar that arrived afterwards is labelled")
        ids += put_tars(local.input, shards=1, frames=8, first=2)
        driver.until(labelled(local, 6), "and another one")
        driver.interrupt(signal.SIGTERM)
        assert driver.wait() == 0, driver.err
        assert "the labeler died: another labeler goes on" in driver.err
    output = Output.read(local.output)
    check_frames(output, ids)
    check_bank(output, PRESETS["paper"])


def test_a_second_interrupt_ends_it_at_once(local: Place) -> None:
    put_tars(local.input, shards=1, frames=200)
    with follow(local, "--unit-size", "32") as driver:
        driver.until(labelled(local, 1), "it labels")
        driver.interrupt()
        driver.until(lambda: "Stopping" in driver.err, "it says that it stops")
        driver.interrupt()
        assert driver.wait() == 130
    check = Output.read(local.output)
    check_frames(check, check.frames)


class Notes(RunControl):
    """A run's control that asks for a stop after a few polls."""

    polls_left = 3

    def stopping(self) -> bool:
        self.polls_left -= 1
        return self.polls_left < 0

    def handed_out(self) -> list[dict]:
        return list(super().handed_out())


def config(place: Place) -> FollowConfig:
    return FollowConfig(
        input=place.input,
        output=Store(place.output),
        unit_size=4,
        poll_s=1e-3,
        known=frozenset(),
    )


def test_an_object_that_grows_is_left_until_it_is_stable(place: Place) -> None:
    listing = _Listing(config(place), [])
    whole = tar(members(range(8)))
    for part in range(1, 5):
        put(place.input, {"a.tar": whole[: len(whole) * part // 4]})
        assert listing.stable() == []
    (task,) = listing.stable()
    assert [member.name for member in task.shard.members] == ["a.tar"]
    assert listing.stable() == []


def test_files_of_kinds_that_are_not_read_are_told_of_as_they_arrive(
    local: Place, caplog: pytest.LogCaptureFixture
) -> None:
    put(local.input, {"a.zip": b"x"})  # which the run's start has told of
    listing = _Listing(config(local), [])
    listing.stable()
    put(local.input, {"b.zip": b"x"})
    listing.stable()
    assert caplog.text == ""
    put(local.input, {"c.arrow": b"x"})
    listing.stable()
    listing.stable()
    assert caplog.text.count("2 .zip (such as a.zip), 1 .arrow (c.arrow)") == 1


def test_a_source_that_is_repeated_yields_the_same_again(local: Place) -> None:
    """Ray takes what the first attempt yielded as yielded, by position."""
    notes = Notes()
    put_tars(local.input, shards=1, frames=2, first=5)
    first = list(_arrivals(config(local), [], notes))
    assert len(first) == 1
    # By name this one comes first; by arrival it is the second.
    put_tars(local.input, shards=1, frames=2, first=1)
    notes.polls_left = 3
    again = list(_arrivals(config(local), [], notes))
    assert again[0] == first[0]
    assert len(again) == 2
    assert notes.handed_out() == again


def test_notes_that_were_lost_are_made_again(local: Place) -> None:
    notes = Notes()
    put_tars(local.input, shards=2, frames=2)
    arrivals = _arrivals(config(local), [], notes)
    rows = [next(arrivals)]
    notes.__init__()  # type: ignore[misc]  # started again, it has forgotten
    rows += arrivals
    assert notes.handed_out() == rows
    assert len(rows) == 2
