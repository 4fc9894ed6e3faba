"""What Ray's core writes past Python stays away from the terminal; everything else arrives."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

from drivers import REPOSITORY

CORE = (
    "[2026-11-29 21:16:28,501 E 28302 28302] core_worker.cc:2465: Actor with class name: 'M' has "
    "constructor arguments in the object store and max_restarts > 0."
)
PROGRAM = f"""
import logging, os, sys
from mint_stream.pipeline.core_lines import core_lines_kept_out
logging.basicConfig(format="%(levelname)s: %(message)s")
with core_lines_kept_out():
    os.write(2, {(CORE + chr(10)).encode()!r})
    os.write(2, b"of a library in C\\n")
    os.write(2, b"[2026-11-29] no line of the core\\n")
    print("of Python", sys.stderr.isatty(), file=sys.stderr)
    logging.warning("of the log")
    logging.getLogger("later").addHandler(logging.StreamHandler())  # as Ray brings one
    with core_lines_kept_out():
        os.write(2, {(CORE + chr(10)).encode()!r})
        os.write(2, b"from further in\\n")
os.write(2, b"afterwards\\n")
print("once more", file=sys.stderr)
logging.getLogger("later").propagate = False
logging.getLogger("later").warning("of a handler made within")
"""


def check(said: str, *, terminal: bool) -> None:
    lines = said.replace("\r\n", "\n").splitlines()
    assert sorted(lines) == sorted(
        [
            "of a library in C",
            "[2026-11-29] no line of the core",
            f"of Python {terminal}",
            "WARNING: of the log",
            "from further in",
            "afterwards",
            "once more",
            "of a handler made within",
        ]
    )


def test_only_lines_of_the_core_are_kept_out() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    assert run.returncode == 0, run.stderr
    check(run.stderr, terminal=False)


def test_a_terminal_is_still_one() -> None:
    """Else there would be no live progress."""
    ours, theirs = pty.openpty()
    run = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs, cwd=REPOSITORY)
    os.close(theirs)
    said = b""
    with suppress(OSError):  # the end of a terminal
        while chunk := os.read(ours, 4096):
            said += chunk
    assert run.wait() == 0
    check(said.decode(), terminal=True)
