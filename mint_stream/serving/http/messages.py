"""What the service says: the bodies of its answers, with descriptions and examples for OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from mint_stream.serving.http.problems import ProblemDetails

_TOPK = [
    {"label": "bus", "score": 0.71},
    {"label": "truck", "score": 0.22},
    {"label": "car", "score": 0.05},
]
_SOURCE_TOPK = [
    {"label": "truck", "score": 0.48},
    {"label": "bus", "score": 0.41},
    {"label": "car", "score": 0.08},
]
_LABEL: dict[str, Any] = {
    "frame": "sha256:9f2c1a...",
    "camera": "north",
    "width": 1920,
    "height": 1080,
    "label": "bus",
    "confidence": 0.71,
    "entropy": 0.77,
    "topk": _TOPK,
    "source_label": "truck",
    "source_confidence": 0.48,
    "source_topk": _SOURCE_TOPK,
    "adapted": True,
    "shadow": None,
    "bank_scope": "shared",
    "bank_seq": 1284,
    "preset": "paper",
    "model": "5d41402abc4b2a76",
    "classes": "b9719d911017c592",
    "ms": 11.4,
}
_BANK: dict[str, Any] = {
    "seq": 1284,
    "age_s": 37.2,
    "source": "s3://cameras/labelled/bank/checkpoints/000000001284-1f0c2a9be4d7.json",
    "scopes": 1,
    "entries": 512,
    "used_entries": 318,
    "retrievals": 221184,
    "takeovers": 4,
    "last_error": None,
}


class Score(TypedDict):
    """One label with its probability."""

    label: str
    score: Annotated[float, Field(ge=0, le=1)]


class Shadow(BaseModel):
    """The adapted answer, where the frozen one stands (`adapt: shadow`)."""

    label: str
    confidence: float
    entropy: float = Field(description="Nats.")
    topk: list[Score]


class Label(BaseModel):
    """The answer for one image; the names are those of a row in `labels/`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_LABEL]})

    frame: str = Field(description="The name that was sent, else a hash of the image file.")
    camera: str | None
    width: int = Field(description="Of the stored image after EXIF rotation, pixels.")
    height: int
    label: str = Field(description="The answer that stands.")
    confidence: float = Field(description="Probability of `label`.")
    entropy: float = Field(description="Of the predicted distribution, nats.")
    topk: list[Score] = Field(description="The most probable labels, best first.")
    source_label: str = Field(description="The frozen model's answer.")
    source_confidence: float
    source_topk: list[Score]
    adapted: bool = Field(
        description="Whether what the bank has learned made `label`; else the frozen model did."
    )
    shadow: Shadow | None = Field(
        None, description="The adapted answer beside it (`adapt: shadow`)."
    )
    bank_scope: str = Field(description="Which bank: `shared`, or the camera.")
    bank_seq: int = Field(description="Merges that the bank had seen; 0 without a bank.")
    preset: str
    model: str = Field(description="Hash of the model.")
    classes: str = Field(description="Hash of the class list.")
    ms: float = Field(description="From the request's arrival at the replica to this answer.")


class Result(BaseModel):
    """One image of several: its answer, or why there is none."""

    index: int = Field(description="Position of the image in the request, from 0.")
    label: Label | None = None
    problem: ProblemDetails | None = None


class Labels(BaseModel):
    """The answers for several images, in their order. A bad image costs only its own."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "results": [
                        {"index": 0, "label": _LABEL, "problem": None},
                        {
                            "index": 1,
                            "label": None,
                            "problem": {
                                "type": "urn:mint-stream:problem:image-unreadable",
                                "title": "The image cannot be decoded",
                                "status": 422,
                                "detail": "the image is truncated (8 bytes are missing)",
                                "remedy": "Check the file with another viewer.",
                                "request_id": "5f0c0e6b2a8d4b11",
                            },
                        },
                    ],
                    "labelled": 1,
                    "rejected": 1,
                    "ms": 18.0,
                }
            ]
        }
    )

    results: list[Result]
    labelled: int
    rejected: int
    ms: float


class Bank(BaseModel):
    """The bank that answers now."""

    model_config = ConfigDict(json_schema_extra={"examples": [_BANK]})

    seq: int | None = Field(description="Merges that it has seen; null where there is none.")
    age_s: float | None = Field(description="Seconds since it was written, or changed last.")
    source: str | None = Field(description="Where it comes from.")
    scopes: int = Field(description="Banks in it: one, or one for each camera.")
    entries: int = Field(description="Entries in each bank.")
    used_entries: int = Field(description="Entries that were retrieved at least once, all banks.")
    retrievals: int = Field(description="Retrievals while adapting, all banks.")
    takeovers: int = Field(description="Banks that this replica has taken over since its start.")
    last_error: str | None = Field(None, description="Why a newer one could not be taken over.")


class Limits(BaseModel):
    """What one request may hold."""

    body_mb: float
    image_mb: float
    megapixels: float
    images: int = Field(description="In a request to /v1/label.")
    images_batch: int = Field(description="In a request to /v1/labels:batch.")


class Info(BaseModel):
    """What answers here."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "0.1.0",
                    "model": "ViT-B-16",
                    "model_hash": "5d41402abc4b2a76",
                    "classes": ["car", "truck", "bus"],
                    "classes_hash": "b9719d911017c592",
                    "preset": "paper",
                    "adapt": "off",
                    "bank_seq": 1284,
                    "bank_age_s": 37.2,
                    "replica": "3f9a1c02",
                    "limits": {
                        "body_mb": 64,
                        "image_mb": 16,
                        "megapixels": 50,
                        "images": 16,
                        "images_batch": 64,
                    },
                }
            ]
        }
    )

    version: str
    model: str
    model_hash: str
    classes: list[str]
    classes_hash: str
    preset: str
    adapt: str = Field(description="off, shadow or on: whether requests teach the bank.")
    bank_seq: int | None
    bank_age_s: float | None
    replica: str = Field(description="Which replica says this: each follows the bank by itself.")
    limits: Limits


class Health(BaseModel):
    """Alive, or ready."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: Literal["ok"] = "ok"
