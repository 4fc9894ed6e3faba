"""The contents of an output, verdicts and differences as people read them in a terminal."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mint_stream.evaluation.calibrate import Tested
from mint_stream.labeler.abstention import Calibration
from mint_stream.reports.text import percent
from mint_stream.upkeep.compare import EXAMPLES, Diff
from mint_stream.upkeep.contents import Contents
from mint_stream.upkeep.verify.verify import Verdict

NO_LABEL = "(no label)"
_MOST_CAMERAS = 6
_MOST_ROWS = 30
_MOST_FINDINGS = 100


def print_contents(contents: Contents, console: Console) -> None:
    """`inspect`: facts, labels by class and camera, rejects by reason, bank checkpoints."""
    c = contents
    facts = {
        "output": c.output,
        "objects": f"{c.objects:,} with {c.size_bytes / 1e6:,.1f} MB",
        "frames": f"{c.labelled:,} labelled, {c.rejected:,} rejected, in {c.units:,} units of "
        f"{c.shards:,} shards",
        "labelled": f"{c.first_labelled_at} to {c.last_labelled_at}" if c.labelled else "-",
        "adapted": f"{percent(c.adapted_share)} of the labels; {percent(c.changed_share)} "
        f"({c.changed:,}) differ from the frozen answer",
        **_doubts(c),
        "compacted": f"generation {c.generation}, {c.compacted:,} of {c.units:,} units"
        + (", the record of them" if c.record else "")
        if c.generation
        else "no",
        **_settings(c),
    }
    _print_facts(facts, console)
    if c.labels:
        _print_labels(c, console)
    if c.rejects:
        table = _table("stage", "error", "rejects")
        for reject in c.rejects:
            table.add_row(Text(reject.stage), Text(reject.error_type), f"{reject.frames:,}")
        console.print(table)
    if c.checkpoints:
        table = _table("checkpoint", "sha256", "seq", "banks")
        for about in c.checkpoints:
            back = about.rolled_back_to
            seq = f"{about.seq:,}" + ("" if back is None else f" (rolled back to {back:,})")
            table.add_row(str(about.number), about.sha256[:16], seq, str(len(about.scopes)))
        console.print(table)
        console.print(f"{c.log_objects:,} bank log objects", highlight=False)


def print_verdict(verdict: Verdict, console: Console) -> None:
    """`verify`: a line for each finding, then what was looked at."""
    for finding in verdict.findings[:_MOST_FINDINGS]:
        line = Text("found  ", style="bold yellow").append(str(finding), style="not bold default")
        console.print(line, soft_wrap=True)
    if len(verdict.findings) > _MOST_FINDINGS:
        console.print(f"and {len(verdict.findings) - _MOST_FINDINGS:,} more: see --json")
    for note in verdict.notes:
        console.print(Text("note   ", style="dim").append(note), soft_wrap=True)
    counts = ", ".join(f"{n:,} {what}" for what, n in verdict.checked.items())
    count = len(verdict.findings)
    end = "clean" if verdict.clean else "1 finding" if count == 1 else f"{count:,} findings"
    console.print(Text(f"{end}: looked at {counts}"), soft_wrap=True)


def print_diff(diff: Diff, console: Console) -> None:
    """`diff`: what differs, with examples."""
    facts = {
        "a": diff.a,
        "b": diff.b,
        "frames": f"{diff.both:,} labelled in both; only in a {len(diff.only_a):,}, "
        f"only in b {len(diff.only_b):,}",
        "rejected": f"labelled in a and rejected in b {len(diff.rejected_in_b):,}, "
        f"the other way round {len(diff.rejected_in_a):,}",
        "labels": f"{diff.labels:,} differ"
        + (f" ({percent(diff.labels / diff.both)})" if diff.both else "")
        + f"; confidence in the same label by up to {diff.confidence:.2g}",
        "frozen": f"{diff.source_labels:,} frozen answers differ",
        "bank": _bank_text(diff),
    }
    _print_facts(facts, console)
    if diff.settings:
        table = _table("setting", "a", "b")
        for name, a, b in diff.settings:
            table.add_row(Text(name), Text(str(a)), Text(str(b)))
        console.print(table)
    if diff.by_label:
        table = _table("label in a", "label in b", "frames")
        for a_label, b_label, frames in diff.by_label[:_MOST_ROWS]:
            names = (Text(label or NO_LABEL) for label in (a_label, b_label))
            table.add_row(*names, f"{frames:,}")
        console.print(table)
        table = _table("camera", "frames")
        for camera, frames in diff.by_camera[:_MOST_ROWS]:
            table.add_row(Text(camera or "-"), f"{frames:,}")
        console.print(table)
        for c in diff.examples:
            a, b = c.a or NO_LABEL, c.b or NO_LABEL
            answers = f"{a} {percent(c.confidence_a)} -> {b} {percent(c.confidence_b)}"
            console.print(Text(f"{answers}  {c.frame}"), soft_wrap=True)
    for name, only in (("a", diff.only_a), ("b", diff.only_b)):
        for frame in only[:EXAMPLES]:
            console.print(Text(f"only in {name}: {frame}"), soft_wrap=True)
    console.print("the same" if diff.same else "they differ")


def print_calibration(calibration: Calibration, tested: Tested, to: str, console: Console) -> None:
    """`calibrate`: what was fitted, and how good it is on frames that it was not fitted on."""
    t = tested
    facts = {
        "frames": f"{t.frames:,} with a truth, {percent(t.accuracy)} labelled right",
        "temperature": f"{calibration.temperature:.3f}",
        "ECE": f"{percent(t.ece_before)} before, {percent(t.ece_after)} after",
        "labelled": f"{percent(t.coverage)} of the frames, {percent(t.precision)} of them right",
        "file": to,
    }
    _print_facts(facts, console)
    table = _table("class", "least calibrated confidence")
    for name, least in [*calibration.thresholds.items(), ("any other", calibration.otherwise)]:
        table.add_row(Text(name), "no label" if least is None else f"{least:.3f}")
    console.print(table)
    note = "ECE and labelled: each half of the stream by what was fitted on the other half."
    console.print(Text(note, style="dim"))


def _bank_text(diff: Diff) -> str:
    bank = diff.bank
    if bank.seq_a is None and bank.seq_b is None:
        return "none in either"
    if bank.same:
        return f"bit-identical at seq {bank.seq_a:,}"
    a, b = ("none" if seq is None else f"seq {seq:,}" for seq in (bank.seq_a, bank.seq_b))
    text = f"{a} in a, {b} in b"
    rows = ", ".join(f"{n:,} entries of {scope}" for scope, n in bank.entries.items())
    return f"{text}; {rows} differ" if rows else text


def _doubts(c: Contents) -> dict[str, str]:
    found = {}
    if c.left_out:
        found["not read"] = c.left_out
    if c.left_out_members:
        found["not read in tars"] = c.left_out_members
    if c.unlabelled:
        share = percent(c.unlabelled / c.labelled)
        found["no label"] = f"{c.unlabelled:,} frames ({share}), since none was sure enough"
    if c.suspect:
        found["suspect"] = (
            f"{c.suspect:,} frames were adapted to shortly before the guard refused their domain: "
            "label_stream.py --relabel-suspect labels their units again"
        )
    if c.relabelled:
        found["relabelled"] = f"{c.relabelled:,} frames"
    return found


def _settings(c: Contents) -> dict[str, str]:
    values = c.settings
    if not values:
        return {"settings": "no run.json"}
    return {
        "preset": str(values.get("preset", {}).get("name")),
        # Of a folder the last two parts: where it lies on one machine helps nobody else.
        "model": f"{'/'.join(Path(str(values.get('model'))).parts[-2:])} "
        f"({values.get('weights') or 'own weights'}), hash "
        f"{values.get('model_hash')}",
        "classes": f"{len(values.get('classes', []))}, hash {values.get('classes_hash')}",
        "bank": f"{values.get('bank_scope')}, seed {values.get('seed')}",
        "unit size": str(values.get("unit_size")),
    }


def _print_labels(c: Contents, console: Console) -> None:
    by_camera: Counter[str] = Counter()
    by_label: Counter[str] = Counter()
    cells: Counter[tuple[str, str]] = Counter()
    for count in c.labels:
        camera = count.camera or "-"
        by_camera[camera] += count.frames
        label = count.label or NO_LABEL
        by_label[label] += count.frames
        cells[label, camera] += count.frames
    shown = [camera for camera, _ in by_camera.most_common(_MOST_CAMERAS)]
    rest = len(by_camera) - len(shown)
    headings = ["label", "frames", *shown] if by_camera.keys() != {"-"} else ["label", "frames"]
    table = _table(*headings, *([f"{rest} more"] if rest else []))
    for label, frames in by_label.most_common(_MOST_ROWS):
        row = [Text(label), Text(f"{frames:,}")]
        row += [Text(f"{cells[label, camera]:,}") for camera in headings[2:]]
        if rest:
            row.append(Text(f"{frames - sum(cells[label, camera] for camera in shown):,}"))
        table.add_row(*row)
    console.print(table)
    if len(by_label) > _MOST_ROWS:
        console.print(f"and {len(by_label) - _MOST_ROWS:,} more classes: see --json")


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, highlight=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(Text(heading), justify="right", overflow="fold")
    return table


def _print_facts(facts: dict[str, str], console: Console) -> None:
    width = max(len(name) for name in facts) + 2
    for name, text in facts.items():
        line = Text(f"{name:<{width}}", style="bold").append(text, style="not bold")
        # Soft: an address that is folded cannot be copied.
        console.print(line, soft_wrap=True, highlight=False)
