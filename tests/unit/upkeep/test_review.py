"""Frames go out for review in the formats of the tools, and answers come back as truth.

The tools' own libraries are used where they are installed (they are no dependency of the tests:
label-studio-sdk pins an older numpy, fiftyone is a gigabyte).
"""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_tables import CLASSES, labels_table, put
from PIL import Image
from pycocotools.coco import COCO

from mint_stream.config import ConfigError
from mint_stream.output import schema
from mint_stream.output.accuracy import accuracy_by, with_truth
from mint_stream.output.cells import escape_cell, unescape_cell
from mint_stream.store.store import Store
from mint_stream.upkeep.export import data_uri, export, label_studio_config
from mint_stream.upkeep.review import choose
from mint_stream.upkeep.review_import import import_review

Rows = list[dict[str, Any]]


def table(rows: Rows) -> pa.Table:
    """Labels with these values, in this order."""
    made = labels_table([row["label"] for row in rows], [row["source_label"] for row in rows])
    for name in ("confidence", "source_confidence", "camera"):
        at = made.schema.get_field_index(name)
        values = pa.array([row[name] for row in rows], made.schema.field(name).type)
        made = made.set_column(at, made.schema.field(name), values)
    return made


def row(label: str, source: str, sure: float, frozen: float, camera: str = "a") -> dict[str, Any]:
    return {
        "label": label,
        "source_label": source,
        "confidence": sure,
        "source_confidence": frozen,
        "camera": camera,
    }


FOUR = [
    row("car", "car", 0.25, 0.75),
    row("bus", "car", 0.875, 0.5, "b"),
    row("bus", "car", 0.625, 0.75),
    row("dog", "dog", 0.5, 0.5, "b"),
]


FRAME = "feed/a.tar#000000.png"


def numbers(chosen: pa.Table) -> list[int]:
    return [int(frame[-10:-4]) for frame in chosen["frame"].to_pylist()]


def test_the_least_sure_come_first() -> None:
    assert numbers(choose(table(FOUR))) == [0, 3, 2, 1]


def test_or_those_where_adapting_disagrees_most() -> None:
    assert numbers(choose(table(FOUR), first="disagreement")) == [2, 1, 0, 3]


@given(
    st.lists(
        st.builds(
            row,
            st.sampled_from(CLASSES),
            st.sampled_from(CLASSES),
            st.sampled_from([0.2, 0.4, 0.9]),
            st.sampled_from([0.3, 0.5]),
            st.sampled_from(["a", "b"]),
        ),
        max_size=30,
    ),
    st.sampled_from(["confidence", "disagreement", "random"]),
    st.integers(1, 5),
    st.integers(1, 8),
    st.integers(0, 20),
)
def test_quotas_hold_and_nothing_is_left_out_without_need(
    rows: Rows, first: Any, per_class: int, per_camera: int, limit: int
) -> None:
    labels = table(rows)
    full = choose(labels, first=first)
    assert sorted(numbers(full)) == list(range(len(rows)))
    chosen = choose(labels, first=first, per_class=per_class, per_camera=per_camera, limit=limit)
    classes, cameras = (Counter(chosen[name].to_pylist()) for name in ("label", "camera"))
    assert all(n <= per_class for n in classes.values())
    assert all(n <= per_camera for n in cameras.values())
    assert chosen.num_rows <= limit
    assert [n for n in numbers(full) if n in numbers(chosen)] == numbers(chosen)
    if chosen.num_rows < limit:
        for left in set(numbers(full)) - set(numbers(chosen)):
            label, camera = rows[left]["label"], rows[left]["camera"]
            assert classes[label] == per_class or cameras[camera] == per_camera


def picture(width: int = 30, height: int = 20, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (30, 90, 160)).save(file, kind)
    return file.getvalue()


def write(
    rows: pa.Table, to: Path, kind: Any, *, pictures: bool = True, image_url: str | None = None
) -> Any:
    """Export, and read back the main file."""
    images = {f: picture() for f in rows["frame"].to_pylist()} if pictures else None
    export(rows, str(to), kind, classes=list(CLASSES), pictures=images, image_url=image_url)
    text = (to / "labels.json" if kind == "fiftyone" else to).read_text()
    return text if kind == "csv" else json.loads(text)


def test_label_studio_gets_tasks_with_both_answers(tmp_path: Path) -> None:
    first, second = write(table(FOUR[:2]), tmp_path / "tasks.json", "label-studio")
    image = first["data"].pop("image")
    assert image.startswith("data:image/png;base64,")
    assert base64.b64decode(image.partition(",")[2]) == picture()
    assert first == {
        "data": {
            "frame": "feed/a.tar#000000.png",
            "camera": "a",
            "timestamp": "2025-03-20T09:00:00+00:00",
            "predicted": "car",
            "frozen": "car",
        },
        "predictions": [
            {
                "model_version": "paper",
                "score": 0.25,
                "result": [
                    {
                        "id": "paper-answer",
                        "from_name": "label",
                        "to_name": "image",
                        "type": "choices",
                        "value": {"choices": ["car"]},
                    }
                ],
            }
        ],
    }
    versions = [(p["model_version"], p["score"]) for p in second["predictions"]]
    assert versions == [("paper", 0.875), ("frozen", 0.5)]
    config = (tmp_path / "tasks.json.config.xml").read_text()
    assert config == label_studio_config(list(CLASSES))
    assert [f'value="{name}"' in config for name in CLASSES] == [True] * 3


def test_label_studio_itself_takes_the_tasks(tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    tasks = write(table(FOUR), tmp_path / "tasks.json", "label-studio")
    config = interface.LabelInterface((tmp_path / "tasks.json.config.xml").read_text())
    config.validate()
    for task in tasks:
        assert config.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert config.validate_prediction(prediction, return_errors=True) == []


def test_an_image_is_named_by_a_url_where_it_has_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give --input to embed the images, or --image-url"):
        write(table(FOUR), tmp_path / "a.json", "label-studio", pictures=False)
    url = "https://pictures.example/{camera}/{member}"
    tasks = write(table(FOUR), tmp_path / "b.json", "label-studio", image_url=url)
    assert tasks[1]["data"]["image"] == "https://pictures.example/b/000001.png"
    with pytest.raises(ConfigError, match=r"any of \{frame\}, \{shard\}, \{member\}, \{camera\}"):
        write(table(FOUR), tmp_path / "d.json", "coco", image_url="https://x/{file}")
    spaced = table([row("car", "car", 0.5, 0.5, camera="gate 1#")])
    (task,) = write(spaced, tmp_path / "e.json", "label-studio", image_url=url)
    assert task["data"]["image"] == "https://pictures.example/gate%201%23/000000.png"
    loose = table(FOUR).drop_columns(["frame"])
    frames = pa.array([f"s3://feed/{n}.jpg" for n in range(4)])
    loose = loose.add_column(0, "frame", frames)
    tasks = write(loose, tmp_path / "c.json", "label-studio", pictures=False)
    assert tasks[2]["data"]["image"] == "s3://feed/2.jpg"


def test_a_large_image_is_embedded_smaller() -> None:
    head, _, data = data_uri(picture(3000, 1500)).partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (1024, 512)


def test_fiftyone_gets_a_folder_of_images_and_labels(tmp_path: Path) -> None:
    labels = write(table(FOUR), tmp_path / "fo", "fiftyone")
    assert labels["classes"] == list(CLASSES)
    assert sorted(path.name for path in (tmp_path / "fo" / "data").iterdir()) == [
        f"{n:06d}.png" for n in range(4)
    ]
    assert labels["labels"]["000001"] == {
        "label": CLASSES.index("bus"),
        "confidence": 0.875,
        "attributes": {
            "frame": "feed/a.tar#000001.png",
            "camera": "b",
            "timestamp": "2025-03-20T09:01:00+00:00",
            "source_label": "car",
            "source_confidence": 0.5,
            "adapted": True,
        },
    }
    with pytest.raises(ConfigError, match="give --input"):
        write(table(FOUR), tmp_path / "none", "fiftyone", pictures=False)


def test_fiftyone_itself_reads_the_folder(tmp_path: Path) -> None:
    data = pytest.importorskip("fiftyone.utils.data")
    write(table(FOUR), tmp_path / "fo", "fiftyone")
    reader = data.FiftyOneImageClassificationDatasetImporter(dataset_dir=str(tmp_path / "fo"))
    with reader:
        samples = list(reader)
    assert [(label.label, label.confidence) for _, _, label in samples] == [
        (r["label"], r["confidence"]) for r in FOUR
    ]
    assert [label["frame"] for _, _, label in samples] == table(FOUR)["frame"].to_pylist()


def test_coco_tools_read_the_annotations(tmp_path: Path) -> None:
    write(table(FOUR), tmp_path / "coco.json", "coco")
    coco = COCO(str(tmp_path / "coco.json"))
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    (bus,) = coco.getCatIds(catNms=["bus"])
    frames = [image["frame"] for image in coco.loadImgs(coco.getImgIds(catIds=[bus]))]
    assert frames == ["feed/a.tar#000001.png", "feed/a.tar#000002.png"]
    (annotation,) = coco.loadAnns(coco.getAnnIds(imgIds=[2]))
    assert (annotation["bbox"], annotation["score"]) == ([0, 0, 96, 96], 0.875)


def output(folder: Path, labels: pa.Table | None = None) -> str:
    """An output with these labels, or the four."""
    where = str(folder / "out")
    labels = table(FOUR) if labels is None else labels
    put(where, f"labels/{labels['unit'][0]}.parquet", labels)
    Store(where).write("run.json", json.dumps({"classes": CLASSES}).encode())
    return where


def reviewed(file: Path, content: str | bytes, labels: pa.Table | None = None) -> dict[str, str]:
    """The answers in a file with this content, as they are written."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    import_review(str(file), f"{file}.parquet", output(file.parent, labels))
    table = pq.read_table(f"{file}.parquet")
    assert table.schema.names == ["frame", "label"]
    return dict(zip(*(table[name].to_pylist() for name in ("frame", "label")), strict=True))


def annotate(task: dict[str, Any], *answers: str, **more: Any) -> dict[str, Any]:
    result = task["predictions"][0]["result"][0]
    annotations = [
        {"result": [{**result, "value": {"choices": [answer]}}], **more} for answer in answers
    ]
    return {**task, "annotations": annotations}


def test_answers_from_label_studio(tmp_path: Path) -> None:
    tasks = write(table(FOUR), tmp_path / "tasks.json", "label-studio")
    done = [
        annotate(tasks[0], "car", "dog"),
        annotate(tasks[1], "bus", was_cancelled=True),
        tasks[2],
        annotate(tasks[3], "dog"),
    ]
    done[3]["annotations"] += annotate(tasks[3], "bus", ground_truth=True)["annotations"]
    done[3]["annotations"] += annotate(tasks[3], "car")["annotations"]
    truth = reviewed(tmp_path / "export.json", json.dumps(done))
    assert truth == {"feed/a.tar#000000.png": "dog", "feed/a.tar#000003.png": "bus"}
    flat = [{**tasks[0]["data"], "id": 1, "label": "dog"}, {**tasks[1]["data"], "id": 2}]
    assert reviewed(tmp_path / "min.json", json.dumps(flat)) == {"feed/a.tar#000000.png": "dog"}
    text = f"image,frame,predicted,frozen,id,label\nx,{FRAME},car,car,1,dog\ny,f1,car,bus,2,\n"
    assert reviewed(tmp_path / "export.csv", text) == {FRAME: "dog"}


@pytest.mark.parametrize("kind", ["JSON", "JSON_MIN", "CSV"])
def test_answers_as_label_studio_itself_writes_them(tmp_path: Path, kind: str) -> None:
    converter = pytest.importorskip("label_studio_sdk.converter")
    tasks = write(
        table(FOUR), tmp_path / "tasks.json", "label-studio", image_url="http://x/{member}"
    )
    answers = ["car", "bus", "car", "dog"]
    done = [annotate(task, answer) for task, answer in zip(tasks, answers, strict=True)]
    for number, task in enumerate(done):
        task["id"] = number
        task["annotations"][0] |= {"id": number, "completed_by": 1, "created_at": "2026-03-01"}
    (tmp_path / "in").mkdir()
    for task in done:
        (tmp_path / "in" / f"{task['id']}.json").write_text(json.dumps(task))
    config = str(tmp_path / "tasks.json.config.xml")
    made = converter.Converter(config, str(tmp_path))
    made.convert(str(tmp_path / "in"), str(tmp_path / "result"), kind, is_dir=True)
    result = tmp_path / "result"
    (file,) = [result] if result.is_file() else list(result.iterdir())
    truth = reviewed(file, file.read_text())
    frames = table(FOUR)["frame"].to_pylist()
    assert truth == dict(zip(frames, answers, strict=True))


def test_answers_from_fiftyone_and_coco_and_csv(tmp_path: Path) -> None:
    labels = write(table(FOUR), tmp_path / "fo", "fiftyone")
    labels["labels"]["000000"]["label"] = CLASSES.index("dog")
    labels["labels"]["000002"]["label"] = "car"
    labels["labels"]["000003"] = None
    expected = {f"feed/a.tar#00000{n}.png": name for n, name in enumerate(("dog", "bus", "car"))}
    assert reviewed(tmp_path / "labels.json", json.dumps(labels)) == expected
    coco = write(table(FOUR), tmp_path / "coco.json", "coco")
    coco["annotations"] = coco["annotations"][1:2]
    assert reviewed(tmp_path / "c.json", json.dumps(coco)) == {"feed/a.tar#000001.png": "bus"}
    rows = list(csv.DictReader(io.StringIO(write(table(FOUR), tmp_path / "a.csv", "csv"))))
    assert [r["truth"] for r in rows] == [""] * 4
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows([{**rows[0], "truth": "dog"}, rows[1]])
    assert reviewed(tmp_path / "b.csv", text.getvalue()) == {"feed/a.tar#000000.png": "dog"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "must have frame, and truth"),
        ("{broken", "is not JSON"),
        ('{"labels": {"x": 3}}', "include_attributes=True"),
        ('[{"data": {}, "annotations": [{"result": [{}]}]}]', "no export of Label Studio"),
        (f"frame,truth\n{FRAME},car\n{FRAME},bus\n", "both 'car' and 'bus' of feed"),
        (f"frame,truth\n{FRAME},car\nf,\ng,bus\nh,dog\n", "2 of the 3 answers .* such as 'g'"),
        (f"frame,truth\n{FRAME},caar\n", r"'caar' \(1 answers, nearest 'car'\)"),
        (f"frame,truth\n{FRAME},xyzzy\n", r"no class of .*: 'xyzzy' \(1 answers\);"),
        (f'frame,truth\n"{FRAME},car\n', "is no CSV"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "file").write_text(text)
    with pytest.raises(ConfigError, match=words):
        import_review(str(tmp_path / "file"), str(tmp_path / "truth.parquet"), output(tmp_path))
    assert not (tmp_path / "truth.parquet").exists()


ODD = ["feed/caf\u00e9.tar#\u00fc;1.png", "feed/a,b.tar#0.png", 'feed/a.tar#"q".png', "=cmd#1"]


def odd_frames() -> pa.Table:
    labels = table(FOUR).drop_columns(["frame"])
    return labels.add_column(0, schema.LABELS.field("frame"), pa.array(ODD))


def saved_again(text: str, separator: str, answers: list[str]) -> str:
    """As a spreadsheet writes a CSV that it has read, with the last column filled in."""
    header, *rows = csv.reader(io.StringIO(text))
    again = io.StringIO()
    writer = csv.writer(again, delimiter=separator)
    writer.writerow(header)
    writer.writerows([*row[:-1], answer] for row, answer in zip(rows, answers, strict=True))
    return again.getvalue()


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]
)
def test_what_office_programs_saved_again_says_the_same(
    tmp_path: Path, encoding: str, separator: str, declared: bool
) -> None:
    labels = odd_frames()
    export(labels, str(tmp_path / "a.csv"), "csv", classes=list(CLASSES))
    text = (tmp_path / "a.csv").read_text(encoding="utf-8")
    again = saved_again(text, separator, ["car", "bus", " dog ", "CAR"])
    again = f"sep={separator}\r\n{again}" if declared else again
    found = reviewed(tmp_path / "b.csv", again.encode(encoding), labels)
    assert found == dict(zip(ODD, ("car", "bus", "dog", "car"), strict=True))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04" + bytes(99), "is a spreadsheet (.xlsx, .ods)"),
        (b"\xd0\xcf\x11\xe0" + bytes(99), "is a spreadsheet (.xls)"),
        (b"frame,truth\n\x81\x8d,car\n", "is not text in UTF-8, UTF-16 or Windows-1252"),
        ("\n".join(["frame,truth", f"{ODD[0]},car"]).encode("mac_roman"), "1 of the 1 answers"),
    ],
)
def test_what_is_no_text_and_another_encoding_are_refused(
    tmp_path: Path, content: bytes, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        reviewed(tmp_path / "a.csv", content, odd_frames())


@given(st.text(max_size=4) | st.from_regex(r"'{0,3}[=+\-@\t\r]?x?", fullmatch=True))
def test_no_cell_is_a_formula_and_each_comes_back(text: str) -> None:
    cell = escape_cell(text)
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert unescape_cell(cell) == text


def test_formulas_in_ids_cameras_and_labels_are_text_in_the_csv(tmp_path: Path) -> None:
    labels = odd_frames()
    cameras = pa.array(["=1+1", "+49", "-", "@x"], labels.schema.field("camera").type)
    labels = labels.set_column(labels.schema.get_field_index("camera"), "camera", cameras)
    export(labels, str(tmp_path / "a.csv"), "csv", classes=list(CLASSES))
    cells = [cell for row in csv.reader((tmp_path / "a.csv").open(newline="")) for cell in row]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "-", "@")]
    assert {"'=1+1", "'+49", "'-", "'@x", "'=cmd#1"} <= set(cells)


def test_random_frames_have_nothing_to_do_with_the_answers_and_are_the_same_each_time() -> None:
    rows = [row("car", "car", n / 400, 0.5) for n in range(400)]
    labels = table(rows)
    chosen = numbers(choose(labels, first="random", limit=100))
    assert len(set(chosen)) == 100
    assert 130 < sum(chosen) / 100 < 270  # as likely the sure ones as the doubtful ones
    shuffled = labels.take(pa.array([*range(200, 400), *range(200)]))
    assert numbers(choose(shuffled, first="random", limit=100)) == chosen


def test_the_answers_serve_as_truth(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"frame,truth\n{table(FOUR)['frame'][1]},bus\n")
    where = output(tmp_path)
    truth = import_review(str(tmp_path / "a.csv"), str(tmp_path / "truth.parquet"), where)
    truth = truth.append_column("domain", pa.array(["day"]))
    (_, overall) = accuracy_by(with_truth(table(FOUR), truth))
    assert (overall.frames, overall.accuracy, overall.source_accuracy) == (1, 1.0, 0.0)
