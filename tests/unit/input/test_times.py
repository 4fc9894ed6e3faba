"""Times and cameras as people and tables write them, and what is none."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shard_reading import frames, parquet, read_all
from tar_files import images, sidecar, tar

from mint_stream import logs
from mint_stream.input.frames import parse_facts, path_facts
from mint_stream.input.times import parse_timestamp

NOON = datetime(2024, 5, 1, 12, 30, tzinfo=UTC)
HALF = timedelta(milliseconds=500)
WRITTEN = {
    # ISO 8601 and its relatives
    "2024-05-01T12:30:00": NOON,
    "2024-05-01t12:30:00z": NOON,
    " 2024-05-01 12:30 ": NOON,
    "2024-05-01  12:30:00": NOON,
    "2024-05-01T12:30:00.5Z": NOON + HALF,
    "2024-05-01T12:30:00,500": NOON + HALF,
    "2024-05-01T12:30:00.500000001": NOON + HALF,
    "2024-05-01T14:30:00+02:00": NOON,
    "2024-05-01 07:00:00 -0530": NOON,
    "2024-05-01 14:30:00+02": NOON,
    "2024-05-01 12:30:00 UTC": NOON,
    "2024-05-01T12": NOON.replace(minute=0),
    "2024-05-01": NOON.replace(hour=0, minute=0),
    "2024/05/01 12:30:00": NOON,
    "2024/5/1 9:05": NOON.replace(hour=9, minute=5),
    "2024.05.01 12:30": NOON,
    "2024-05-01_12-30-00": NOON,
    "2024_05_01_12_30_00": NOON,
    "2024-05-01-12.30.00": NOON,
    # compact
    "20240501T123000Z": NOON,
    "20240501T1230": NOON,
    "20240501T123000.5+0000": NOON + HALF,
    "20240501T143000+0200": NOON,
    "20240501_123000": NOON,
    "20240501-123000": NOON,
    "20240501123000.5": NOON + HALF,
    "20240501123000Z": NOON,
    # EXIF
    "2024:05:01 12:30:00": NOON,
    "2024:05:01 12:30:00.50": NOON + HALF,
    "2024:05:01 14:30:00+02:00": NOON,
    # digits alone, as text or as a number
    "20240501": NOON.replace(hour=0, minute=0),
    "202405011230": NOON,
    "20240501123000": NOON,
    "20240501123000500": NOON + HALF,
    "20240501123000500000": NOON + HALF,
    20240501: NOON.replace(hour=0, minute=0),
    202405011230: NOON,
    20240501123000: NOON,
    Decimal(20240501123000500): NOON + HALF,
    # since 1970
    1714566600: NOON,
    1714566600.5: NOON + HALF,
    "1714566600": NOON,
    "1714566600.5": NOON + HALF,
    Decimal("1714566600.5"): NOON + HALF,
    1714566600500: NOON + HALF,
    "1714566600500": NOON + HALF,
    1714566600500000: NOON + HALF,
    1714566600500000123: NOON + HALF,
    "1714566600500000123": NOON + HALF,
    # other types
    date(2024, 5, 1): NOON.replace(hour=0, minute=0),
    NOON.replace(tzinfo=None): NOON,
    b"2024-05-01 12:30": NOON,
}
NO_TIME = [
    *("soon", "05/01/2024", "01.05.2024 12:30", "1.5.24", "12:30:00", "May 1, 2024", "2024-05"),
    *("2024-13-01", "2024-02-30", "20240230", "2024-05-01 25:00", "2024-05-01 12:30:00 PM"),
    *("2024-05/01", "2024-05-01 12:30 EST", "2024-05-01T12-05", "2024-05-01T12:30+02:75"),
    *("20240501 1", "1_714_566_600", "1.71457E+12", "-1714566600", "inf", "1e300"),
    *("2024050112", 2024050112, 1000, 5.25, -1714566600, 99999999, 10**13, 10**25, 1e300, True),
    *("\u0662\u0660\u0662\u0664-05-01", "2024-05-01T12:30:00+99:00", "9999-12-31T23:00-05:00"),
    *([2024, 5, 1], {"$date": 1714566600}, timedelta(days=3), float("inf")),
]
NOTHING = [None, "", " ", "-", "--", "None", "NULL", "null", "NA", "n/a", "#N/A", "nan", "NaN"]
NOTHING += ["<NA>", "NaT", "\\N", "(null)", "?", "__HIVE_DEFAULT_PARTITION__"]
NOTHING += [float("nan"), Decimal("nan"), b"NULL"]


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_SAID", set())


@pytest.mark.parametrize("written", WRITTEN, ids=repr)
def test_what_people_write_is_the_time_they_meant(written: object) -> None:
    assert parse_timestamp(written) == WRITTEN[written]


@pytest.mark.parametrize("value", NO_TIME, ids=repr)
def test_no_date_is_made_that_nobody_wrote(value: object, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_timestamp(value) is None
    assert parse_facts({"timestamp": value}, "sidecar a.json").timestamp is None
    (line,) = caplog.messages
    assert repr(value)[:80] in line
    assert "sidecar a.json" in line


@given(st.datetimes(datetime(1990, 1, 1), datetime(2099, 12, 31)), st.data())
def test_every_way_to_write_a_time_gives_it_back(at: datetime, data: st.DataObject) -> None:
    """By text and by number, to the precision of what was written; no form shadows another."""
    at = at.replace(tzinfo=UTC)
    us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    whole, minute = at.replace(microsecond=0), at.replace(second=0, microsecond=0)
    forms = [
        (at.isoformat(), at),
        (f"{at:%Y%m%dT%H%M%S.%fZ}", at),
        (f"{at:%Y:%m:%d %H:%M:%S}", whole),
        (f"{at:%Y%m%d%H%M%S}", whole),
        (int(f"{at:%Y%m%d%H%M%S}"), whole),
        (f"{at:%Y%m%d%H%M%S%f}", at),
        (f"{at:%Y%m%d%H%M}", minute),
        (us, at),
        (us * 1000, at),
        (str(us * 1000), at),
        (us // 1000, at.replace(microsecond=at.microsecond // 1000 * 1000)),
    ]
    written, meant = data.draw(st.sampled_from(forms))
    assert parse_timestamp(written) == meant


@given(st.one_of(st.integers(), st.floats(), st.text(), st.from_regex(r"[\d:T.+ Z-]{6,26}")))
def test_anything_is_either_a_time_or_none(value: object) -> None:
    found = parse_timestamp(value)
    assert found is None or found.tzinfo is UTC
    if isinstance(value, int | float) and found is not None:
        assert 1900 <= found.year < 2100


@pytest.mark.parametrize("value", NOTHING, ids=repr)
def test_marks_of_no_value_are_no_cameras_and_no_fault(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    facts = parse_facts({"camera": value, "timestamp": value}, "x")
    assert (facts.camera, facts.timestamp) == (None, None)
    assert caplog.messages == []


@pytest.mark.parametrize("value", ["0000:00:00 00:00:00", "0000-00-00T00:00:00Z", "0", 0, 0.0])
def test_a_clock_that_was_never_set_is_no_time_and_no_fault(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert parse_facts({"timestamp": value}, "x").timestamp is None
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("value", "camera"),
    [
        *((3, "3"), (3.0, "3"), (2.5, "2.5"), (0, "0"), ("0", "0"), (Decimal("300"), "300")),
        *((Decimal("3.00"), "3"), (b"north", "north"), ("S\u00fcd", "S\u00fcd"), ("#1", "#1")),
        *(("nancy", "nancy"), ("north-", "north-"), (10**18, "1" + "0" * 18)),
    ],
)
def test_a_camera_is_text_or_a_number(value: object, camera: str) -> None:
    assert parse_facts({"camera": value}, "x").camera == camera


@pytest.mark.parametrize("value", [["a"], {"id": 1}, True, float("inf")], ids=repr)
def test_what_is_no_camera_is_said(value: object, caplog: pytest.LogCaptureFixture) -> None:
    assert parse_facts({"camera": value}, "row 3").camera is None
    assert len(caplog.messages) == 1
    assert "row 3" in caplog.messages[0]


def test_names_of_fields_count_whatever_their_case() -> None:
    facts = parse_facts({"Camera": "a", "TIMESTAMP": "20240501", " Domain ": "fog"}, "x")
    assert (facts.camera, facts.timestamp, facts.domain) == (
        *("a", NOON.replace(hour=0, minute=0), "fog"),
    )
    assert parse_facts({"CAMERA": "no", "camera": "yes", "Camera": "no"}, "x").camera == "yes"


def test_a_thousand_sidecars_without_a_time_are_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"{number:04}" for number in range(1000)]
    members = [
        member
        for name in names
        for member in (*images([f"{name}.jpg"]), sidecar(name, camera="c", timestamp="01/05/24"))
    ]
    (tmp_path / "s.tar").write_bytes(tar(*members))
    with caplog.at_level(logging.WARNING):
        items = frames(read_all(str(tmp_path)))
    assert {(item.camera, item.timestamp) for item in items} == {("c", None)}
    (line,) = [line for line in caplog.messages if "timestamp" in line]
    assert "'01/05/24'" in line
    assert "0000.json" in line


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        (pa.array([20240501123000]), NOON),
        (pa.array([20240501], pa.int32()), NOON.replace(hour=0, minute=0)),
        (pa.array([1714566600], pa.uint32()), NOON),
        (pa.array([1714566600500], pa.uint64()), NOON + HALF),
        (pa.array([20240501123000.0]), NOON),
        (pa.array([1714566600.5]), NOON + HALF),
        (pa.array([1714566600.0], pa.float32()), None),  # it has steps of 128 s
        (pa.array([Decimal("1714566600.500")], pa.decimal128(18, 3)), NOON + HALF),
        (pa.array([date(2024, 5, 1)], pa.date32()), NOON.replace(hour=0, minute=0)),
        (pa.array([date(2024, 5, 1)], pa.date64()), NOON.replace(hour=0, minute=0)),
        (pa.array([NOON], pa.timestamp("ns", "Asia/Kolkata")), NOON),
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("s")), NOON),
        (pa.array([1714566600500000001], pa.timestamp("ns")), NOON + HALF),
        (pa.array([2**62], pa.timestamp("ms")), None),
        (pa.array(["2024:05:01 12:30:00"]), NOON),
        (pa.array(["20240501T1230"], pa.large_string()), NOON),
        (pa.array(["20240501123000"]).dictionary_encode(), NOON),
        (pa.array([b"2024-05-01 12:30"], pa.binary()), NOON),
        (pa.array([True]), None),
        (pa.array([[2024, 5, 1]]), None),
        (pa.array([{"t": 1714566600}]), None),
        (pa.array([45000], pa.duration("s")), None),
        (pa.array([45000], pa.time32("s")), None),
        (pa.array(["soon"]), None),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_times_of_every_arrow_type(
    tmp_path: Path, column: pa.Array, meant: datetime | None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "s.parquet").write_bytes(parquet({"image": [b"x"], "timestamp": column}))
    (item,) = frames(read_all(str(tmp_path)))
    assert item.timestamp == meant
    assert len(caplog.messages) == (meant is None)


@pytest.mark.parametrize(
    ("path", "camera", "taken"),
    [
        ("camera=a/date=20240501/x.jpg", "a", NOON.replace(hour=0, minute=0)),
        ("date=2024-05-01/hour=12/x.jpg", None, NOON.replace(minute=0)),
        ("year=2024/month=5/day=01/hour=9/x.jpg", None, NOON.replace(hour=9, minute=0)),
        ("timestamp=20240501123000/x.jpg", None, NOON),
        ("timestamp=1714566600/x.jpg", None, NOON),
        ("timestamp=2024%3A05%3A01%2012%3A30%3A00/x.jpg", None, NOON),
        ("Camera=A/Date=2024-05-01/x.jpg", "A", NOON.replace(hour=0, minute=0)),
        ("camera=None/date=__HIVE_DEFAULT_PARTITION__/hour=3/x.jpg", None, None),
        ("camera=-/date=null/x.jpg", None, None),
        ("date=2024-05-01/hour=25/x.jpg", None, None),
        ("date=1714566600/hour=1/x.jpg", None, None),
        ("month=5/day=1/x.jpg", None, None),
    ],
)
def test_times_and_cameras_of_paths(path: str, camera: str | None, taken: datetime | None) -> None:
    facts = path_facts(path)
    assert (facts.camera, facts.timestamp) == (camera, taken)


def test_json_numbers_with_and_without_a_point_agree() -> None:
    for text in ("20240501123000", "20240501123000.0", '"20240501123000"'):
        assert parse_timestamp(json.loads(text)) == NOON
