"""The gate in front of the batches: a free model waits for nobody, a busy one gets all who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mint_stream.serving.gate import Gate


class Model:
    """Stands where `@serve.batch` does: takes together whoever came in at once."""

    def __init__(self, most: int = 4) -> None:
        self.gate = Gate(most)
        self.batches: list[list[int]] = []
        self.go_on = asyncio.Event()
        self._filling: list[tuple[int, asyncio.Future[int]]] = []

    async def ask(self, number: int) -> int:
        async with self.gate:
            answer = asyncio.get_running_loop().create_future()
            self._filling.append((number, answer))
            if len(self._filling) == 1:
                asyncio.get_running_loop().call_soon(self._close)
            return await answer

    def _close(self) -> None:
        batch, self._filling = self._filling, []
        self.batches.append([number for number, _ in batch])
        self._task = asyncio.create_task(self._run(batch))

    async def _run(self, batch: list[tuple[int, asyncio.Future[int]]]) -> None:
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


def test_a_free_model_gets_a_question_at_once() -> None:
    async def play(model: Model) -> None:
        for number in range(3):
            task = asyncio.create_task(model.ask(number))
            await settle()
            assert model.batches[-1] == [number]
            model.go_on.set()
            assert await task == number

    scenario(play)


def test_who_comes_while_the_model_works_goes_on_together_and_in_order() -> None:
    async def play(model: Model) -> None:
        asked = [asyncio.create_task(model.ask(number)) for number in range(8)]
        await settle()
        assert model.batches == [[0]]
        model.go_on.set()
        await settle()
        assert model.batches == [[0], [1, 2, 3, 4]]
        asked.append(asyncio.create_task(model.ask(8)))
        await finish(model, asked)
        assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8]]

    scenario(play)


@pytest.mark.parametrize("gone", [{1}, {1, 2, 3, 4, 5, 6, 7}, {0}, {0, 3, 7}])
@pytest.mark.parametrize("when", ["waiting", "let in"])
def test_who_gives_up_leaves_no_place_taken(gone: set[int], when: str) -> None:
    async def play(model: Model) -> None:
        asked = [asyncio.create_task(model.ask(number)) for number in range(8)]
        await settle()
        if when == "let in":
            model.gate.free()  # Tickets are given out, and nobody has run since.
        for number in gone:
            asked[number].cancel()
        await finish(model, asked)
        for number, task in enumerate(asked):
            assert task.cancelled() if number in gone else task.result() == number
        late = asyncio.create_task(model.ask(99))
        await settle()
        assert model.batches[-1] == [99], "a free model must not make anybody wait"
        await finish(model, [late])

    scenario(play)
