"""What a run says at its end, in a terminal and in a log."""

from __future__ import annotations

import dataclasses
import io
from dataclasses import replace
from typing import Any, Literal

import pytest
from label_tables import labels_table, truth_table
from rich.console import Console

from mint_stream.output.accuracy import Row, accuracy_by, with_truth
from mint_stream.pipeline.summary import RunSummary, bottleneck, print_summary
from mint_stream.reports.accuracy import print_accuracy

RUN = RunSummary(
    output="/data/[out]",
    preset="paper",
    frames=300,
    units=19,
    seconds=110.0,
    already_done=1200,
    rejects={"decode": 2, "read": 1},
    adapted=297,
    startup_s=10.0,
    stage_seconds={"views": 25.0, "encoder": 75.0, "commit": 9.0},
    bank_seq=94,
)


def printed(what: RunSummary | dict[str, list[Row]], *, terminal: bool = False) -> str:
    file = io.StringIO()
    colours: Literal["256", "auto"] = "256" if terminal else "auto"
    console = Console(file=file, width=80, force_terminal=terminal, color_system=colours)
    if isinstance(what, RunSummary):
        print_summary(what, console)
    else:
        print_accuracy(what, console)
    return file.getvalue()


def compared() -> dict[str, list[Row]]:
    source = ["car"] * 4 + ["dog"] * 4
    truth = truth_table(["car"] * 8, ["day"] * 4 + ["fog [thick]"] * 4)
    better = labels_table(["car"] * 6 + ["dog"] * 2, source)
    worse = labels_table(["car"] * 3 + ["bus"] + ["dog"] * 4, source)
    return {
        "frozen": accuracy_by(with_truth(labels_table(source), truth)),
        "paper": accuracy_by(with_truth(better, truth)),
        "realtime": accuracy_by(with_truth(worse, truth)),
    }


def test_what_was_not_read_is_said_even_if_there_was_nothing_to_do() -> None:
    assert "not read" not in printed(RUN)
    done = dataclasses.replace(
        RUN, frames=0, rejects={}, left_out="1 .zip (a.zip)", left_out_members="2 .cls (such as b)"
    )
    lines = [line.rstrip() for line in printed(done).splitlines()]
    assert "not read          1 .zip (a.zip)" in lines
    assert "not read in tars  2 .cls (such as b)" in lines


def test_rates_and_shares() -> None:
    assert RUN.frames_per_s == pytest.approx(3.0)
    assert RUN.adapted_share == pytest.approx(0.99)
    assert RUN.rejected == 3
    idle = dataclasses.replace(RUN, frames=0, adapted=0, seconds=1.0, startup_s=1.0)
    assert idle.frames_per_s == idle.adapted_share == 0.0


def test_the_summary_says_what_was_done_and_where_it_is() -> None:
    text = printed(RUN)
    for part in (
        "300 frames in 19 units, 1,200 were done before",
        "3 (decode 2, read 1)",
        "99.0 % of the frames",
        "3.0 frames/s",
        "encoder 75.0 s (75.0%), views 25.0 s (25.0%)",
        "94",
        "/data/[out]/labels/",
        "/data/[out]/rejects/",
        "/data/[out]/bank/",
    ):
        assert part in text


def test_a_run_with_nothing_to_do_says_so() -> None:
    idle = dataclasses.replace(RUN, frames=0, units=0, rejects={}, adapted=0, stage_seconds={})
    text = printed(idle)
    assert "nothing to do: all 1,200 frames were done before" in text
    assert "frames/s" not in text
    assert "rejects" not in text


def test_a_run_that_was_stopped_says_how_to_continue() -> None:
    text = printed(dataclasses.replace(RUN, stopped="interrupted"))
    assert "interrupted; run again to continue" in text


def test_a_long_path_is_not_folded() -> None:
    output = "s3://bucket/" + "/".join(["a-long-folder-name"] * 8)
    assert f"{output}/labels/" in printed(dataclasses.replace(RUN, output=output))


def test_presets_stand_side_by_side_against_frozen() -> None:
    text = printed(compared())
    cells = [line.split() for line in text.splitlines()]
    assert cells[0] == ["segment", "frames", "frozen", "paper", "+/-", "realtime", "+/-"]
    assert ["day", "4", "100.0", "100.0", "+0.0", "0/0", "75.0", "-25.0", "0/1"] in cells
    assert ["fog", "[thick]", "4", "0.0", "50.0", "+50.0", "2/0", "0.0", "+0.0", "0/0"] in cells
    assert ["overall", "8", "50.0", "75.0", "+25.0", "2/0", "37.5", "-12.5", "0/1"] in cells
    assert "fixed and broke" in text


def test_frozen_alone_is_shown_and_no_truth_prints_nothing() -> None:
    assert "100.0" in printed({"frozen": compared()["frozen"]})
    assert printed({"paper": []}) == ""


def test_there_are_colours_in_a_terminal_only() -> None:
    for what in (dataclasses.replace(RUN, stopped="interrupted"), compared()):
        assert "\x1b[" in printed(what, terminal=True)
        assert "\x1b" not in printed(what)


@pytest.mark.parametrize(
    ("stages", "labelers", "said"),
    [
        ({"encoder": 6.0, "step": 3.5, "decode": 2.0, "commit": 1.0}, 1, "labelers (95.0 % busy"),
        (
            {"encoder": 3.0, "decode": 9.0, "commit": 1.0},
            1,
            "frames, which the labelers (30.0 %",
        ),
        ({"encoder": 3.0, "decode": 1.0, "commit": 9.0}, 1, "commits (90.0 % busy)"),
        ({"encoder": 18.0, "commit": 9.0}, 2, "labelers (90.0 % busy"),
        ({"encoder": 9.0, "decode": 8.0, "commit": 1.0}, 2, "frames, which the labelers (45.0 %"),
        # The encoder looks ahead: stages add up to more than the time there was.
        ({"encoder": 7.0, "bank": 5.0, "idle": 3.0}, 1, "frames, which the labelers (70.0 %"),
        ({"encoder": 9.5, "bank": 5.0, "idle": 0.5}, 1, "labelers (95.0 %"),
    ],
)
def test_the_bottleneck_is_what_was_busy_all_the_time(
    stages: dict[str, float], labelers: int, said: str
) -> None:
    summary = RunSummary(
        output="/o",
        preset="paper",
        frames=100,
        units=10,
        seconds=14.0,
        startup_s=4.0,
        labelers=labelers,
        stage_seconds=stages,
    )
    found = bottleneck(summary)
    assert found is not None
    assert found.startswith(said)
    if stages.get("step"):
        assert "most with encoder" in found


def test_a_run_that_labelled_nothing_has_no_bottleneck() -> None:
    assert bottleneck(RunSummary(output="/o", preset="paper", frames=0, units=0, seconds=3)) is None


@pytest.mark.parametrize(
    ("stages", "changes", "said"),
    [
        # 20 s of labelling after 80 s of start-up: neither GPUs nor CPUs would have helped.
        ({"encoder": 19.0}, {"startup_s": 80.0}, "start-up (80 of 100 s)"),
        ({"encoder": 1.0, "idle": 19.0}, {"startup_s": 80.0}, "start-up (80 of 100 s)"),
        ({"encoder": 80.0}, {"startup_s": 20.0}, "labelers (100.0 %"),
        # A camera that sends little is no reason for more CPUs.
        ({"encoder": 3.0, "decode": 4.0, "idle": 87.0}, {"follow": True}, "none: labelers (3.3"),
        ({"encoder": 0.1, "idle": 1.0}, {"follow": True, "startup_s": 98.0}, "none: labelers"),
        ({"encoder": 85.0, "idle": 5.0}, {"follow": True}, "labelers (94.4 %"),
        ({"encoder": 20.0, "decode": 80.0, "idle": 70.0}, {"follow": True}, "frames"),
        ({"encoder": 9.0, "decode": 9.0, "idle": 80.0}, {}, "none: labelers (10.0 % busy) and"),
        ({"encoder": 9.0, "decode": 70.0, "idle": 80.0}, {"labelers": 2}, "frames"),
    ],
)
def test_a_run_that_mostly_started_or_waited_is_told_so(
    stages: dict[str, float], changes: dict[str, Any], said: str
) -> None:
    summary = replace(RUN, seconds=100.0, startup_s=10.0, stage_seconds=stages)
    found = bottleneck(replace(summary, **changes))
    assert found is not None
    assert found.startswith(said)
    if not said.startswith("frames"):
        assert "more CPUs" not in found
