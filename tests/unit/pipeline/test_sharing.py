"""Outputs that no run could keep, refused without asking a node."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from mint_stream.config import ConfigError
from mint_stream.pipeline.sharing import shared_folders
from mint_stream.store.store import Store


@pytest.fixture(autouse=True)
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: pytest.fail("nodes were asked"))


def test_memory_is_no_output_of_several_processes() -> None:
    with pytest.raises(ConfigError, match="memory of each process"):
        with shared_folders(Store("memory://out"), []):
            pass


def test_a_relative_output_of_a_submitted_job_is_not_lost_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(ConfigError, match="give the folder's full path"):
        with shared_folders(Store("labelled"), []):
            pass
