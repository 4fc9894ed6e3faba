"""The gate in front of the batches: a free model waits for nobody, a busy one gets all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mint_stream.serving.gate import Gate


class Model:
    """Stands where `@serve.batch` does: takes together whoever came in at once, `most` at a time.

    `let_in` are the batches in the order in which they came; the model works on one at a time.
    """

    def __init__(self, most: int = 4) -> None:
        self._most, self.gate = most, Gate(most)
        self.let_in: list[list[int]] = []
        self.go_on = asyncio.Event()
        self._working = asyncio.Lock()
        self._filling: list[tuple[int, asyncio.Future[int]]] = []

    async def ask(self, number: int) -> int:
        async with self.gate.place():
            answer = asyncio.get_running_loop().create_future()
            self._filling.append((number, answer))
            if len(self._filling) == 1:
                asyncio.get_running_loop().call_soon(self._close)
            return await answer

    def _close(self) -> None:
        batch, self._filling = self._filling[: self._most], self._filling[self._most :]
        if self._filling:
            asyncio.get_running_loop().call_soon(self._close)
        self.let_in.append([number for number, _ in batch])
        self._task = asyncio.create_task(self._run(batch))

    async def _run(self, batch: list[tuple[int, asyncio.Future[int]]]) -> None:
        async with self._working:
            await self.go_on.wait()
            self.go_on.clear()
        for number, answer in batch:
            if not answer.done():
                answer.set_result(number)
        self.gate.free()


def scenario(play: Callable[[Model], Awaitable[None]]) -> Model:
    async def run() -> Model:
        model = Model()
        await asyncio.wait_for(play(model), 20)
        return model

    return asyncio.run(run())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def finish(model: Model, asked: list[asyncio.Task[int]]) -> None:
    while not all(task.done() for task in asked):
        model.go_on.set()
        await settle()


async def work(model: Model) -> None:
    """The model finishes the batch that it works on."""
    model.go_on.set()
    await settle()


async def busy(model: Model, number: int = 0) -> asyncio.Task[int]:
    """The model works on this question alone."""
    task = asyncio.create_task(model.ask(number))
    await settle()
    assert model.let_in[-1] == [number]
    return task


def test_a_free_model_gets_a_question_at_once() -> None:
    async def play(model: Model) -> None:
        for number in range(3):
            task = asyncio.create_task(model.ask(number))
            await settle()
            assert model.let_in[-1] == [number]
            model.go_on.set()
            assert await task == number

    scenario(play)


def test_who_comes_at_once_goes_together() -> None:
    async def play(model: Model) -> None:
        asked = [asyncio.create_task(model.ask(number)) for number in range(3)]
        await settle()
        assert model.let_in == [[0, 1, 2]]
        await finish(model, asked)

    scenario(play)


def test_who_comes_while_the_model_works_goes_on_together_and_in_order() -> None:
    async def play(model: Model) -> None:
        asked = [await busy(model)]
        for number in (1, 2, 3):
            asked.append(asyncio.create_task(model.ask(number)))
            await settle()
        assert model.let_in == [[0]], "three are no full batch: others may join them"
        await work(model)
        assert model.let_in == [[0], [1, 2, 3]]
        await finish(model, asked)

    scenario(play)


def test_a_full_batch_stands_ready_behind_the_one_under_way_and_only_one() -> None:
    async def play(model: Model) -> None:
        asked = [asyncio.create_task(model.ask(number)) for number in range(14)]
        await settle()
        assert model.let_in == [[0, 1, 2, 3], [4, 5, 6, 7]]
        await work(model)
        assert model.let_in[2:] == [[8, 9, 10, 11]]
        await work(model)
        assert model.let_in[3:] == [], "two are no full batch, and one is under way"
        asked += [asyncio.create_task(model.ask(number)) for number in (14, 15, 16)]
        await settle()
        assert model.let_in[3:] == [[12, 13, 14, 15]], "it goes on as soon as it is full"
        await finish(model, asked)
        assert model.let_in[4:] == [[16]]

    scenario(play)


@pytest.mark.parametrize("gone", [{1}, set(range(1, 9)), {0}, {0, 3, 7}, {1, 2, 3, 4}])
@pytest.mark.parametrize("when", ["waiting", "let in"])
def test_who_gives_up_leaves_no_place_taken(gone: set[int], when: str) -> None:
    async def play(model: Model) -> None:
        asked = [await busy(model)]
        asked += [asyncio.create_task(model.ask(number)) for number in range(1, 9)]
        await settle()
        assert model.let_in == [[0], [1, 2, 3, 4]]
        if when == "let in":
            model.gate.free()  # Tickets are given out, and nobody has run since.
        for number in gone:
            asked[number].cancel()
        await finish(model, asked)
        for number, task in enumerate(asked):
            assert task.cancelled() if number in gone else task.result() == number
        late = [await busy(model, 99)]
        late += [asyncio.create_task(model.ask(number)) for number in range(100, 106)]
        await settle()
        assert model.let_in[-2:] == [[99], [100, 101, 102, 103]], "as if nobody had been there"
        await finish(model, late)

    scenario(play)


def test_who_gives_up_while_waiting_fills_no_batch() -> None:
    async def play(model: Model) -> None:
        asked = [await busy(model)]
        asked += [asyncio.create_task(model.ask(number)) for number in (1, 2, 3)]
        await settle()
        asked[2].cancel()
        asked.append(asyncio.create_task(model.ask(4)))
        await settle()
        assert model.let_in == [[0]], "one of the four is gone"
        await work(model)
        assert model.let_in == [[0], [1, 3, 4]]
        await finish(model, asked)

    scenario(play)
