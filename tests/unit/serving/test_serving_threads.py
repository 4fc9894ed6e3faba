"""How many threads of torch a replica takes: many only where they are clearly faster."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_stream.serving import replica
from mint_stream.serving.replica import keep_threads, settle_threads


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Reader:
    """Takes a time of its own for each number of threads."""

    def __init__(self, clock: Clock, seconds: dict[int, float]) -> None:
        preprocess = SimpleNamespace(size=8)
        self.adapter = SimpleNamespace(clip=SimpleNamespace(preprocess=preprocess))
        self.used: list[int] = []
        self._clock, self._seconds = clock, seconds

    def read(self, *_: object) -> list[Any]:
        self.used.append(torch.get_num_threads())
        # The first of each is slow, as first ones are.
        first = self.used.count(self.used[-1]) == 1
        self._clock.now += self._seconds[self.used[-1]] + (10.0 if first else 0.0)
        return []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    threads = torch.get_num_threads()
    clock = Clock()
    monkeypatch.setattr(replica, "time", clock)
    yield clock
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("one", "four", "chosen"), [(1.0, 0.3, 4), (1.0, 0.7, 4), (1.0, 0.8, 1), (1.0, 1.5, 1)]
)
def test_many_threads_are_taken_where_they_are_a_third_faster(
    clock: Clock, one: float, four: float, chosen: int
) -> None:
    reader: Any = Reader(clock, {1: one, 4: four})
    assert settle_threads(reader, 4) == chosen
    assert torch.get_num_threads() == chosen
    assert set(reader.used) == {1, 4}


def test_one_core_needs_no_measurement(clock: Clock) -> None:
    reader: Any = Reader(clock, {})
    assert settle_threads(reader, 1) == 1
    assert reader.used == []


def test_the_model_s_thread_keeps_its_number_whatever_decoders_set(clock: Clock) -> None:
    reader: Any = None
    with (
        ThreadPoolExecutor(1) as model,
        ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as decoder,
    ):
        assert model.submit(keep_threads, reader, 3).result() == 3
        assert decoder.submit(torch.get_num_threads).result() == 1
        assert model.submit(torch.get_num_threads).result() == 3
