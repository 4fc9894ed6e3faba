"""Frames for review, in the formats of the tools that people review with.

    label-studio    tasks with predictions, and the labeling configuration beside them
    fiftyone        a folder of type FiftyOneImageClassificationDataset
    coco            images, categories, and one annotation a frame that spans the image
    csv             a table with an empty column `truth`

Every format carries the frame id, by which `review_import` finds the frame again.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from mint_stream.config import ConfigError
from mint_stream.output.cells import escape_cell
from mint_stream.store.store import Store, split_url

Format = Literal["label-studio", "fiftyone", "coco", "csv"]

CHOICE = "label"
"""Name of the control tag in Label Studio, and so of the answer in its results."""
_MOST_PIXELS = 1024
"""Longer side of a picture that is embedded; larger ones are reduced."""

_URL_FIELDS = ("frame", "shard", "member", "camera")

Pictures = Mapping[str, bytes]
"""Encoded images by frame id."""


def export(
    rows: pa.Table,
    to: str,
    kind: Format,
    *,
    classes: list[str],
    pictures: Pictures | None = None,
    image_url: str | None = None,
) -> list[str]:
    """Write `rows` of a labels table for review; gives the names of what was written.

    Args:
        to: a file, or for fiftyone a folder; local or any fsspec URL.
        classes: the labels that there are.
        pictures: encoded images; in Label Studio they are embedded, in FiftyOne copied.
        image_url: where the tool finds an image instead: a template with {frame}, {shard},
            {member} and {camera}. Without either, the frame id of a loose image.

    Raises `ConfigError` where the tool would not find an image, `StorageError` as the store does.
    """
    records = rows.to_pylist()
    for record in records:
        record["timestamp"] = record["timestamp"] and record["timestamp"].isoformat()
        # What a person looks at: where there is no label, what it would be.
        record["answer"] = record["label"] or record["topk_labels"][0]
    if kind == "fiftyone":
        return _write_fiftyone(records, to, classes, pictures)
    folder, name = split_url(to)
    files: dict[str, str] = {}
    if kind == "label-studio":
        find = _image_finder(pictures, image_url)
        files[name] = _json([label_studio_task(record, find(record)) for record in records])
        files[f"{name}.config.xml"] = label_studio_config(classes)
    elif kind == "coco":
        files[name] = _json(coco(records, classes, image_url))
    else:
        files[name] = csv_text(records)
    store = Store(folder or ".")
    for written, text in files.items():
        store.write(written, text.encode())
    return [store.uri(written) for written in files]


def label_studio_config(classes: list[str]) -> str:
    """The labeling configuration that the tasks fit."""
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View>\n  <Image name="image" value="$image"/>\n'
        f'  <Choices name="{CHOICE}" toName="image" choice="single" required="true">\n'
        f"{choices}\n  </Choices>\n</View>\n"
    )


def label_studio_task(record: dict[str, Any], image: str) -> dict[str, Any]:
    """One task: the answer that stands as a prediction, and the frozen model's where it differs."""
    answers = [(record["preset"], record["answer"], record["confidence"])]
    if record["answer"] != record["source_label"]:
        answers.append(("frozen", record["source_label"], record["source_confidence"]))
    facts = {name: record[name] for name in ("frame", "camera", "timestamp")}
    # Not under the name of the control tag, where flat exports have the person's answer.
    facts |= {"predicted": record["answer"], "frozen": record["source_label"]}
    return {
        "data": {"image": image, **facts},
        "predictions": [
            {
                "model_version": version,
                "score": score,
                "result": [
                    {
                        "id": f"{version}-answer",
                        "from_name": CHOICE,
                        "to_name": "image",
                        "type": "choices",
                        "value": {"choices": [label]},
                    }
                ],
            }
            for version, label, score in answers
        ],
    }


def coco(
    records: list[dict[str, Any]], classes: list[str], image_url: str | None = None
) -> dict[str, Any]:
    """Images, categories and annotations. The box of an annotation is the whole image."""
    numbers = {name: number for number, name in enumerate(classes, start=1)}
    images, annotations = [], []
    for number, record in enumerate(records, start=1):
        width, height = record["width"], record["height"]
        images.append(
            {
                "id": number,
                "file_name": _from_template(image_url, record) if image_url else record["frame"],
                "width": width,
                "height": height,
                "date_captured": record["timestamp"],
                "frame": record["frame"],
                "camera": record["camera"],
            }
        )
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": numbers[record["answer"]],
                "bbox": [0, 0, width, height],
                "area": width * height,
                "iscrowd": 0,
                "segmentation": [],
                "score": record["confidence"],
                "source_category_id": numbers[record["source_label"]],
                "source_score": record["source_confidence"],
            }
        )
    return {
        "info": {"description": "labels of mint_stream for review"},
        "licenses": [],
        "categories": [
            {"id": number, "name": name, "supercategory": ""} for name, number in numbers.items()
        ],
        "images": images,
        "annotations": annotations,
    }


_CSV = (
    "frame",
    "camera",
    "timestamp",
    "label",
    "confidence",
    "source_label",
    "source_confidence",
    "adapted",
)


def csv_text(records: list[dict[str, Any]]) -> str:
    """A table with a header; the last column, `truth`, is empty.

    Text that a spreadsheet would run as a formula has an apostrophe in front of it.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*_CSV, "truth"])
    writer.writerows([*(escape_cell(record[name]) for name in _CSV), ""] for record in records)
    return text.getvalue()


def fiftyone_labels(records: Mapping[str, dict[str, Any]], classes: list[str]) -> dict[str, Any]:
    """`labels.json` for `records` by the names of their images without suffix."""
    shown = ("frame", "camera", "timestamp", "source_label", "source_confidence", "adapted")
    return {
        "classes": classes,
        "labels": {
            name: {
                "label": classes.index(record["answer"]),
                "confidence": record["confidence"],
                "attributes": {key: record[key] for key in shown if record[key] is not None},
            }
            for name, record in records.items()
        },
    }


def _write_fiftyone(
    records: list[dict[str, Any]], to: str, classes: list[str], pictures: Pictures | None
) -> list[str]:
    if pictures is None:
        raise ConfigError("a FiftyOne dataset is made of images: give --input to copy them from")
    store, named = Store(to), {}
    for number, record in enumerate(records):
        if (data := pictures.get(record["frame"])) is None:
            raise ConfigError(f"{record['frame']} is not in the input any more")
        name = f"{number:06d}"
        named[name] = record
        store.write(f"data/{name}.{_mime(data).rpartition('/')[2]}", data)
    store.write("labels.json", _json(fiftyone_labels(named, classes)).encode())
    return [store.uri("data/"), store.uri("labels.json")]


def _image_finder(
    pictures: Pictures | None, image_url: str | None
) -> Callable[[dict[str, Any]], str]:
    """What to put where a tool expects an image."""

    def find(record: dict[str, Any]) -> str:
        frame = str(record["frame"])
        if image_url is not None:
            return _from_template(image_url, record)
        if pictures is not None:
            if frame not in pictures:
                raise ConfigError(f"{frame} is not in the input any more")
            return data_uri(pictures[frame])
        if "#" in frame:
            raise ConfigError(
                f"{frame} lies within a shard, where no tool finds it: give --input to embed the "
                "images, or --image-url to say where they are"
            )
        return frame

    return find


def _from_template(image_url: str, record: dict[str, Any]) -> str:
    """The address of an image, its parts percent-encoded."""
    fields = {name: quote(str(record[name] or "")) for name in _URL_FIELDS}
    try:
        return image_url.format(**fields)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        allowed = ", ".join(f"{{{name}}}" for name in _URL_FIELDS)
        raise ConfigError(
            f"image-url is {image_url!r}; it must be an address with any of {allowed} ({error!r})"
        ) from error


def data_uri(data: bytes) -> str:
    """An encoded image as a `data:` URI, reduced if it is large."""
    try:
        image = Image.open(io.BytesIO(data))
        if max(image.size) > _MOST_PIXELS:
            image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
            reduced = io.BytesIO()
            image.convert("RGB").save(reduced, "JPEG", quality=90)
            data = reduced.getvalue()
    except (UnidentifiedImageError, OSError):
        pass
    return f"data:{_mime(data)};base64,{base64.b64encode(data).decode()}"


def _mime(data: bytes) -> str:
    try:
        return Image.open(io.BytesIO(data)).get_format_mimetype() or "image/jpeg"
    except UnidentifiedImageError:
        return "application/octet-stream"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)
