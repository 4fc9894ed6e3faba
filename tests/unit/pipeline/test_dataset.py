"""What the stages of the dataset ask Ray for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import ray

from mint_stream.config import PRESETS, ModelConfig, RunConfig
from mint_stream.pipeline.dataset import labeler_cpus, reader_cpus


@pytest.mark.parametrize("cpus", [1, 2, 4, 8, 16, 48])
def test_readers_and_labelers_stay_apart(cpus: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four labelers on two cores were one stage with their readers: each took a whole shard."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": float(cpus)})
    model = ModelConfig(model="ViT-B-16", weights="openai")
    config = RunConfig(
        input="in", output="out", labels="labels.txt", model=model, method=PRESETS["paper"]
    )
    asked = {labeler_cpus(replace(config, num_labelers=n)) for n in range(1, 65)}
    assert reader_cpus() not in asked
    assert labeler_cpus(config) + reader_cpus() + 0.11 <= cpus, "one of each, and the others"
