"""One self-contained `report.html` about one run, or about several over the same input.

    runs = [view_run("out/frozen"), view_run("out/paper")]
    write_report("out/report.html", runs, truth=read_truth("feed"), input_url="feed")

Pictures and plots are inside the file: it loads nothing and runs no script.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mint_stream.bank.checkpoint import read_bank_usage
from mint_stream.input.pictures import read_pictures
from mint_stream.output.read import read_labels, read_rejects
from mint_stream.reports.page import build_page
from mint_stream.reports.text import percent
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import Store, split_url

Pictures = Callable[[pa.Table], Mapping[str, bytes]]
"""From rows of a labels table to encoded images by frame id."""


@dataclass(frozen=True, kw_only=True)
class RunView:
    """What a report shows of one run."""

    name: str
    """Unique among the runs of a report."""
    labels: pa.Table
    """As `schema.LABELS`, in the order of the stream."""
    usage: pa.Table | None = None
    """Columns scope, entry and usage, as `schema.BANK`; None where no bank is kept."""
    rejects: pa.Table | None = None
    """As `schema.REJECTS`."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Settings and measurements for the table at the end, ready to be read."""


def view_run(output: str, *, name: str | None = None, facts: Mapping[str, str] = {}) -> RunView:
    """The run that wrote to `output`, for a report.

    `name` is by default that of its preset; `facts` are added to those that the output tells.
    Raises `StorageError` where the output cannot be read.
    """
    labels, rejects = read_labels(output), read_rejects(output)
    settings = _settings(Store(output))
    preset = labels["preset"][0].as_py() if labels.num_rows else None
    usage = read_bank_usage(output)
    return RunView(
        name=name or preset or "run",
        labels=labels,
        usage=usage if usage.num_rows else None,
        rejects=rejects,
        facts={**_facts(labels, rejects, settings), **facts},
    )


def write_report(
    path: str,
    runs: Sequence[RunView],
    *,
    truth: pa.Table | None = None,
    input_url: str | None = None,
    pictures: Pictures | None = None,
    title: str | None = None,
) -> None:
    """Write the report of `runs` as the object `path` (a file, or any fsspec URL).

    Args:
        truth: from `read_truth`; without one the report shows what can be said without.
        input_url: where to read the sample pictures again; none are shown without it.
        pictures: where they come from instead.
        title: the heading.

    Raises `ValueError` if no run has a label or two have one name, `StorageError` as the stores
    do.
    """
    if pictures is None and input_url is not None:
        pictures = functools.partial(read_pictures, input_url)
    folder, name = split_url(path)
    html = render_report(runs, truth=truth, pictures=pictures, title=title)
    Store(folder or ".").write(name, html.encode())


def render_report(
    runs: Sequence[RunView],
    *,
    truth: pa.Table | None = None,
    pictures: Pictures | None = None,
    title: str | None = None,
) -> str:
    """The report as HTML. See `write_report`."""
    shown = [run for run in runs if run.labels.num_rows]
    if not shown:
        raise ValueError("a report needs at least one run with at least one label")
    names = [run.name for run in shown]
    if len(set(names)) < len(names):
        raise ValueError(f"the runs of a report need names of their own; they are {names}")
    page = build_page(shown, truth=truth, pictures=pictures or (lambda wanted: {}), title=title)
    return fill_template("report.html", page=page)


def fill_template(name: str, *, package: str = "mint_stream.reports", **values: Any) -> str:
    """A template of `package`, which may build on the reports' own, as HTML."""
    # Labels and names come from users: everything is escaped unless the template says otherwise.
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(home) for home in (package, "mint_stream.reports")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**values)


def _settings(store: Store) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = json.loads(store.read("run.json"))
    except ObjectMissing:
        return {}
    return settings


_SHOWN_SETTINGS = {
    "views": "views",
    "bank_size": "bank entries",
    "retrieved": "retrieved for each query",
    "steps": "steps",
    "learning_rate": "learning rate",
    "weight_decay": "weight decay",
}


def _facts(labels: pa.Table, rejects: pa.Table, settings: dict[str, Any]) -> dict[str, str]:
    method: dict[str, Any] = settings.get("preset", {})
    facts = {"preset": str(method.get("name", labels["preset"][0] if labels.num_rows else "-"))}
    if method.get("steps"):
        facts["method"] = ", ".join(
            f"{words} {method[name]}" for name, words in _SHOWN_SETTINGS.items() if name in method
        )
    if "model" in settings:
        weights = f", {settings['weights']}" if settings.get("weights") else ""
        # Of a folder the last two parts: where it lies on one machine helps nobody else.
        facts["model"] = "/".join(Path(settings["model"]).parts[-2:]) + weights
    if "classes" in settings:
        facts["classes"] = f"{len(settings['classes']):,}"
    if "seed" in settings:
        facts["seed"] = str(settings["seed"])
    facts["frames labelled"] = f"{labels.num_rows:,}"
    if labels.num_rows:
        facts["adapted answers"] = percent(pc.mean(labels["adapted"].cast(pa.float32())).as_py())
    if labels["label"].null_count:
        share = percent(labels["label"].null_count / labels.num_rows)
        facts["without a label"] = f"{labels['label'].null_count:,} ({share})"
    states = Counter(state for state in labels["guard"].to_pylist() if state not in (None, "off"))
    if states:
        facts["guard"] = ", ".join(f"{state} {count:,}" for state, count in states.items())
    stages = rejects.group_by("stage").aggregate([("stage", "count")]).to_pylist()
    by_stage = ", ".join(f"{row['stage']} {row['stage_count']:,}" for row in stages)
    facts["rejected"] = f"{rejects.num_rows:,}" + (f" ({by_stage})" if by_stage else "")
    rate = labelling_rate(labels)
    facts["frames a second"] = f"{rate:.1f}" if rate else "-"
    return facts


def labelling_rate(labels: pa.Table) -> float:
    """Frames labelled a second, the median over units; 0 where fewer than two units tell.

    Taken from `labelled_at`, so that pauses between runs do not count.
    """
    stamped = labels.filter(pc.is_valid(labels["labelled_at"]))
    units = stamped.group_by("unit").aggregate([("labelled_at", "max"), ("frame", "count")])
    units = units.sort_by("labelled_at_max")
    ends_us = units["labelled_at_max"].cast(pa.int64()).to_numpy()
    spans_s = np.diff(ends_us) / 1e6
    frames = units["frame_count"].to_numpy()[1:]
    rates = frames[spans_s > 0] / spans_s[spans_s > 0]
    return float(np.median(rates)) if len(rates) else 0.0
