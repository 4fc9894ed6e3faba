"""What people made of the frames that were exported for review: truth for an evaluation.

Read from what the tools write: Label Studio's JSON, JSON-MIN and CSV exports, FiftyOne's
labels.json with its attributes, COCO-style JSON, and the CSV of `export` with its column `truth`
filled in.
"""

from __future__ import annotations

import difflib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.config import ConfigError
from mint_stream.output.cells import unescape_cell
from mint_stream.output.read import read_labels
from mint_stream.output.settings import read_settings
from mint_stream.store.store import Store, split_url
from mint_stream.upkeep.export import CHOICE
from mint_stream.upkeep.review_text import decoded, table_rows

TRUTH = pa.schema([("frame", pa.string()), ("label", pa.string())])

Answer = tuple[str, str]
"""Frame id and label."""
_MOST_SHOWN = 5


def import_review(file: str, to: str, output: str) -> pa.Table:
    """Write the answers in `file` as the Parquet file `to`, columns frame and label; gives them.

    output: where the frames were exported from. Frames that nobody answered are left out. Raises
    `ConfigError` for a file of another form, for two answers to one frame, and where an answer is
    to a frame or by a class that the output does not have; `StorageError` as the stores do.
    """
    classes = read_settings(Store(output)).get("classes")
    if not classes:
        raise ConfigError(f"{output} has no run.json with classes: it is no output")
    folder, name = split_url(file)
    found = list(read_answers(Store(folder or ".").read(name), file))
    answers = matched(found, set(read_labels(output)["frame"].to_pylist()), classes, file, output)
    table = pa.table([list(answers), list(answers.values())], schema=TRUTH)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    folder, name = split_url(to)
    Store(folder or ".").write(name, sink.getvalue())
    return table


def matched(
    found: Sequence[Answer],
    frames: Collection[str],
    classes: Sequence[str],
    file: str,
    output: str,
) -> dict[str, str]:
    """The classes by frame id. Raises `ConfigError` unless all are those of the output."""
    strange = [frame for frame, _ in found if frame not in frames]
    if strange:
        raise ConfigError(
            f"{len(strange):,} of the {len(found):,} answers in {file} are to frames that "
            f"{output} does not have, such as {strange[0]!r}: name the output that they were "
            'exported from; if a spreadsheet changed the ids, export again and save as "CSV UTF-8"'
        )
    by_name = {**{name.casefold(): name for name in classes}, **{name: name for name in classes}}
    named = {label: by_name.get(label, by_name.get(label.casefold())) for _, label in found}
    unknown = Counter(label for _, label in found if named[label] is None)
    if unknown:
        shown = [_with_nearest(label, n, classes) for label, n in unknown.most_common(_MOST_SHOWN)]
        more = f", and {len(unknown) - _MOST_SHOWN} more" if len(unknown) > _MOST_SHOWN else ""
        raise ConfigError(
            f"{file} has answers that are no class of {output}: {', '.join(shown)}{more}; "
            "correct them, or leave the answer empty"
        )
    answers = dict[str, str]()
    for frame, label in found:
        if answers.setdefault(frame, str(named[label])) != named[label]:
            raise ConfigError(
                f"{file} says both {answers[frame]!r} and {named[label]!r} of {frame}: keep one"
            )
    return answers


def _with_nearest(label: str, count: int, classes: Sequence[str]) -> str:
    by_case = {name.casefold(): name for name in classes}
    near = difflib.get_close_matches(label.casefold(), list(by_case), 1, 0.6)
    nearest = f", nearest {by_case[near[0]]!r}" if near else ""
    return f"{label!r} ({count:,} answers{nearest})"


def read_answers(data: bytes, file: str) -> Iterator[Answer]:
    """The answers in what one of the tools wrote. Raises `ConfigError` for anything else."""
    text = decoded(data, file)
    if not text.lstrip().startswith(("[", "{")):
        yield from _from_csv(text, file)
        return
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file} is not JSON ({error})") from error
    try:
        if isinstance(value, list):
            for task in value:
                yield from _from_task(task)
        elif "annotations" in value:
            yield from _from_coco(value)
        else:
            yield from _from_fiftyone(value)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ConfigError(
            f"{file} is no export of Label Studio, FiftyOne or COCO that mint_stream can read "
            f"({type(error).__name__}: {error})"
        ) from error


def _from_task(task: dict[str, Any]) -> Iterator[Answer]:
    """Label Studio: the ground truth if one is marked, else the last annotation."""
    if "data" not in task:  # JSON-MIN
        if choice := task.get(CHOICE):
            yield task["frame"], choice["choices"][0] if isinstance(choice, dict) else choice
        return
    done = [a for a in task.get("annotations", []) if not a.get("was_cancelled")]
    marked = [a for a in done if a.get("ground_truth")]
    for annotation in (marked or done)[-1:]:
        for result in annotation["result"]:
            if result["from_name"] == CHOICE and result["type"] == "choices":
                yield task["data"]["frame"], result["value"]["choices"][0]


def _from_fiftyone(value: dict[str, Any]) -> Iterator[Answer]:
    classes: list[str] = value.get("classes") or []
    for name, answer in value["labels"].items():
        if answer is None:
            continue
        if not isinstance(answer, dict) or "frame" not in answer.get("attributes", {}):
            raise KeyError(f"{name} has no attribute frame: export with include_attributes=True")
        label = answer["label"]
        yield answer["attributes"]["frame"], classes[label] if isinstance(label, int) else label


def _from_coco(value: dict[str, Any]) -> Iterator[Answer]:
    names = {category["id"]: category["name"] for category in value["categories"]}
    frames = {image["id"]: image.get("frame") or image["file_name"] for image in value["images"]}
    for annotation in value["annotations"]:
        yield frames[annotation["image_id"]], names[annotation["category_id"]]


def _from_csv(text: str, file: str) -> Iterator[Answer]:
    for line, row in table_rows(text, file):
        # In a CSV of Label Studio the answer has the name of its control tag.
        column = "truth" if "truth" in row else CHOICE
        if column not in row:
            raise ConfigError(
                f"{file}, line {line} has the columns {', '.join(row):.200}; it must have frame, "
                "and truth"
            )
        if label := unescape_cell(row[column].strip()):
            yield unescape_cell(row["frame"]), label
