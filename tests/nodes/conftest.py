"""Clusters of several nodes, all on this machine, one a test; the runs join them as jobs do."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clusters import Nodes
from places import Place
from ray.cluster_utils import Cluster
from s3_server import S3Server, use_environment
from tiny import Assets, write_assets


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """A tiny CLIP and a class list."""
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture
def place(s3: str, assets: Assets) -> Place:
    """A prefix on S3."""
    return Place(s3, assets)


@pytest.fixture
def nodes(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Starts a head without CPUs, and a worker for each dict of settings."""
    tests = Path(__file__).parents[1]
    own = [str(tests / folder) for folder in ("..", "support", "nodes")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*own, os.environ.get("PYTHONPATH", ".")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # Of their own: whoever starts Ray on this machine joins the cluster that was noted there last.
    folder = Path(tempfile.mkdtemp(prefix="mint", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    use_environment(monkeypatch, s3_server.environment())
    started: list[Cluster] = []

    def start(*workers: dict[str, Any]) -> Cluster:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 0,
                "include_dashboard": False,
                # A node that died is known to have after three seconds, not fifteen.
                "_system_config": {
                    "health_check_period_ms": 1000,
                    "health_check_failure_threshold": 3,
                },
            },
        )
        started.append(cluster)
        for worker in workers:
            cluster.add_node(**{"num_cpus": 1, **worker})
        return cluster

    yield start
    for cluster in started:
        cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
