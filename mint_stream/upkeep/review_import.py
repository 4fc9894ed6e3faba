"""What people made of the frames that were exported for review: truth for an evaluation.

Read from what the tools write: Label Studio's JSON, JSON-MIN and CSV exports, FiftyOne's
labels.json with its attributes, COCO-style JSON, and the CSV of `export` with its column `truth`
filled in.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.config import ConfigError
from mint_stream.store.store import Store, split_url
from mint_stream.upkeep.export import CHOICE

TRUTH = pa.schema([("frame", pa.string()), ("label", pa.string())])

Answer = tuple[str, str]
"""Frame id and label."""


def import_review(file: str, to: str) -> pa.Table:
    """Write the answers in `file` as the Parquet file `to`, columns frame and label; gives them.

    Frames that nobody answered are left out. Raises `ConfigError` for a file of another form or
    with two answers to one frame, `StorageError` as the stores do.
    """
    folder, name = split_url(file)
    answers = dict[str, str]()
    for frame, label in read_answers(Store(folder or ".").read(name), file):
        if answers.setdefault(frame, label) != label:
            raise ConfigError(
                f"{file} says both {answers[frame]!r} and {label!r} of {frame}: keep one of them"
            )
    table = pa.table([list(answers), list(answers.values())], schema=TRUTH)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    folder, name = split_url(to)
    Store(folder or ".").write(name, sink.getvalue())
    return table


def read_answers(data: bytes, file: str) -> Iterator[Answer]:
    """The answers in what one of the tools wrote. Raises `ConfigError` for anything else."""
    text = data.decode("utf-8-sig", "replace").strip()
    if not text.startswith(("[", "{")):
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
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or []
    # In a CSV of Label Studio the answer has the name of its control tag.
    column = "truth" if "truth" in columns else CHOICE
    if "frame" not in columns or column not in columns:
        raise ConfigError(f"{file} has the columns {columns}; it must have frame, and truth")
    for row in rows:
        if (row[column] or "").strip():
            yield row["frame"], row[column].strip()
