"""The labeler behind Ray Serve, for frames that cannot wait for a shard.

    serve run mint_stream.serving:build_app model=ViT-B-16 weights=laion2b_s34b_b88k \
        labels=labels.txt bank=s3://cameras/labelled/bank

`application` (from arguments to deployments) -> `replica` (one labeler, batches) -> `api` (HTTP)
-> `service` (a request) -> `answers` (a batch) -> `labeler` and `bank_reader`. docs/serving.md.
"""

from __future__ import annotations

from mint_stream.serving.application import build_app

__all__ = ["build_app"]
