"""The quickstart's feed: rendered once, and never mixed with another."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from mint_stream.config import ConfigError
from mint_stream.demo.feed import SEGMENTS
from mint_stream.demo.quickstart import ensure_feed

QUIET = Console(quiet=True)
NAMES = [segment.name.replace(" ", "-") for segment in SEGMENTS]


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of writing and content of every file: the pipeline tells a changed shard by both."""
    return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}


def test_the_feed_is_rendered_once(tmp_path: Path) -> None:
    feed = ensure_feed(tmp_path, frames=8, seed=1, console=QUIET)
    first = contents(feed)
    assert set(first) == {"labels.txt", *(f"{n}-{name}-1.tar" for n, name in enumerate(NAMES))}
    assert contents(ensure_feed(tmp_path, frames=8, seed=1, console=QUIET)) == first


def test_a_feed_that_was_not_finished_is_rendered_again(tmp_path: Path) -> None:
    feed = ensure_feed(tmp_path, frames=8, seed=1, console=QUIET)
    whole = (feed / "0-day-1.tar").read_bytes()
    (tmp_path / "quickstart.json").unlink()  # written last
    (feed / "0-day-1.tar").write_bytes(whole[:1000])
    ensure_feed(tmp_path, frames=8, seed=1, console=QUIET)
    assert (feed / "0-day-1.tar").read_bytes() == whole


@pytest.mark.parametrize(("frames", "seed"), [(9, 1), (8, 2)])
def test_another_feed_is_refused(tmp_path: Path, frames: int, seed: int) -> None:
    ensure_feed(tmp_path, frames=8, seed=1, console=QUIET)
    with pytest.raises(ConfigError, match="holds a quickstart with 8 frames and seed 1"):
        ensure_feed(tmp_path, frames=frames, seed=seed, console=QUIET)


def test_a_feed_needs_a_frame_for_each_segment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="limit is 3"):
        ensure_feed(tmp_path, frames=3, seed=0, console=QUIET)
