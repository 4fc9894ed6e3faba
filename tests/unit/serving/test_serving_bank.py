"""Which bank answers: found, checked, taken over, read without a trace, or taught as a unit."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pyarrow.parquet as pq
import pytest
import serving_world as world
import tiny
import torch
from serving_client import problem

from mint_stream import PRESETS
from mint_stream.bank.client import BankClient, LocalBank
from mint_stream.input.images import decode
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.method import bank_state
from mint_stream.serving import replica
from mint_stream.serving.answers import TaughtAnswers
from mint_stream.serving.banks.reader import BankReader
from mint_stream.serving.banks.watch import CheckpointWatch, LiveWatch, WrongBank
from mint_stream.serving.http.problems import Problem
from mint_stream.serving.questions import Answer, message
from mint_stream.serving.service import Asked, ServicePlan
from mint_stream.store.store import Store


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> tiny.Assets:
    return tiny.write_assets(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def plan(assets: tiny.Assets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServicePlan:
    monkeypatch.setitem(PRESETS, "tiny", tiny.METHOD)
    return world.plan(assets, preset="tiny", bank=str(tmp_path / "bank"), bank_poll_s=0.01)


def watch(plan: ServicePlan, root: Path) -> CheckpointWatch:
    return CheckpointWatch(
        Store(root), model_hash=plan.model_hash, method=plan.settings.method, width=plan.width
    )


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_watch_gives_each_newer_checkpoint_once(plan: ServicePlan, tmp_path: Path) -> None:
    found = watch(plan, tmp_path)
    assert found.news() is None
    world.save(tmp_path, plan, world.taught(plan, seed=1))
    first = found.news()
    assert first is not None
    assert first.banks.seq == 1
    assert found.news() is None
    world.save(tmp_path, plan, world.taught(plan, seed=2))
    world.save(tmp_path, plan, world.taught(plan, seed=3))
    newest = found.news()
    assert newest is not None
    assert newest.banks.seq == 3
    assert newest.source.endswith(".json")
    assert abs(newest.made_at - time.time()) < 60
    assert found.news() is None


def test_a_damaged_or_unfinished_checkpoint_is_passed_over(
    plan: ServicePlan, tmp_path: Path
) -> None:
    found = watch(plan, tmp_path)
    world.save(tmp_path, plan, world.taught(plan, seed=1))
    second = world.save(tmp_path, plan, world.taught(plan, seed=2))
    third = world.save(tmp_path, plan, world.taught(plan, seed=3))
    fourth = world.save(tmp_path, plan, world.taught(plan, seed=4))
    (tmp_path / f"{fourth}.json").unlink()
    data = bytearray((tmp_path / f"{third}.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / f"{third}.parquet").write_bytes(data)
    (tmp_path / f"{second}.json").write_text("{}")
    news = found.news()
    assert news is not None
    assert news.banks.seq == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "other"}, "another model ('other' there"),
        ({"method": {"name": "paper", "views": 64}}, "another preset (algorithm is None there"),
    ],
)
def test_a_bank_of_another_model_or_preset_is_refused(
    plan: ServicePlan, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    world.save(tmp_path, plan, world.taught(plan, seed=1), **changes)
    with pytest.raises(WrongBank) as error:
        watch(plan, tmp_path).news()
    assert said in str(error.value)


def test_reading_a_bank_is_the_method_s_own_prediction_without_a_step(plan: ServicePlan) -> None:
    adapter = world.labeler(plan).adapter
    banks = world.taught(plan, seed=2)
    state = banks.state("shared")
    adapter.load_bank(*bank_state.effective(state), state.usage_K)
    before = [tensor.clone() for tensor in (adapter.bank.keys_KD, adapter.bank.prompts_KPD)]
    images = [decode(tiny.png(number)).rgb_HW3 for number in range(9)]
    wanted = []
    for image in images:
        adapter.reset()
        seen = adapter.look(adapter.views(image, "any")[:1])
        wanted.append(adapter.predict(seen)[0].softmax(-1))
    reader = BankReader(adapter)
    reader.banks = reader.load(banks, "shared")
    views = torch.cat([reader.view(image) for image in images])
    readings = reader.read(views, [None] * 9, 5)
    for reading, p_C in zip(readings, wanted, strict=True):
        scores, indices = p_C.topk(5)
        assert [label for label, _ in reading.prediction.topk] == [
            adapter.labels[i] for i in indices.tolist()
        ]
        np.testing.assert_allclose(
            [score for _, score in reading.prediction.topk], scores.numpy(), atol=1e-5
        )
        assert reading.prediction.adapted
    assert torch.equal(before[0], adapter.bank.keys_KD)
    assert torch.equal(before[1], adapter.bank.prompts_KPD)


def test_the_frozen_side_is_the_offline_frozen_answer(plan: ServicePlan) -> None:
    adapter = world.labeler(plan).adapter
    reader = BankReader(adapter)
    views = torch.cat([reader.view(decode(tiny.png(n)).rgb_HW3) for n in range(6)])
    frozen = adapter.label_frozen(adapter.look(views), 5)
    for banks in (None, world.taught(plan, seed=1)):
        if banks is not None:
            reader.banks = reader.load(banks, "shared")
        for reading, offline in zip(reader.read(views, [None] * 6, 5), frozen, strict=True):
            assert reading.source_topk == offline.topk
            assert reading.prediction.source_label == offline.label
            assert banks is not None or reading.prediction.topk == offline.topk
            assert reading.prediction.adapted == (banks is not None)


def test_each_camera_reads_its_own_bank_and_one_without_gets_the_frozen_answer(
    plan: ServicePlan,
) -> None:
    reader = BankReader(world.labeler(plan).adapter)
    banks = world.taught(plan, seed=4, scopes=("north", "south"))
    reader.banks = reader.load(banks, "camera")
    view = reader.view(decode(tiny.png(3)).rgb_HW3)
    cameras = ["south", "east", "north", None, "south"]
    together = reader.read(view.repeat(5, 1, 1, 1), cameras, 5)
    assert [r.scope for r in together] == ["south", "east", "north", "shared", "south"]
    assert [r.prediction.adapted for r in together] == [True, False, True, False, True]
    assert together[1].prediction.topk == together[1].source_topk
    for camera, reading in zip(cameras, together, strict=True):
        (alone,) = reader.read(view, [camera], 5)
        assert [label for label, _ in alone.prediction.topk] == [
            label for label, _ in reading.prediction.topk
        ]
        np.testing.assert_allclose(
            alone.prediction.confidence, reading.prediction.confidence, atol=1e-5
        )
    assert together[0].prediction.confidence != together[2].prediction.confidence


def test_a_service_is_ready_when_its_bank_is_and_takes_newer_ones_over(
    plan: ServicePlan, tmp_path: Path
) -> None:
    image = image_files.jpeg()
    with world.client(plan) as client:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "no sound checkpoint was found yet" in answer.json()["detail"]
        assert client.get("/healthz").status_code == 200
        answer = client.post("/v1/label", content=image, headers=world.JPEG)
        assert (answer.status_code, answer.json()["type"]) == (
            503,
            "urn:mint-stream:problem:bank-missing",
        )
        for seq in (1, 2):
            world.save(tmp_path, plan, world.taught(plan, seed=seq))
            until(lambda seq=seq: client.get("/v1/bank").json()["seq"] == seq)  # type: ignore[misc]
            answer = client.post("/v1/label", content=image, headers=world.JPEG)
            assert (answer.status_code, answer.json()["bank_seq"]) == (200, seq)
        assert client.get("/readyz").status_code == 200
        # One that cannot be used costs nothing but news.
        world.save(tmp_path, plan, world.taught(plan, seed=3), model="other")
        until(lambda: client.get("/v1/bank").json()["last_error"] is not None)
        assert client.get("/readyz").status_code == 200
        answer = client.post("/v1/label", content=image, headers=world.JPEG)
        assert (answer.status_code, answer.json()["bank_seq"]) == (200, 2)


def test_a_live_bank_is_followed_merge_by_merge_and_not_changed(plan: ServicePlan) -> None:
    method = plan.settings.method
    bank = LocalBank(
        bank_state.initial_state(
            entries=method.bank_size, prompt_rows=method.prompt_rows, width=plan.width, seed=0
        )
    )
    live = LiveWatch(BankClient(bank), name="live", reader="serve-1", scope="shared")
    first = live.news()
    assert first is not None
    assert (first.banks.seq, dict(first.banks.states)) == (0, {})
    assert live.news() is None
    writer = world.labeler(plan)
    writer.bank = BankClient(bank)
    for number in (1, 2):
        writer.label_unit(world.unit(f"unit-{number}", [number]))
        news = live.news()
        assert news is not None
        assert news.banks.seq == number
        np.testing.assert_array_equal(
            news.banks.state("shared").keys_KD, bank.live.state("shared").keys_KD
        )
    assert live.news() is None
    assert bank.live.seq == 2


@pytest.mark.parametrize("shadow", [False, True])
def test_requests_that_teach_are_the_pipeline_s_units_label_for_label(
    plan: ServicePlan, shadow: bool
) -> None:
    method = plan.settings.method
    start = bank_state.initial_state(
        entries=method.bank_size, prompt_rows=method.prompt_rows, width=plan.width, seed=0
    )
    units = [[0, 1, 2], [3], [4, 5]]
    offline, bank = world.labeler(plan), LocalBank(start)
    offline.bank = BankClient(bank)
    rows = [
        row
        for number, images in enumerate(units)
        for row in pq.read_table(
            io.BytesIO(offline.label_unit(world.unit(f"u-{number}", images)).labels)
        ).to_pylist()
    ]
    serving, mine = world.labeler(plan), LocalBank(start)
    reader = BankReader(serving.adapter)
    serving.bank = BankClient(mine)
    answers = taught_answers(serving, reader, mine, shadow=shadow)
    answers.start()
    shortest = replica.min_short_side(reader)
    direct = world.Direct(plan)
    service = world.service(plan, direct)
    service.answers, service._min_short_side = answers, shortest
    served = []
    for images in units:
        questions = [service._question(tiny.png(n), Asked(frame=f"frame-{n}")) for n in images]
        outcomes = answers.answer(questions)
        assert all(isinstance(outcome, Answer) for outcome in outcomes)
        served += [(outcome, question) for outcome, question in zip(outcomes, questions)]  # noqa: B905
    assert len(served) == len(rows)
    for row, (outcome, question) in zip(rows, served, strict=True):
        assert isinstance(outcome, Answer)
        assert outcome.prediction.label == row["label"]
        assert outcome.prediction.confidence == row["confidence"]
        assert outcome.prediction.source_label == row["source_label"]
        assert outcome.seq == row["bank_seq"]
        sent = message(question, outcome, service._identity, 1.0)
        assert sent.source_label == row["source_label"]
        assert sent.adapted is not shadow
        assert sent.label == (row["source_label"] if shadow else row["label"])
        assert (sent.shadow is not None) is shadow
        if sent.shadow is None:
            assert sent.entropy == pytest.approx(row["entropy"])
        else:
            p = np.array([score for _, score in outcome.source_topk])
            assert p.sum() == pytest.approx(1, abs=1e-5)
            assert sent.entropy == pytest.approx(-(p * np.log(p)).sum(), abs=1e-5)
            assert sent.shadow.label == row["label"]
    np.testing.assert_array_equal(
        mine.live.state("shared").prompts_KPD, bank.live.state("shared").prompts_KPD
    )
    assert answers.bank.seq == 3
    assert answers.bank.retrievals > 0


def taught_answers(
    labeler: MintLabeler, reader: BankReader, bank: LocalBank, **more: Any
) -> TaughtAnswers:
    given = {"name": "serve-1", "source": "here", "shadow": False, "max_cameras": 64, **more}
    return TaughtAnswers(labeler, reader, bank, **given)


def test_cameras_beyond_the_limit_are_refused_and_teach_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = world.plan(
        tiny.write_assets(tmp_path),
        bank=str(tmp_path / "bank"),
        adapt="on",
        bank_scope="camera",
        max_cameras=2,
    )
    bank = LocalBank(
        bank_state.initial_state(
            entries=served.settings.method.bank_size,
            prompt_rows=served.settings.method.prompt_rows,
            width=served.width,
            seed=0,
        )
    )
    monkeypatch.setattr(replica, "_taught_bank", lambda *_: (bank, "here"))
    replicas = [world.Direct(served), world.Direct(served)]
    service = world.service(served, replicas[0])

    def asked(of: world.Direct, *cameras: str | None) -> list[str]:
        questions = [
            service._question(tiny.png(number), Asked(camera=camera, frame=str(camera)))
            for number, camera in enumerate(cameras)
        ]
        return [
            outcome.kind if isinstance(outcome, Problem) else outcome.scope
            for outcome in of.answers.answer(questions)
        ]

    full = "too-many-cameras"
    assert asked(replicas[0], "a", None, "b", "a", "c", None, "d") == [
        *("a", "shared", "b", "a", full, "shared", full)
    ]
    for each in replicas:
        assert asked(each, "c", "b", "shared", "a") == [full, "b", "shared", "a"]
        assert asked(each, *(f"made up {number}" for number in range(100))) == [full] * 100
    assert bank.live.states.keys() == {"a", "b", "shared"}
    with world.client(served) as client:
        answer = client.post("/v1/label?camera=e", content=image_files.jpeg(), headers=world.JPEG)
        assert answer.status_code == 422
        assert "max_cameras" in problem(answer, full).remedy
        known = client.post("/v1/label?camera=b", content=image_files.jpeg(), headers=world.JPEG)
        assert (known.status_code, known.json()["bank_scope"]) == (200, "b")


@pytest.mark.parametrize(("budget", "adapted"), [(None, True), (1e-9, False)])
def test_the_budget_is_the_pipeline_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float | None, adapted: bool
) -> None:
    taught = world.plan(
        tiny.write_assets(tmp_path), bank=str(tmp_path / "bank"), adapt="on", adapt_budget=budget
    )
    method = taught.settings.method
    bank = LocalBank(
        bank_state.initial_state(
            entries=method.bank_size, prompt_rows=method.prompt_rows, width=taught.width, seed=0
        )
    )
    monkeypatch.setattr(replica, "_taught_bank", lambda *_: (bank, "here"))
    direct = world.Direct(taught)
    [outcome] = direct.answers.answer(
        [world.service(taught, direct)._question(tiny.png(1), Asked())]
    )
    assert isinstance(outcome, Answer)
    assert outcome.prediction.adapted is adapted
