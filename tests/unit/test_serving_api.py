"""The service over HTTP, in this process: answers, limits, errors, tokens, what must not leak."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import image_files
import numpy as np
import pytest
import serving_world as world
import tiny
from PIL import Image
from starlette.testclient import TestClient

from mint_stream.serving.api import PAGE
from mint_stream.serving.messages import Label, Labels
from mint_stream.serving.problems import TITLES, ProblemDetails
from mint_stream.serving.service import Asked, Service, ServicePlan
from mint_stream.serving.settings import TOKEN_VARIABLE

LIMITS = {
    "max_body_mb": 0.25,
    "max_image_mb": 0.1,
    "max_megapixels": 0.5,
    "max_images": 3,
    "max_images_batch": 6,
    "max_waiting": 8,
}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> ServicePlan:
    root = tmp_path_factory.mktemp("serving")
    plan = world.plan(tiny.write_assets(root), bank=str(root / "labelled" / "bank"), **LIMITS)
    world.save(root / "labelled", plan, world.taught(plan, seed=5))
    return plan


@pytest.fixture(scope="module")
def running(plan: ServicePlan) -> Iterator[tuple[TestClient, Service]]:
    with world.serving(plan) as running:
        yield running


@pytest.fixture
def client(running: tuple[TestClient, Service]) -> TestClient:
    return running[0]


def parts(*images: bytes) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("image", (f"{n}.jpg", data, "image/jpeg")) for n, data in enumerate(images)]


def problem(answer: Any, kind: str) -> ProblemDetails:
    """The problem in `answer`, which must be of `kind` and complete."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found = ProblemDetails.model_validate(answer.json())
    assert found.type == f"urn:mint-stream:problem:{kind}", found
    assert answer.status_code == found.status == TITLES[kind][0]
    assert found.detail
    assert found.remedy
    assert found.request_id == answer.headers["x-request-id"]
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_one_image_as_a_raw_body(client: TestClient, plan: ServicePlan, kind: str) -> None:
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
    assert (label.label, label.confidence) == (label.topk[0].label, label.topk[0].score)
    assert label.source_label == label.source_topk[0].label
    assert label.adapted
    assert label.shadow is None
    assert (label.bank_seq, label.bank_scope, label.preset) == (5, "shared", "paper")
    assert (label.model, label.classes) == (plan.model_hash, plan.classes.hash)
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


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "no-image", 422),
        (b"GIF89a..", "unsupported-type", 415),
        (image_files.encode(image_files.quadrants(), "BMP"), "unsupported-type", 415),
        (image_files.encode(image_files.quadrants(), "TIFF"), "unsupported-type", 415),
        (b"https://example.com/a.jpg", "unsupported-type", 415),
        (image_files.jpeg()[:100], "image-unreadable", 422),
        (image_files.encode(image_files.quadrants(), "PNG")[:60], "image-unreadable", 422),
        (b"\xff\xd8\xff" + b"\0" * 50, "image-unreadable", 422),
        (image_files.png_that_claims(60_000, 60_000), "too-many-pixels", 422),
        (image_files.png_that_claims(1000, 501), "too-many-pixels", 422),
        (b"\xff\xd8\xff" + b"\0" * 110_000, "image-too-large", 413),
        (b"\xff\xd8\xff" + b"\0" * 300_000, "body-too-large", 413),
    ],
)
def test_what_is_no_image_or_too_much_of_one(
    client: TestClient, body: bytes, kind: str, status: int
) -> None:
    answer = client.post("/v1/label", content=body, headers=world.JPEG)
    assert problem(answer, kind).status == status


def test_a_bomb_is_refused_before_it_is_decoded(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("1", (9000, 9000)).save(file, "PNG")
    assert len(file.getvalue()) < 100_000
    started = time.perf_counter()
    found = problem(
        client.post("/v1/label", content=file.getvalue(), headers=world.JPEG), "too-many-pixels"
    )
    assert time.perf_counter() - started < 1
    assert "9000 x 9000 = 81.0 million pixels; the limit is 0.5 million" in found.detail


def test_a_body_that_lies_about_its_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 5_000_000:
            sent += 10_000
            yield b"\xff\xd8\xff" + b"\0" * 9_997

    problem(client.post("/v1/label", content=endless(), headers=world.JPEG), "body-too-large")


def test_limits_count_images_before_any_is_decoded(client: TestClient) -> None:
    image = image_files.jpeg()
    problem(client.post("/v1/label", files=parts(*[image] * 4)), "too-many-images")
    assert client.post("/v1/labels:batch", files=parts(*[image] * 6)).status_code == 200
    problem(client.post("/v1/labels:batch", files=parts(*[image] * 7)), "too-many-images")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("top_k=0", "top_k is '0'"),
        ("top_k=x", "top_k is 'x'"),
        ("top_k=99999", "top_k is '99999'"),
        ("topk=3", "topk is '3'"),
        ("camera=", "camera is ''"),
        ("url=http://169.254.169.254/", "url is 'http://169.254.169.254/'"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(
    client: TestClient, query: str, said: str
) -> None:
    answer = client.post(f"/v1/label?{query}", content=image_files.jpeg(), headers=world.JPEG)
    assert said in problem(answer, "bad-parameter").detail


def test_form_fields_are_checked_like_parameters(client: TestClient) -> None:
    image = image_files.jpeg()
    answer = client.post("/v1/label", files=parts(image), data={"top_k": "none"})
    assert "top_k is 'none'" in problem(answer, "bad-parameter").detail
    answer = client.post("/v1/label", files=parts(image), data={"url": "http://a"})
    assert "'url'" in problem(answer, "bad-parameter").detail
    problem(client.post("/v1/label", data={"camera": "north"}, files={}), "unsupported-type")


@pytest.mark.parametrize(
    ("content_type", "body", "kind"),
    [
        ("application/json", b'{"url": "http://a/b.jpg"}', "unsupported-type"),
        ("text/plain", b"hello", "unsupported-type"),
        ("multipart/form-data", b"--x\r\n", "bad-request"),
        ("multipart/form-data; boundary=x", b"no boundary here", "no-image"),
    ],
)
def test_bodies_of_other_kinds(
    client: TestClient, content_type: str, body: bytes, kind: str
) -> None:
    answer = client.post("/v1/label", content=body, headers={"Content-Type": content_type})
    assert answer.status_code in (400, 415, 422)
    assert problem(answer, kind if answer.status_code != 400 else "bad-request")


def test_addresses_and_methods_that_there_are_not(client: TestClient) -> None:
    problem(client.get("/v2/label"), "not-found")
    problem(client.get("/v1/label"), "method-not-allowed")


def test_info_and_bank_say_what_answers(client: TestClient, plan: ServicePlan) -> None:
    info = client.get("/v1/info").json()
    assert info["classes"] == list(tiny.CLASSES)
    assert (info["preset"], info["adapt"], info["model_hash"]) == ("paper", "off", plan.model_hash)
    assert info["bank_seq"] == 5
    assert 0 <= info["bank_age_s"] < 600
    assert info["limits"]["images_batch"] == LIMITS["max_images_batch"]
    bank = client.get("/v1/bank").json()
    assert (bank["seq"], bank["entries"], bank["used_entries"]) == (5, 512, 512)
    assert bank["source"].endswith(".json")
    assert bank["last_error"] is None


def test_request_ids_are_kept_if_they_are_plain_words_and_made_if_not(client: TestClient) -> None:
    kept = client.get("/healthz", headers={"X-Request-ID": "order-7.1"})
    assert kept.headers["x-request-id"] == "order-7.1"
    made = client.get("/healthz", headers={"X-Request-ID": "a b\t<script>"})
    assert "script" not in made.headers["x-request-id"]
    assert len({client.get("/healthz").headers["x-request-id"] for _ in range(5)}) == 5


def test_the_log_has_the_request_and_nothing_of_the_image(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("ray.serve").propagate = True
    with caplog.at_level(logging.INFO, logger="ray.serve.mint_stream"):
        client.post(
            "/v1/label?frame=secret-name",
            content=image_files.jpeg(),
            headers={**world.JPEG, "X-Request-ID": "seen-1"},
        )
    (line,) = {record.getMessage() for record in caplog.records if "seen-1" in record.getMessage()}
    assert "POST /v1/label status=200 images=1" in line
    assert "secret-name" not in line


def test_what_fails_inside_is_an_id_and_no_stack_trace(
    running: tuple[TestClient, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, service = running

    async def fail(*_: object) -> None:
        raise RuntimeError("the secret of the house")

    monkeypatch.setattr(service, "_batch", fail)
    answer = client.post("/v1/label", content=image_files.jpeg(), headers=world.JPEG)
    problem(answer, "internal")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    monkeypatch.undo()
    monkeypatch.setattr(service, "info", lambda: 1 / 0)
    answer = client.get("/v1/info")
    problem(answer, "internal")
    assert "division" not in answer.text
    assert service.held == 0


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


def test_a_full_replica_says_when_to_come_again_and_never_piles_up(plan: ServicePlan) -> None:
    async def scenario() -> None:
        direct = world.Direct(plan)
        service = world.service(plan, direct)
        direct.gate.clear()
        image, most = image_files.jpeg(), plan.settings.max_waiting
        waiting = [asyncio.create_task(world.ask(service, image)) for _ in range(most)]
        while service.held < most:
            await asyncio.sleep(0)
        status, headers, body = await world.ask(service, image)
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["type"].endswith(":busy")
        for task in waiting[: most // 2]:
            task.cancel()
        await asyncio.gather(*waiting[: most // 2], return_exceptions=True)
        assert service.held == most - most // 2
        direct.gate.set()
        answers = await asyncio.gather(*waiting[most // 2 :])
        assert {status for status, _, _ in answers} == {200}
        assert service.held == 0
        assert (await world.ask(service, image))[0] == 200

    asyncio.run(scenario())


def test_an_answer_that_takes_too_long_is_given_up(plan: ServicePlan) -> None:
    async def scenario() -> None:
        short = world.with_settings(plan, timeout_s=0.05)
        direct = world.Direct(short)
        service = world.service(short, direct)
        direct.gate.clear()
        status, headers, body = await world.ask(service, image_files.jpeg())
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["type"].endswith(":too-slow-answer")
        assert service.held == 0

    asyncio.run(scenario())


def test_a_token_is_asked_for_where_the_environment_has_one(
    plan: ServicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")
    right = {"Authorization": "Bearer s3cret"}
    with world.client(plan) as client:
        for path in ("/v1/info", "/v1/bank"):
            assert "no token" in problem(client.get(path), "unauthorized").detail
            assert client.get(path, headers=right).status_code == 200
        for given in ("s3cret2", "s3cre", "S3CRET", "geheim-ü", ""):
            answer = client.post(
                "/v1/label",
                content=image_files.jpeg(),
                headers=[
                    (b"Content-Type", b"image/jpeg"),
                    (b"Authorization", f"Bearer {given}".encode()),
                ],
            )
            problem(answer, "unauthorized")
            assert answer.headers["www-authenticate"] == "Bearer"
        answer = client.post("/v1/labels:batch", files=parts(image_files.jpeg()), headers=right)
        assert answer.status_code == 200
        for path in ("/healthz", "/readyz", "/", "/openapi.json"):
            assert client.get(path).status_code == 200


def test_an_unauthorised_body_is_not_read(
    plan: ServicePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret")

    async def scenario() -> None:
        service = world.service(plan, world.Direct(plan))
        status, _, _ = await world.ask(service, image_files.jpeg(), body_may_be_read=False)
        assert status == 401

    asyncio.run(scenario())


def test_the_description_is_complete_and_its_examples_are_true(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        *("/v1/label", "/v1/labels:batch", "/v1/info", "/v1/bank", "/healthz", "/readyz")
    }
    text = json.dumps(described)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in described["components"]["schemas"]
    label = described["paths"]["/v1/label"]["post"]
    assert set(label["requestBody"]["content"]) == {
        *("image/jpeg", "image/png", "image/webp", "multipart/form-data")
    }
    assert {p["name"] for p in label["parameters"]} == {"camera", "top_k", "frame"}
    assert all(p["description"] and p["schema"] for p in label["parameters"])
    assert {"200", "400", "401", "408", "413", "415", "422", "500", "503"} == set(
        label["responses"]
    )
    for code, response in label["responses"].items():
        assert response["description"]
        if code != "200":
            assert response["content"]["application/problem+json"]["examples"]
    schemas = described["components"]["schemas"]
    for name, model in (("Label", Label), ("Labels", Labels), ("ProblemDetails", ProblemDetails)):
        for example in schemas[name]["examples"]:
            model.model_validate(example)
    assert label["security"] == [{"HTTPBearer": []}]


def test_the_page_is_self_contained(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.text == PAGE.read_text()
    assert "http" not in answer.text.replace("${", "").lower().split("<body>")[0]
    for reference in ('src="', 'href="', "@import", "url("):
        assert reference not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def mutated(data: bytes, choose: random.Random) -> bytes:
    """`data` with one of the damages that files and connections suffer."""
    changed = bytearray(data)
    for _ in range(choose.choice([1, 1, 2, 8, 40])):
        place = choose.randrange(len(changed)) if changed else 0
        match choose.randrange(7):
            case 0 if changed:
                changed[place] ^= 1 << choose.randrange(8)
            case 1 if changed:
                changed[place] = choose.randrange(256)
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + choose.randrange(1, 64)]
            case 4:
                changed[place:place] = choose.randbytes(choose.randrange(1, 64))
            case 5:
                changed[place : place + 4] = choose.randbytes(4)
            case 6:
                head = choose.randrange(min(64, len(changed) + 1))
                changed[head : head + 2] = b"\xff\xff"
    return bytes(changed)


def test_1000_mutations_are_labelled_or_refused_and_never_a_failure(client: TestClient) -> None:
    choose = random.Random(20261122)
    noise = np.random.default_rng(1).integers(0, 256, (40, 56, 3), np.uint8)
    corners = image_files.quadrants(60, 44)
    originals = [
        image_files.encode(corners, "JPEG"),
        image_files.encode(noise, "JPEG", progressive=True),
        image_files.encode(corners, "PNG"),
        image_files.encode(Image.fromarray(corners).convert("P"), "PNG"),
        image_files.encode(noise, "WEBP", lossless=True),
        image_files.encode(corners, "WEBP"),
        image_files.with_orientation(corners, "JPEG", 6),
    ]
    statuses: dict[int, int] = {}
    started = time.perf_counter()
    for number in range(1000):
        data = mutated(originals[number % len(originals)], choose)
        if number % 10 == 0:
            answer = client.post("/v1/labels:batch", files=parts(data, originals[0]))
            assert answer.status_code == 200, (number, answer.text)
            assert answer.json()["results"][1]["label"], number
            refused = answer.json()["results"][0]["problem"]
            assert refused is None or 400 <= refused["status"] < 500, (number, refused)
            continue
        answer = client.post("/v1/label", content=data, headers=world.JPEG)
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, (number, answer.text)
        if answer.status_code != 200:
            assert answer.json()["remedy"]
    assert time.perf_counter() - started < 120
    assert statuses[200] > 50, "some mutations must be harmless"
    assert statuses[422] > 200


def test_answers_do_not_depend_on_who_asks_at_the_same_time(client: TestClient) -> None:
    images = [tiny.png(number) for number in range(12)]
    kind = {"Content-Type": "image/png"}

    def label(image: bytes) -> str:
        return str(client.post("/v1/label", content=image, headers=kind).json()["label"])

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(label, images)) == [label(image) for image in images]


def test_the_page_has_no_secret_and_lies_in_the_package() -> None:
    assert PAGE.is_file()
    assert PAGE.is_relative_to(Path(__file__).parents[2] / "mint_stream")
