"""The labeler behind Ray Serve, for frames that cannot wait for a shard.

    serve run mint_stream.serving:build_app model=ViT-B-16 weights=laion2b_s34b_b88k \
        labels=labels.txt bank=s3://cameras/labelled/bank

`application` (from arguments to deployments) -> `replica` (one labeler, batches) -> `api` (HTTP)
-> `service` (a request) -> `answers` (a batch) -> `labeler` and `bank_reader`. docs/serving.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mint_stream.serving.application import build_app

__all__ = ["build_app"]


def __getattr__(name: str) -> Any:
    # Only when it is asked for: Serve's proxy imports `http.front`, and no model.
    if name != "build_app":
        raise AttributeError(f"module 'mint_stream.serving' has no attribute {name!r}")
    from mint_stream.serving.application import build_app

    return build_app
