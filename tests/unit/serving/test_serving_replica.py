"""A replica with Serve's own batches, in this process: what it is asked at once goes together."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serving_world as world
import tiny
from ray.serve import batching

from mint_stream.serving.questions import Answer, Question
from mint_stream.serving.replica import Replica
from mint_stream.serving.service import Asked

MOST = 8


@pytest.fixture
def replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Replica:
    """With one thread of torch, and a bank that has seen five merges."""
    plan = world.plan(
        tiny.write_assets(tmp_path),
        bank=str(tmp_path / "labelled" / "bank"),
        max_batch=MOST,
        max_waiting=256,
    )
    world.save(tmp_path / "labelled", plan, world.taught(plan, seed=5))
    # All that a batch asks of the replica around it.
    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=64))
    monkeypatch.setattr(batching.serve, "get_replica_context", lambda: context)
    return Replica(plan, None, 1)


def test_questions_go_together_and_answers_do_not_depend_on_it(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    answer = replica._answers.answer

    def count(questions: list[Question]) -> Any:
        sizes.append(len(questions))
        return answer(questions)

    monkeypatch.setattr(replica._answers, "answer", count)
    questions = [replica._service._question(tiny.png(n % 5), Asked()) for n in range(100)]

    async def ask() -> list[Any]:
        alone = [await replica._ask(question) for question in questions[:5]]
        together = [asyncio.create_task(replica._ask(question)) for question in questions]
        await asyncio.sleep(0)
        for number in (7, 50, 99):
            together[number].cancel()
        return [alone, await asyncio.gather(*together, return_exceptions=True)]

    alone, together = asyncio.run(asyncio.wait_for(ask(), 60))
    assert sizes[:5] == [1] * 5, "nobody waits for company"
    assert Counter(sizes[5:])[MOST] >= 10, "a busy model gets what came in the meantime"
    assert max(sizes) == MOST
    for number, outcome in enumerate(together):
        if number in (7, 50, 99):
            assert isinstance(outcome, asyncio.CancelledError)
            continue
        assert isinstance(outcome, Answer)
        wanted = alone[number % 5].prediction
        assert outcome.prediction.label == wanted.label
        assert outcome.prediction.confidence == pytest.approx(wanted.confidence, abs=1e-5)
