"""Asking a service in this process: a plan with small limits, multipart bodies, problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import serving_world as world
import tiny

from mint_stream.serving.http.problems import TITLES, ProblemDetails
from mint_stream.serving.service import ServicePlan

LIMITS = {
    "max_body_mb": 0.25,
    "max_image_mb": 0.1,
    "max_megapixels": 0.5,
    "max_images": 3,
    "max_images_batch": 6,
    "max_waiting": 8,
}


def limited_plan(root: Path) -> ServicePlan:
    """A plan with `LIMITS` and a bank that has seen five merges."""
    plan = world.plan(tiny.write_assets(root), bank=str(root / "labelled" / "bank"), **LIMITS)
    world.save(root / "labelled", plan, world.taught(plan, seed=5))
    return plan


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
