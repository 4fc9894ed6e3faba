"""Parcels: every unit in its order, whatever the sizes and whatever arrives first."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_stream.config import PRESETS, ModelConfig, RunConfig
from mint_stream.input.units import DecodedFrame, Unit
from mint_stream.pipeline.dataset import parcel_size
from mint_stream.pipeline.parcels import InOrder, ParcelSize, StreamBroken, pack, parcels, unpack


def units(shard: int, count: int, frame_bytes: int = 3) -> list[Unit]:
    return [
        Unit(
            unit=f"{shard}-{number}",
            shard_id=str(shard),
            shard=f"{shard}.tar",
            frames=(frame(f"{number}", frame_bytes),),
            rejects=(),
            shard_frames=count if number == count - 1 else None,
            left_out='{".cls": [1, "a.cls"]}' if number == count - 1 else None,
            read_seconds=0.5,
        )
        for number in range(count)
    ]


def frame(name: str, size_bytes: int) -> DecodedFrame:
    return DecodedFrame(
        frame=name,
        member=None,
        camera=None,
        timestamp=None,
        width=1,
        height=1,
        pixels_height=1,
        pixels_width=1,
        pixels=b"p" * size_bytes,
    )


def names(table: pa.Table) -> list[str]:
    return [unit.unit for unit in unpack(Unit, table)]


def test_what_is_packed_comes_out_again_also_of_several_parcels() -> None:
    first, second = units(0, 3), units(1, 2)
    table = pa.concat_tables([pack(Unit, first), pack(Unit, []), pack(Unit, second)])
    assert list(unpack(Unit, table)) == [*first, *second]


def test_parcels_grow_up_to_their_bound_and_hold_every_unit_in_order() -> None:
    there = list(parcels(units(0, 20), 0, ParcelSize(most=8)))
    assert [len(names(parcel)) for parcel in there] == [1, 2, 4, 8, 5]
    assert [name for parcel in there for name in names(parcel)] == [f"0-{n}" for n in range(20)]
    assert all(parcel.num_rows == 1 for parcel in there), "Ray Data splits no row"


def test_large_images_make_short_parcels() -> None:
    there = parcels(units(0, 9, frame_bytes=40), 0, ParcelSize(most=8, most_bytes=100))
    assert [len(names(parcel)) for parcel in there] == [1, 2, 3, 3]


def test_a_shard_with_nothing_left_has_a_parcel_of_its_own() -> None:
    (empty,) = parcels([], 7, ParcelSize(most=8))
    assert names(empty) == []
    assert empty["place"].to_pylist() == [{"shard": 7, "number": 0, "last": True}]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_whatever_arrives_first_the_order_is_that_of_the_stream(
    sizes: list[int], chance: random.Random
) -> None:
    arriving = [
        parcel
        for shard, size in enumerate(sizes)
        for parcel in parcels(units(shard, size), shard, ParcelSize(most=4))
    ]
    chance.shuffle(arriving)
    order = InOrder()
    due = [name for parcel in arriving for table in order.due(parcel) for name in names(table)]
    assert due == [f"{shard}-{n}" for shard, size in enumerate(sizes) for n in range(size)]


def test_what_comes_early_waits_and_what_is_due_does_not() -> None:
    first, second, third = parcels(units(0, 6), 0, ParcelSize(most=4))
    order = InOrder()
    assert list(order.due(second)) == []
    assert [names(table) for table in order.due(first)] == [["0-0"], ["0-1", "0-2"]]
    assert [names(table) for table in order.due(third)] == [["0-3", "0-4", "0-5"]]


def test_a_parcel_that_comes_twice_is_noticed() -> None:
    first, second, third = parcels(units(0, 6), 0, ParcelSize(most=4))
    for before, again in (([first], first), ([first, second], first), ([third], third)):
        order = InOrder()
        for parcel in before:
            list(order.due(parcel))
        with pytest.raises(StreamBroken, match="twice"):
            list(order.due(again))


def test_a_parcel_that_never_comes_is_noticed() -> None:
    order = InOrder()

    def send(numbers: range) -> list[pa.Table]:
        sent = (parcels(units(n, 1), n, ParcelSize(most=4)) for n in numbers)
        return [due for (parcel,) in sent for due in order.due(parcel)]

    assert send(range(1, 20)) == []
    with pytest.raises(StreamBroken, match=r"parcel \(0, 0\) did not come"):
        send(range(20, 100))


@pytest.mark.parametrize(
    ("preset", "unit_size", "most"),
    [("realtime", 16, 16), ("realtime", 128, 2), ("realtime", 1000, 1), ("paper", 16, 1)],
)
def test_a_parcel_is_as_long_as_its_units_are_cheap(preset: str, unit_size: int, most: int) -> None:
    model, method = ModelConfig(model="ViT-B-16"), PRESETS[preset]
    config = RunConfig(input="in", output="out", labels="l.txt", model=model, method=method)
    assert parcel_size(config, unit_size) == ParcelSize(first=4, most=most)
    assert parcel_size(replace(config, num_labelers=2), unit_size).first == 1
