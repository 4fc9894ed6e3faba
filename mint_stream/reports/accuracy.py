"""Accuracy by segment, in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mint_stream.output.accuracy import Row
from mint_stream.reports.text import FROZEN, percent, points


def print_accuracy(tables: Mapping[str, Sequence[Row]], console: Console) -> None:
    """Accuracy by segment, the presets side by side, each held against frozen CLIP.

    `tables` is for each preset what `accuracy_by` gives. Nothing is printed without rows.
    """
    shown = adapting(tables)
    if not any(shown.values()):
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, highlight=False)
    table.add_column("segment", overflow="fold")
    for heading in ("frames", FROZEN):
        table.add_column(heading, justify="right")
    for name in shown:
        table.add_column(Text(name), justify="right")
        table.add_column("+/-", justify="right")
    for row in next(iter(shown.values())):
        cells = [Text(row.name), Text(str(row.frames)), Text(percent(row.source_accuracy)[:-2])]
        for rows in shown.values():
            cells.extend(_answers(next((r for r in rows if r.name == row.name), None)))
        table.add_row(*cells, style="bold" if row.overall else None)
    console.print(table)
    legend = (
        "Accuracy in %, with its difference to frozen CLIP in points; "
        "+/-: frames that adapting fixed and broke."
    )
    console.print(Text(legend, style="dim"))


def adapting(tables: Mapping[str, Sequence[Row]]) -> dict[str, Sequence[Row]]:
    """The presets to show beside frozen CLIP: all but frozen itself, unless it is alone.

    Every row carries the frozen model's accuracy on the same frames, so that its own run adds
    nothing to the comparison.
    """
    others = {name: rows for name, rows in tables.items() if name != FROZEN}
    return others or dict(tables)


def _answers(row: Row | None) -> list[Text]:
    if row is None:
        return [Text("-"), Text("-")]
    gain = row.accuracy - row.source_accuracy
    # Blue and yellow: told apart by colour-blind eyes too; the sign says the same without colour.
    style = "bright_blue" if gain > 0 else "yellow" if gain < 0 else ""
    return [
        Text(f"{percent(row.accuracy)[:-2]} ").append(f"{points(gain):>5}", style=style),
        Text(f"{row.fixed}/{row.broken}"),
    ]
