"""What goes wrong with a request, as RFC 9457 problem details with a remedy."""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 1


class ProblemDetails(BaseModel):
    """Why a request, or one image of it, was not answered, and what to do about it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:mint-stream:problem:image-unreadable",
                    "title": "The image cannot be decoded",
                    "status": 422,
                    "detail": "the image is truncated (8 bytes are missing)",
                    "remedy": "Check the file with another viewer, and send it again whole.",
                    "request_id": "5f0c0e6b2a8d4b11",
                }
            ]
        }
    )

    type: str = Field(description="A name for the kind of problem that does not change.")
    title: str = Field(description="The kind of problem, for a person.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong with this request, with the value.")
    remedy: str = Field(description="What to do.")
    request_id: str = Field(description="Also in the X-Request-ID header and in the server's log.")


TITLES = {
    "unauthorized": (401, "A valid token is needed"),
    "not-found": (404, "There is no such address"),
    "method-not-allowed": (405, "This address takes another method"),
    "too-slow": (408, "The request took too long to arrive"),
    "body-too-large": (413, "The request is too large"),
    "image-too-large": (413, "The image file is too large"),
    "too-many-images": (413, "There are too many images in one request"),
    "unsupported-type": (415, "Only JPEG, PNG and WebP are read"),
    "bad-request": (400, "The request cannot be understood"),
    "bad-parameter": (422, "A parameter cannot be used"),
    "too-many-cameras": (422, "There are as many cameras as there may be"),
    "no-image": (422, "There is no image in the request"),
    "too-many-pixels": (422, "The image has too many pixels"),
    "image-unreadable": (422, "The image cannot be decoded"),
    "internal": (500, "The service failed"),
    "busy": (503, "The service is busy"),
    "bank-missing": (503, "There is no bank to answer with yet"),
    "bank-unreachable": (503, "The bank cannot be reached"),
    "too-slow-answer": (503, "The answer took too long"),
}
"""Every kind of problem: its status and title."""


class Problem(Exception):
    """Ends a request, or one image of it, with `kind` (one of `TITLES`)."""

    def __init__(self, kind: str, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.kind, self.detail, self.remedy = kind, detail, remedy
        self.status, self.title = TITLES[kind]

    def details(self, request_id: str) -> ProblemDetails:
        """As it is sent."""
        return ProblemDetails(
            type=f"urn:mint-stream:problem:{self.kind}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            remedy=self.remedy,
            request_id=request_id,
        )

    def headers(self) -> dict[str, str]:
        """What belongs to the status."""
        if self.status == 503:
            return {"Retry-After": str(RETRY_AFTER_S)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}

    def response(self, request_id: str) -> JSONResponse:
        """As an HTTP answer."""
        return JSONResponse(
            self.details(request_id).model_dump(),
            status_code=self.status,
            media_type=MEDIA_TYPE,
            headers=self.headers(),
        )


def documented(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for these kinds of problems."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status, title = TITLES[kind]
        entry = found.setdefault(
            status,
            {"description": "", "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}}},
        )
        entry["description"] = "; or: ".join(filter(None, [entry["description"], title]))
        entry["content"][MEDIA_TYPE]["examples"][kind] = {
            "summary": title,
            "value": {
                "type": f"urn:mint-stream:problem:{kind}",
                "title": title,
                "status": status,
                "detail": "what was wrong, with the value",
                "remedy": "what to do",
                "request_id": "5f0c0e6b2a8d4b11",
            },
        }
        if status == 503:
            entry["headers"] = {
                "Retry-After": {"description": "Seconds to wait", "schema": {"type": "integer"}}
            }
    return found


_SCHEMA = {"$ref": "#/components/schemas/ProblemDetails"}
