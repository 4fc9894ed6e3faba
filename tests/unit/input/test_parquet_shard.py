"""Frames of Parquet files: every form of image column, and damage that costs its own rows."""

from __future__ import annotations

import hashlib
import io
import json
import random
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_files import encode, jpeg
from PIL import Image
from shard_reading import frames, parquet, read_all, rejects

from mint_stream import logs
from mint_stream.input.frames import Reject
from mint_stream.input.truth import read_truth
from mint_stream.store.store import Store

IMAGES = [f"image {number}".encode() for number in range(10)]
IMAGE_TYPES = {
    "binary": pa.array(IMAGES, pa.binary()),
    "large_binary": pa.array(IMAGES, pa.large_binary()),
    "dictionary": pa.array(IMAGES, pa.binary()).dictionary_encode(),
    "hugging_face": pa.array([{"bytes": image, "path": "x"} for image in IMAGES]),
    "uint8_list": pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8())),
    "uint8_large_list": pa.array([list(image) for image in IMAGES], pa.large_list(pa.uint8())),
    "uint8_fixed_list": pa.array([list(image) for image in IMAGES], pa.list_(pa.uint8(), 7)),
}


OTHERS = {
    "hash": [hashlib.sha256(bytes([n])).digest() for n in range(9)],
    "hash in hex": [hashlib.md5(bytes([n])).hexdigest().encode() for n in range(9)],
    "fixed hash": pa.array([bytes([n] * 20) for n in range(9)], pa.binary(20)),
    "json": [json.dumps({"n": n}).encode() for n in range(9)],
    "text": [b"BMW", b"P1", b"a", b"some words", b"e", b"f", b"g", b"h", b"i"],
    "embedding": [random.Random(n).randbytes(512) for n in range(9)],
    "uint8 embedding": pa.array([[n] * 64 for n in range(9)], pa.list_(pa.uint8())),
    "audio": [b"RIFF" + bytes(4) + b"WAVEfmt " + bytes(99)] * 9,
    "thumbnail": [encode(Image.new("RGB", (8, 6)), "PNG")] * 9,
}


class TestParquet:
    @pytest.mark.parametrize("kind", IMAGE_TYPES)
    def test_images_in_every_form(self, tmp_path: Path, kind: str) -> None:
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGE_TYPES[kind]}))
        items = frames(read_all(str(tmp_path)))
        assert [item.data for item in items] == IMAGES
        assert [item.frame for item in items] == [f"{tmp_path}/s.parquet#{n}" for n in range(10)]
        assert [item.member for item in items] == [str(number) for number in range(10)]

    def test_row_numbers_run_through_row_groups(self, root: str) -> None:
        Store(root).write("s.parquet", parquet({"image": IMAGES}, row_group_size=3))
        items = frames(read_all(root))
        assert [item.member for item in items] == [str(number) for number in range(10)]
        assert [item.data for item in items] == IMAGES

    def test_camera_time_and_truth_from_columns(self, tmp_path: Path) -> None:
        times = [datetime(2026, 3, 1, 5, number, tzinfo=UTC) for number in range(10)]
        for number, column in enumerate(
            [
                pa.array(times, pa.timestamp("ns", "Europe/Berlin")),
                pa.array([time.replace(tzinfo=None) for time in times], pa.timestamp("ms")),
                pa.array([time.isoformat() for time in times]),
                pa.array([time.timestamp() for time in times]),
            ]
        ):
            name = tmp_path / f"{number}.parquet"
            cameras = ["a", None] * 5
            columns = {"image": IMAGES, "camera": cameras, "timestamp": column, "label": ["x"] * 10}
            name.write_bytes(parquet(columns))
            items = frames(read_all(str(name)))
            assert [item.timestamp for item in items] == times
            assert [item.camera for item in items] == cameras
            truth = read_truth(str(name))
            assert truth.column("label").to_pylist() == ["x"] * 10
            assert truth.column("timestamp").to_pylist() == times

    def test_the_id_column_gives_the_ids(self, tmp_path: Path) -> None:
        ids = ["a", "b", "a", None, "a~1", "ü", "c", "d", "e", "4"]
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGES, "key": ids}))
        items = frames(read_all(str(tmp_path), id_column="key"))
        expected = ["a", "b", "a~1", "3", "a~1~1", "ü", "c", "d", "e", "4"]
        assert [item.frame for item in items] == [f"{tmp_path}/s.parquet#{i}" for i in expected]
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGES, "key": list(range(5, 15))}))
        items = frames(read_all(str(tmp_path), id_column="key"))
        assert [item.member for item in items] == [str(number) for number in range(5, 15)]

    def test_null_images_are_rejects_and_empty_ones_are_frames(self, tmp_path: Path) -> None:
        for kind, empty in (("binary", b""), ("struct", {"bytes": b""}), ("list", [])):
            null = {"bytes": None} if kind == "struct" else None
            full = {"bytes": b"x"} if kind == "struct" else b"x" if kind == "binary" else [120]
            type_ = {
                "binary": pa.binary(),
                "struct": pa.struct({"bytes": pa.binary()}),
                "list": pa.list_(pa.uint8()),
            }[kind]
            values = pa.array([full, null, empty, None, full], type_)
            (tmp_path / "s.parquet").write_bytes(parquet({"image": values}))
            items = read_all(str(tmp_path))
            assert [item.data for item in frames(items)] == [b"x", b"", b"x"]
            assert [(item.member, item.error_type) for item in rejects(items)] == [
                *(("1", "NullImage"), ("3", "NullImage"))
            ]
            assert "'image' is null" in rejects(items)[0].message

    def test_which_column_holds_the_images(self, tmp_path: Path) -> None:
        name = tmp_path / "s.parquet"
        other = [b"y"] * 10
        name.write_bytes(parquet({"thumbnail": other, "image": IMAGES}))
        assert frames(read_all(str(name)))[0].data == IMAGES[0]
        assert frames(read_all(str(name), image_column="thumbnail"))[0].data == b"y"
        nulls = pa.array([None] * 10, pa.binary())
        name.write_bytes(parquet({"only": nulls, "text": ["t"] * 10}))
        assert [item.error_type for item in rejects(read_all(str(name)))] == ["NullImage"] * 10

    @pytest.mark.parametrize("first", [False, True])
    @pytest.mark.parametrize("other", OTHERS)
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
    def test_the_image_is_told_by_what_is_in_it(
        self, tmp_path: Path, kind: str, other: str, first: bool
    ) -> None:
        """Whatever the names: that of the other column would have settled it before."""
        images = [encode(Image.new("RGB", (40, 30), (n, 0, 0)), kind) for n in range(9)]
        columns = {"data": OTHERS[other], "picture": images}
        order = list(columns) if first else list(columns)[::-1]
        path = tmp_path / "s.parquet"
        path.write_bytes(parquet({name: columns[name] for name in order}))
        assert [item.data for item in frames(read_all(str(path)))] == images

    def test_of_pictures_of_one_size_the_name_settles_it(self, tmp_path: Path) -> None:
        views = {name: [jpeg(n) for n in range(3)] for name in ("mask", "img", "left")}
        path = tmp_path / "s.parquet"
        path.write_bytes(parquet({**views, "thumb": [jpeg(0, 8, 6)] * 3}))
        assert frames(read_all(str(path)))[0].data == views["img"][0]
        path.write_bytes(parquet({"left": views["left"], "right": views["mask"]}))
        (reject,) = rejects(read_all(str(path)))
        assert "(left, right); choose one with --image-column" in reject.message

    def test_a_first_row_group_without_images_does_not_hide_them(self, tmp_path: Path) -> None:
        values = [None] * 6 + [b""] * 3 + [jpeg(n) for n in range(6)]
        columns = {"hash": [bytes(32)] * 15, "picture": pa.array(values, pa.binary())}
        (tmp_path / "s.parquet").write_bytes(parquet(columns, row_group_size=3))
        items = read_all(str(tmp_path))
        assert [item.data for item in frames(items)] == values[6:]

    @pytest.mark.parametrize("other", [name for name in OTHERS if name != "thumbnail"])
    def test_a_column_of_something_else_alone_is_no_image(self, tmp_path: Path, other: str) -> None:
        (tmp_path / "s.parquet").write_bytes(parquet({"column": OTHERS[other], "n": range(9)}))
        (reject,) = rejects(read_all(str(tmp_path)))
        assert "there is no column of images; the columns are column (" in reject.message
        assert "column begins with b'" in reject.message
        assert frames(read_all(str(tmp_path), image_column="column"))  # unless it is asked for

    def test_a_struct_of_paths_says_that_it_is_paths(self, tmp_path: Path) -> None:
        path = tmp_path / "s.parquet"
        both = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        values = [{"bytes": None, "path": "a/1.jpg"}, {"bytes": jpeg(), "path": "2.jpg"}]
        path.write_bytes(parquet({"image": pa.array(values, both)}))
        items = read_all(str(path))
        assert [item.data for item in frames(items)] == [jpeg()]
        assert "has no bytes here, only the path 'a/1.jpg'" in rejects(items)[0].message
        for column in (["1.jpg"], [{"path": "1.jpg"}]):
            path.write_bytes(parquet({"image": column, "hash": [bytes(16)]}))
            for options in ({}, {"image_column": "image"}):
                (reject,) = rejects(read_all(str(path), **options))
                assert "Paths or addresses in image are not followed" in reject.message

    @pytest.mark.parametrize(
        "column",
        [
            pa.array([7.0, None]),
            pa.array([Decimal("7.00"), None]),
            pa.array([b"7", None]),
            pa.array([b"7\0\0", None], pa.binary(3)),
            pa.array(["7", "None"]).dictionary_encode(),
            pa.array([7, None], pa.int8()),
        ],
        ids=lambda column: str(column.type),
    )
    @pytest.mark.parametrize("name", ["camera", "Camera", "CAMERA"])
    def test_cameras_of_any_type_and_case(
        self, tmp_path: Path, name: str, column: pa.Array
    ) -> None:
        (tmp_path / "s.parquet").write_bytes(parquet({"image": [b"x", b"y"], name: column}))
        assert [item.camera for item in frames(read_all(str(tmp_path)))] == ["7", None]

    @pytest.mark.parametrize("name", ["image", "camera", "picture"])
    def test_a_column_that_is_there_twice_is_named(self, tmp_path: Path, name: str) -> None:
        values = pa.array([jpeg()] * 2)
        names = ["image", name, name] if name == "camera" else [name, name]
        table = pa.Table.from_arrays([values] * len(names), names=names)
        pq.write_table(table, tmp_path / "s.parquet")
        (reject,) = rejects(read_all(str(tmp_path)))
        assert reject.message == f"it has more than one column {name!r}: rename them"

    @pytest.mark.parametrize("value", [["a"], {"a": 1}, True, b"\xff\xfe", float("inf")], ids=repr)
    def test_a_column_that_is_no_camera_is_warned_about_once(
        self,
        tmp_path: Path,
        value: object,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(logs, "_SAID", set())
        columns = {"image": [b"x"] * 9, "camera": [value] * 9}
        (tmp_path / "s.parquet").write_bytes(parquet(columns))
        assert {item.camera for item in frames(read_all(str(tmp_path)))} == {None}
        (line,) = caplog.messages
        assert f"row 0 of {tmp_path}/s.parquet" in line

    @pytest.mark.parametrize(
        ("columns", "options", "said"),
        [
            ({"a": [1], "b": ["x"]}, {}, "no column of images; the columns are a (int64), b (str"),
            ({"a": [b"x"], "b": [b"y"]}, {}, "no image is in any of them (a begins with b'x'; b"),
            ({"a": [b"x"]}, {"image_column": "c"}, "no column 'c'; the columns are a (binary)"),
            ({"a": [1]}, {"image_column": "a"}, "column 'a' is of type int64; images are"),
            ({"a": [b"x"]}, {"id_column": "c"}, "no column 'c'; the columns are a (binary)"),
            ({}, {}, "none at all"),
        ],
    )
    def test_a_file_without_the_columns_is_one_reject(
        self, tmp_path: Path, columns: dict[str, object], options: dict[str, str], said: str
    ) -> None:
        (tmp_path / "s.parquet").write_bytes(parquet(columns))
        (reject,) = rejects(read_all(str(tmp_path), **options))
        assert (reject.frame, reject.stage) == (None, "read")
        assert said in reject.message

    @pytest.mark.parametrize("content", ["zero", "garbage", "cut", "no footer", "bad footer"])
    def test_a_damaged_file_is_one_reject(self, root: str, content: str) -> None:
        whole = parquet({"image": IMAGES})
        data = {
            "zero": b"",
            "garbage": bytes(range(256)) * 9,
            "cut": whole[: len(whole) // 2],
            "no footer": whole[:-8],
            "bad footer": whole[:-40] + b"\xff" * 32 + whole[-8:],
        }[content]
        Store(root).write("s.parquet", data)
        (reject,) = read_all(root)
        assert isinstance(reject, Reject)
        assert (reject.frame, reject.stage, reject.size_bytes) == (None, "read", len(data))
        assert "the Parquet file" in reject.message

    def test_rows_that_go_missing_without_an_error_are_rejects(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Seen with damaged page headers: Arrow ends a row group early and does not fail."""
        (tmp_path / "s.parquet").write_bytes(parquet({"image": IMAGES}, row_group_size=5))
        whole = pq.ParquetFile.iter_batches

        def early(self: pq.ParquetFile, size: int, row_groups: list[int], columns: list[str]):  # type: ignore[no-untyped-def]
            for batch in whole(self, size, row_groups=row_groups, columns=columns):
                yield batch.slice(0, 3) if row_groups == [0] else batch

        monkeypatch.setattr(pq.ParquetFile, "iter_batches", early)
        items = read_all(str(tmp_path))
        assert [item.member for item in rejects(items)] == ["3", "4"]
        assert "its last 2 rows are missing" in rejects(items)[0].message
        assert [item.data for item in frames(items)] == IMAGES[:3] + IMAGES[5:]

    @pytest.mark.parametrize("id_column", [None, "key"])
    def test_a_damaged_row_group_costs_its_own_rows(
        self, tmp_path: Path, id_column: str | None
    ) -> None:
        noise = [random.Random(number).randbytes(3000) for number in range(9)]
        keys = [f"k{number}" for number in range(9)]
        options = {"row_group_size": 3, "use_dictionary": False, "compression": "snappy"}
        data = bytearray(parquet({"image": noise, "key": keys}, **options))
        column = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0)
        start = column.data_page_offset
        data[start : start + 200] = b"\xff" * 200
        (tmp_path / "s.parquet").write_bytes(bytes(data))
        items = read_all(str(tmp_path), id_column=id_column)
        lost = rejects(items)
        assert [item.index for item in lost] == [3, 4, 5]
        assert [item.member for item in lost] == (
            ["k3", "k4", "k5"] if id_column else ["3", "4", "5"]
        )
        assert all("row group 1 of the Parquet file" in item.message for item in lost)
        assert [item.data for item in frames(items)] == noise[:3] + noise[6:]
