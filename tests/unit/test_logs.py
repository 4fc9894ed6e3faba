"""Log lines carry what they are about, and only while they are about it."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mint_stream import logs


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the root logger says, as JSON, with the handlers that were there set aside."""
    root, said = logging.getLogger(), io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logs.JsonFormatter())
    before, level = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logs.set_run("r1")
    yield said
    root.handlers[:] = before
    root.setLevel(level)


def read(said: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in said.getvalue().splitlines()]


def test_facts_nest_and_end_with_their_block(lines: io.StringIO) -> None:
    log = logging.getLogger("mint_stream.test")
    with logs.about(unit="u1"):
        with logs.about(camera="north"):
            log.warning("both of %s", 2)
        with logs.about(camera=None):
            log.info("one", extra={"frames": 4})
    log.info("none")
    both, one, none = read(lines)
    assert (both["message"], both["levelname"]) == ("both of 2", "WARNING")
    assert (both["run"], both["unit"], both["camera"]) == ("r1", "u1", "north")
    assert (one["unit"], one["frames"]) == ("u1", 4)
    assert "camera" not in one
    assert "unit" not in none
    assert none["run"] == "r1"


def test_a_thread_s_facts_are_its_own(lines: io.StringIO) -> None:
    with logs.about(unit="mine"):
        other = threading.Thread(target=logging.getLogger("x").info, args=("from elsewhere",))
        other.start()
        other.join()
    (line,) = read(lines)
    assert "unit" not in line


def test_an_error_is_one_line_with_its_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError("bad\nimage")
    except ValueError:
        logging.getLogger("x").exception("it failed")
    (line,) = read(lines)
    assert "ValueError: bad\nimage" in line["exc_text"]


def test_retries_are_said_once(lines: io.StringIO) -> None:
    logging.getLogger("stamina").warning("stamina.retry_scheduled")
    assert read(lines) == []
