"""The service over HTTP, in this process: what it answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import image_files
import pytest
import serving_world as world
import tiny
from serving_client import parts
from starlette.testclient import TestClient

from mint_stream.serving.http.messages import Label, Labels
from mint_stream.serving.service import Asked, Service, ServicePlan


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_one_image_as_a_raw_body(client: TestClient, limited: ServicePlan, kind: str) -> None:
    data = image_files.encode(image_files.quadrants(64, 48), kind)
    answer = client.post(
        "/v1/label?top_k=2&camera=north&frame=a/b.jpg",
        content=data,
        headers={"Content-Type": f"image/{kind.lower()}"},
    )
    assert answer.status_code == 200
    label = Label.model_validate(answer.json(), strict=True)
    assert (label.frame, label.camera, label.width, label.height) == ("a/b.jpg", "north", 64, 48)
    assert len(label.topk) == len(label.source_topk) == 2
    assert (label.label, label.confidence) == (label.topk[0]["label"], label.topk[0]["score"])
    assert label.source_label == label.source_topk[0]["label"]
    assert label.adapted
    assert label.shadow is None
    assert (label.bank_seq, label.bank_scope, label.preset) == (5, "shared", "paper")
    assert (label.model, label.classes) == (limited.model_hash, limited.classes.hash)
    assert label.ms > 0


def test_top_k_is_5_unless_given_and_never_more_than_there_are_classes(client: TestClient) -> None:
    image = image_files.jpeg()
    assert len(client.post("/v1/label", content=image, headers=world.JPEG).json()["topk"]) == 5
    many = client.post("/v1/label?top_k=1000", content=image, headers=world.JPEG).json()
    assert sorted(score["label"] for score in many["topk"]) == sorted(tiny.CLASSES)
    assert sum(score["score"] for score in many["topk"]) == pytest.approx(1, abs=1e-5)


def test_an_image_is_named_by_its_content(client: TestClient) -> None:
    def frame(image: bytes) -> str:
        return str(client.post("/v1/label", content=image, headers=world.JPEG).json()["frame"])

    assert frame(image_files.jpeg(1)) == frame(image_files.jpeg(1)) != frame(image_files.jpeg(2))


def test_one_image_as_multipart_answers_like_the_raw_body(client: TestClient) -> None:
    image = image_files.jpeg(4)
    raw = client.post("/v1/label?top_k=3", content=image, headers=world.JPEG).json()
    form = client.post("/v1/label", files=parts(image), data={"top_k": "3"}).json()
    assert {**raw, "ms": 0} == {**form, "ms": 0}


@pytest.mark.parametrize("path", ["/v1/label", "/v1/labels:batch"])
def test_a_bad_image_costs_only_its_own_place(client: TestClient, path: str) -> None:
    good = image_files.jpeg(1)
    answer = client.post(path, files=parts(good, good[:200], image_files.jpeg(2)))
    assert answer.status_code == 200
    labels = Labels.model_validate(answer.json())
    assert [result.index for result in labels.results] == [0, 1, 2]
    assert [result.label is not None for result in labels.results] == [True, False, True]
    assert (labels.labelled, labels.rejected) == (2, 1)
    found = labels.results[1].problem
    assert found is not None
    assert found.type.endswith(":image-unreadable")
    alone = client.post("/v1/label", content=good, headers=world.JPEG).json()
    assert labels.results[0].label is not None
    assert labels.results[0].label.label == alone["label"]


def test_a_batch_of_one_is_still_a_list(client: TestClient) -> None:
    answer = client.post("/v1/labels:batch", files=parts(image_files.jpeg()))
    assert len(answer.json()["results"]) == 1


def test_an_image_on_which_the_model_fails_fails_alone(
    running: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, service = running
    read = service.answers.reader.read

    def poisoned(images_B3HW: Any, cameras: Any, top_k: int) -> Any:
        if "poison" in cameras:
            raise RuntimeError("CUDA error: device-side assert")
        return read(images_B3HW, cameras, top_k)

    monkeypatch.setattr(service.answers.reader, "read", poisoned)
    questions = [
        service._question(image_files.jpeg(n), Asked(camera=camera))
        for n, camera in enumerate(["a", "poison", None, "b"])
    ]
    outcomes = service.answers.answer(questions)
    assert [getattr(outcome, "kind", "fine") for outcome in outcomes] == [
        *("fine", "internal", "fine", "fine")
    ]


def test_answers_do_not_depend_on_who_asks_at_the_same_time(client: TestClient) -> None:
    images = [tiny.png(number) for number in range(12)]
    kind = {"Content-Type": "image/png"}

    def label(image: bytes) -> str:
        return str(client.post("/v1/label", content=image, headers=kind).json()["label"])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(label, images)) == [label(image) for image in images]
