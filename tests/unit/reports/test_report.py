"""The report is one file that needs nothing else, says what the runs say, and escapes it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from label_tables import labels_table, put, truth_table
from PIL import Image

from mint_stream.output import schema
from mint_stream.reports.report import RunView, render_report, view_run, write_report
from mint_stream.store.store import Store

SEGMENTS = ("day", "night", "day again")
HOSTILE = '<script>alert("x")</script>&amp;'


class Elements(HTMLParser):
    """Every element with its attributes, and all text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes another element"

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag: str, name: str) -> list[str]:
        return [a[name] or "" for t, a in self.elements if t == tag and name in a]


def picture(wanted: pa.Table) -> Mapping[str, bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 200), (30, 90, 160)).save(buffer, "PNG")
    return {frame: buffer.getvalue() for frame in wanted["frame"].to_pylist()}


def three_runs() -> tuple[list[RunView], pa.Table]:
    """20 frames a segment: at night half are wrong; `paper` repairs some, `other` breaks some."""
    truth = ["car"] * 60
    source = ["car"] * 20 + ["bus"] * 10 + ["car"] * 30
    paper = ["car"] * 20 + ["bus"] * 4 + ["car"] * 36
    other = ["dog"] * 5 + ["car"] * 15 + ["bus"] * 10 + ["car"] * 30
    usage = pa.table(
        {"scope": ["shared"] * 8, "entry": list(range(8)), "usage": [0, 5, 0, 120, 1, 0, 0, 0]}
    )
    runs = [
        RunView(name="frozen", labels=labels_table(source, preset="frozen")),
        RunView(name="paper", labels=labels_table(paper, source), usage=usage),
        RunView(name="other", labels=labels_table(other, source), facts={"machine": "a toaster"}),
    ]
    return runs, truth_table(truth, [name for name in SEGMENTS for _ in range(20)])


def test_the_file_needs_nothing_else() -> None:
    runs, truth = three_runs()
    html = render_report(runs, truth=truth, pictures=picture)
    page = Elements(html)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "object"})
    sources = page.attributes("img", "src")
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert not [a for _, attributes in page.elements for a in attributes if a in ("href", "srcset")]
    for word in ("http:", "https:", "url(", "@import"):
        assert word not in html


def test_every_segment_and_every_run_appears_with_its_accuracy() -> None:
    runs, truth = three_runs()
    text = Elements(render_report(runs, truth=truth, title="Three runs")).text
    for part in (*SEGMENTS, "frozen", "paper", "other", "overall", "a toaster", "Three runs"):
        assert part in text
    assert "night 20 50.0 % 80.0 % +30.0 6 / 0 50.0 % ±0.0 0 / 0" in text
    assert "overall 60 83.3 % 93.3 % +10.0 6 / 0 75.0 % \N{MINUS SIGN}8.3 0 / 5" in text
    assert "p = 0.031" in text  # 6 fixed, none broken
    assert "which chance alone could explain (sign test, p = 0.06)" in text  # none, and 5
    assert "3 of 8 entries used, 126 retrievals" in text


def drifting() -> RunView:
    """Two cameras in turn; one goes from domain 0 to a new one and back, the other stays."""
    labels = labels_table(["car"] * 800, preset="realtime")
    moved = [k % 2 == 0 and 200 <= k < 500 for k in range(800)]
    columns = {
        "camera": pa.array(["north", "south"] * 400),
        "unit": pa.array([f"a-{k // 16 * 16:08}" for k in range(800)]),
        "bank_domain": pa.array([int(there) for there in moved], pa.int32()),
        "drift": pa.array([1.5 if there else 0.1 for there in moved], pa.float32()),
    }
    for name, column in columns.items():
        labels = labels.set_column(labels.column_names.index(name), name, column)
    return RunView(name="realtime", labels=labels)


def test_drift_is_drawn_for_each_camera_with_its_changes() -> None:
    page = Elements(render_report([drifting()]))
    for words in (
        "frame 201 · 2025-03-20 12:20 north 0 1 new 1.50",
        "frame 501 · 2025-03-20 17:20 north 1 0 known 0.10",
    ):
        assert words in page.text
    assert "south 0" not in page.text, "it stayed where it was"
    marks = {a["title"]: a for tag, a in page.elements if tag == "i" and "title" in a}
    assert list(marks) == [
        "frame 201 · 2025-03-20 12:20: north, domain 0 to 1",
        "frame 501 · 2025-03-20 17:20: north, domain 1 to 0",
    ]
    assert [a["class"] for a in marks.values()] == ["mark s1", "mark s1 hollow"]
    assert [a["style"] for a in marks.values()] == [
        "left: 25.06%; bottom: 75.0%",
        "left: 62.56%; bottom: 5.0%",
    ]


def test_without_domains_there_is_no_drift() -> None:
    runs, truth = three_runs()
    assert "Drift" not in Elements(render_report(runs, truth=truth)).text


def test_better_and_worse_are_told_by_more_than_colour() -> None:
    runs, truth = three_runs()
    page = Elements(render_report(runs, truth=truth, pictures=picture))
    spoken = page.attributes("span", "aria-label")
    assert {"right", "wrong"} <= set(spoken)
    assert "✓" in page.text
    assert "✕" in page.text


@pytest.mark.parametrize("known", [True, False])
def test_what_users_wrote_is_escaped(known: bool) -> None:
    labels = labels_table([HOSTILE] * 30, ["car"] * 30)
    run = RunView(name=f"run {HOSTILE}", labels=labels, facts={HOSTILE: HOSTILE})
    truth = truth_table([HOSTILE] * 30, [f"seg {HOSTILE}"] * 30) if known else None
    html = render_report([run], truth=truth, pictures=picture, title=HOSTILE)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    # Read back by a parser, the text is what the user wrote.
    page = Elements(html)
    assert HOSTILE in page.text
    assert "script" not in {tag for tag, _ in page.elements}


def test_without_truth_it_says_what_can_be_said() -> None:
    runs, _ = three_runs()
    text = Elements(render_report(runs[1:2], pictures=picture)).text
    for part in ("Labels over time", "Answers changed by adapting", "Confidence", "Entropy"):
        assert part in text
    assert "Least sure" in text
    assert "Accuracy" not in text
    assert "changed the frozen model's answer in 10.0 %" in text


def test_frozen_alone_with_truth() -> None:
    runs, truth = three_runs()
    text = Elements(render_report(runs[:1], truth=truth)).text
    assert "night 20 50.0 %" in text
    assert "Which bank entries" not in text


def test_truth_of_some_frames_and_a_run_that_is_not_finished() -> None:
    runs, truth = three_runs()
    short = RunView(name="paper", labels=runs[1].labels.slice(0, 30))
    text = Elements(render_report([runs[0], short], truth=truth.slice(10, 40))).text
    assert "day 10 100.0 % 100.0 %" in text
    assert "overall 20 50.0 % 80.0 %" in text
    longer = RunView(name="other", labels=runs[2].labels)
    text = Elements(render_report([longer, short], truth=truth)).text
    assert "day again 20 100.0 % 100.0 % ±0.0 0 / 0 - - 0 / 0" in text


@pytest.mark.parametrize("frames", [1, 2, 9, 25])
def test_a_few_frames_are_enough(frames: int) -> None:
    labels = labels_table(["car"] * frames)
    for truth in (None, truth_table(["car"] * frames, ["day"] * frames)):
        assert (
            f"frame {frames}"
            in Elements(render_report([RunView(name="r", labels=labels)], truth=truth)).text
        )


def test_an_output_without_labels_is_refused() -> None:
    empty = RunView(name="paper", labels=schema.LABELS.empty_table())
    with pytest.raises(ValueError, match="at least one label"):
        render_report([empty])


def test_runs_with_one_name_are_refused() -> None:
    runs, _ = three_runs()
    with pytest.raises(ValueError, match="names of their own"):
        render_report([runs[0], runs[0]])


def test_many_interleaved_domains_are_listed_and_not_drawn() -> None:
    labels = labels_table(["car"] * 60)
    truth = truth_table(["car"] * 60, ["left", "right"] * 30)
    page = Elements(render_report([RunView(name="paper", labels=labels)], truth=truth))
    assert "left 30 100.0 %" in page.text
    assert not [style for style in page.attributes("div", "style") if "flex" in style]


def test_a_report_of_an_output_on_a_store(tmp_path: Path) -> None:
    output, feed = str(tmp_path / "out"), tmp_path / "feed"
    feed.mkdir()
    rng = np.random.default_rng(0)
    for k in range(3):
        pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(feed / f"{k}.png")
    labels = labels_table(["car"] * 3, shard=f"{feed}#0.png..2.png")
    frames = pa.array([f"{feed}/{k}.png" for k in range(3)])
    put(output, "labels/a-00000000.parquet", labels.set_column(0, labels.schema.field(0), frames))
    Store(output).write("run.json", b'{"preset": {"name": "paper", "steps": 3}, "seed": 7}')
    run = view_run(output, facts={"machine": "a toaster"})
    assert (run.name, run.usage) == ("paper", None)
    assert (run.facts["seed"], run.facts["machine"], run.facts["rejected"]) == (
        "7",
        "a toaster",
        "0",
    )
    write_report(str(tmp_path / "out" / "report.html"), [run], input_url=str(feed))
    page = Elements((tmp_path / "out" / "report.html").read_text())
    assert len(page.attributes("img", "src")) == 3
