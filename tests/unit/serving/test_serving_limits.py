"""The service over HTTP, in this process: what is too much, and what it cannot use."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Iterator

import image_files
import pytest
import serving_world as world
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from serving_client import parts, problem
from starlette.testclient import TestClient

from mint_stream.serving.service import ServicePlan


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


def png_with_text(size: int) -> bytes:
    """A small image with so many characters beside it, which take a few bytes."""
    text = PngInfo()
    text.add_text("Description", "a" * size, zip=True)
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "PNG", pnginfo=text)
    return file.getvalue()


@pytest.mark.parametrize("characters", [10_000, 5_000_000])
def test_a_small_image_with_a_long_text_is_never_said_to_have_too_many_pixels(
    client: TestClient, characters: int
) -> None:
    answer = client.post("/v1/label", content=png_with_text(characters), headers=world.JPEG)
    if answer.status_code != 200:
        assert "pixels" not in problem(answer, "image-unreadable").remedy


def test_words_in_the_name_of_a_part_do_not_choose_the_problem(client: TestClient) -> None:
    name = "Too many files, million pixels, too large"
    body = image_files.jpeg()[:100]
    files = [("image", (name, body, "image/jpeg"))]
    found = client.post("/v1/label", files=files)
    problem(found, "image-unreadable")
    many = {f"Too many files {n}": "x" for n in range(17)}
    found = client.post("/v1/label", files=files, data=many)
    assert "fields" in problem(found, "bad-request").detail


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


def test_a_full_replica_says_when_to_come_again_and_never_piles_up(limited: ServicePlan) -> None:
    async def scenario() -> None:
        direct = world.Direct(limited)
        service = world.service(limited, direct)
        direct.gate.clear()
        image, most = image_files.jpeg(), limited.settings.max_waiting
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


def test_an_answer_that_takes_too_long_is_given_up(limited: ServicePlan) -> None:
    async def scenario() -> None:
        short = world.with_settings(limited, timeout_s=0.05)
        direct = world.Direct(short)
        service = world.service(short, direct)
        direct.gate.clear()
        status, headers, body = await world.ask(service, image_files.jpeg())
        assert (status, headers["retry-after"]) == (503, "1")
        assert json.loads(body)["type"].endswith(":too-slow-answer")
        assert service.held == 0

    asyncio.run(scenario())
