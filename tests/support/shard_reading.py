"""Reading shards in tests, with what holds for every shard asserted each time."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from mint_stream.input.discovery import discover
from mint_stream.input.frames import Frame, Reject
from mint_stream.input.shards import count_frames, read_frames

TEN = [f"{number:02}.jpg" for number in range(10)]


def read_all(url: str, **columns: str | None) -> list[Frame | Reject]:
    """Everything in the one shard at `url`, with what holds for every shard asserted."""
    (shard,) = discover(url, unit_size=100)
    items = list(read_frames(shard, **columns))
    assert [item.index for item in items] == list(range(len(items)))
    assert {item.shard for item in items} <= {shard.uri}
    assert count_frames(shard, **columns) == len(items)
    ids = [item.frame for item in items if item.frame is not None]
    assert len(set(ids)) == len(ids)
    for start, stop in ((0, 2), (1, None), (3, 5), (len(items), None)):
        again = list(read_frames(shard, start=start, stop=stop, **columns))
        assert again == items[start:stop]
    for item in items:  # valid UTF-8 throughout: Parquet takes nothing else
        for text in (item.frame, item.shard, item.member):
            assert text is None or text.encode("utf-8")
    return items


def frames(items: list[Frame | Reject]) -> list[Frame]:
    return [item for item in items if isinstance(item, Frame)]


def rejects(items: list[Frame | Reject]) -> list[Reject]:
    return [item for item in items if isinstance(item, Reject)]


def parquet(columns: dict[str, object], **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()
