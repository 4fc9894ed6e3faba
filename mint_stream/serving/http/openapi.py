"""What FastAPI cannot know of the service's description: bodies that are read by hand, problems."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from mint_stream.serving.http.intake import IMAGE_TYPES
from mint_stream.serving.http.problems import ProblemDetails


def body(*, raw: bool) -> dict[str, Any]:
    """OpenAPI's description of a body that is read by `intake`."""
    binary = {"type": "string", "format": "binary"}
    form = {
        "schema": {
            "type": "object",
            "required": ["image"],
            "properties": {
                "image": {
                    "type": "array",
                    "items": binary,
                    "description": "JPEG, PNG or WebP; repeat the field for several.",
                },
                "camera": {"type": "string"},
                "top_k": {"type": "integer"},
                "frame": {"type": "string"},
            },
        },
        "encoding": {"image": {"contentType": ", ".join(IMAGE_TYPES)}},
    }
    kinds: dict[str, Any] = {kind: {"schema": binary} for kind in IMAGE_TYPES if raw}
    return {"requestBody": {"required": True, "content": {**kinds, "multipart/form-data": form}}}


def complete_openapi(app: FastAPI) -> None:
    """Put the schema of problems in, and take FastAPI's own errors out, which are never sent."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        found = made()
        schemas = found.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for operations in found["paths"].values():
            for operation in operations.values():
                said = operation["responses"].get("422", {}).get("content", {})
                said.pop("application/json", None)
        return found

    app.openapi = openapi  # type: ignore[method-assign]
