"""A thousand damaged images: each is labelled or refused, none is a failure of the service."""

from __future__ import annotations

import random
import time

import image_files
import numpy as np
import serving_world as world
from PIL import Image
from serving_client import parts
from starlette.testclient import TestClient


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
