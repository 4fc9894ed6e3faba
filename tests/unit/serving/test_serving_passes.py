"""With `adapt` on an image goes through the encoder once, and its answer through no file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import serving_world as world
import tiny

from mint_stream.bank.client import LocalBank
from mint_stream.labeler import labeler
from mint_stream.method import bank_state
from mint_stream.serving import replica
from mint_stream.serving.questions import Answer
from mint_stream.serving.service import Asked

IMAGES = 3


@pytest.mark.parametrize("shadow", [False, True], ids=["on", "shadow"])
@pytest.mark.parametrize(("preset", "views"), [("realtime", 1), ("paper", 64)])
def test_each_view_is_encoded_once_and_no_labels_file_is_made(
    preset: str, views: int, shadow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = world.plan(
        tiny.write_assets(tmp_path),
        preset=preset,
        bank=str(tmp_path / "bank"),
        adapt="shadow" if shadow else "on",
    )
    method = plan.settings.method
    bank = LocalBank(
        bank_state.initial_state(
            entries=method.bank_size,
            prompt_rows=method.prompt_rows,
            width=plan.width,
            seed=method.bank_seed(0),
        )
    )
    monkeypatch.setattr(replica, "_taught_bank", lambda *_: (bank, "here"))
    direct = world.Direct(plan)
    service = world.service(plan, direct)
    questions = [service._question(tiny.png(number), Asked()) for number in range(IMAGES)]
    encoded: list[int] = []

    def count(_: Any, given: tuple[Any, ...]) -> None:
        encoded.append(len(given[0]))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("an answer needs no file")

    visual = direct.answers.reader.adapter.clip.model.visual
    visual.conv1.register_forward_pre_hook(count)
    monkeypatch.setattr(labeler, "labels_file", refuse)
    monkeypatch.setattr(pq, "read_table", refuse)
    outcomes = direct.answers.answer(questions)
    assert [type(outcome) for outcome in outcomes] == [Answer] * IMAGES
    assert sum(encoded) == IMAGES * views
    for outcome in outcomes:
        assert isinstance(outcome, Answer)
        assert len(outcome.source_topk) == len(tiny.CLASSES)
        assert outcome.source_topk[0][0] == outcome.prediction.source_label
        assert outcome.source_topk[0][1] == pytest.approx(outcome.prediction.source_confidence)
