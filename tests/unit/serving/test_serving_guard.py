"""What the guard says of a domain holds for single frames as it does in the pipeline."""

from __future__ import annotations

from collections import defaultdict
from itertools import chain, cycle, islice
from pathlib import Path

import numpy as np
import pytest
import serving_world as world
import tiny

from mint_stream.bank.client import BankClient, LocalBank
from mint_stream.input.images import decode
from mint_stream.method import bank_state
from mint_stream.method.guard import ADAPTING, LEARNING
from mint_stream.serving import replica
from mint_stream.serving.questions import Answer
from mint_stream.serving.service import Asked, ServicePlan

TOGETHER = 16
"""Frames in a unit."""
VERDICTS = (ADAPTING, LEARNING, "uniform", "correlated")
PNG = {"Content-Type": "image/png"}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ServicePlan:
    root = tmp_path_factory.mktemp("guard")
    return world.plan(tiny.write_assets(root), preset="realtime", bank=str(root / "out"))


@pytest.fixture(scope="module")
def of_each_class(plan: ServicePlan) -> list[int]:
    """Numbers of images on which the frozen answers are the classes in turn."""
    adapter = world.labeler(plan).adapter
    images = [decode(tiny.png(number)).rgb_HW3 for number in range(400)]
    found = defaultdict(list)
    answers = adapter.label_frozen(adapter.look(adapter.first_views(images)))
    for number, prediction in enumerate(answers):
        found[prediction.label].append(number)
    in_turn = zip(*map(cycle, found.values()), strict=True)
    return list(islice(chain.from_iterable(in_turn), 16 * TOGETHER))


def stream(verdict: str, of_each_class: list[int]) -> list[list[int]]:
    """Units after which the guard says `verdict`."""
    if verdict == ADAPTING:
        return [of_each_class[TOGETHER * n : TOGETHER * (n + 1)] for n in range(16)]
    if verdict == "correlated":
        return [[number] * TOGETHER for number in range(12)]
    units = 2 if verdict == LEARNING else 14
    return [list(range(TOGETHER * n, TOGETHER * (n + 1))) for n in range(units)]


def taught(plan: ServicePlan, verdict: str, of_each_class: list[int]) -> LocalBank:
    """A bank as the pipeline's labeler leaves it, which ended with `verdict`."""
    method = plan.settings.method
    start = bank_state.initial_state(
        entries=method.bank_size,
        prompt_rows=method.prompt_rows,
        width=plan.width,
        seed=method.bank_seed(0),
    )
    bank, labeler = LocalBank(start), world.labeler(plan)
    labeler.bank = BankClient(bank)
    guard = ""
    for number, images in enumerate(stream(verdict, of_each_class)):
        predictions = labeler.answer(world.unit(f"u{number}", images)).predictions
        assert predictions is not None
        guard = predictions[0].guard
    assert guard == verdict
    return bank


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_bank_that_is_read_answers_only_where_the_guard_lets_it(
    plan: ServicePlan, of_each_class: list[int], verdict: str, tmp_path: Path
) -> None:
    plan = world.with_settings(plan, bank=str(tmp_path))
    world.save(tmp_path, plan, taught(plan, verdict, of_each_class).live)
    with world.client(plan) as client:
        labels = [
            client.post("/v1/label", content=tiny.png(number), headers=PNG).json()
            for number in islice(of_each_class, 10)
        ]
    assert {label["bank_seq"] for label in labels} == {len(stream(verdict, of_each_class))}
    assert {label["adapted"] for label in labels} == {verdict == ADAPTING}
    changed = [label["topk"] != label["source_topk"] for label in labels]
    assert set(changed) == {verdict == ADAPTING}


@pytest.mark.parametrize("shadow", [False, True])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_bank_that_is_taught_answers_only_where_the_guard_lets_it(
    plan: ServicePlan,
    of_each_class: list[int],
    verdict: str,
    shadow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank = taught(plan, verdict, of_each_class)
    monkeypatch.setattr(replica, "_taught_bank", lambda *_: (bank, "here"))
    plan = world.with_settings(plan, adapt="shadow" if shadow else "on")
    direct = world.Direct(plan)
    service = world.service(plan, direct)
    for number in islice(of_each_class, 5):
        [outcome] = direct.answers.answer([service._question(tiny.png(number), Asked())])
        assert isinstance(outcome, Answer)
        found = outcome.prediction
        assert found.adapted is (verdict == ADAPTING)
        same = np.isclose(found.topk[0][1], found.source_confidence, atol=1e-6)
        assert same or verdict == ADAPTING
        if verdict != ADAPTING:
            assert found.label == found.source_label
