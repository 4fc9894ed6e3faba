"""Keeps off the terminal what Ray's core says of itself.

The core writes to file descriptor 2, past Python and its logging: lines such as
`[2026-11-29 21:16:28,501 E 28302 28302] core_worker.cc:2465: Actor with class name ...`. They stand
in Ray's log files as well; what a person has to know of them is said in words of our own.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import TextIO

_CORE = re.compile(rb"\[\d{4}-\d\d-\d\d [\d:,.]+ [DIWE] \d+ \d+\] \w+\.(cc|h):\d+: ")
"""How such a line begins; not of those that come before the process is ended."""


@contextlib.contextmanager
def core_lines_kept_out() -> Iterator[None]:
    """Within the block everything else that is written to standard error arrives as before."""
    terminal = os.dup(2)
    reads, writes = os.pipe()
    os.dup2(writes, 2)
    os.close(writes)
    passing = threading.Thread(
        target=_pass_on, args=(reads, terminal), name="standard error", daemon=True
    )
    passing.start()
    kept = sys.stderr
    if _writes_to_2(kept):
        # Python's own lines need no filter, and whoever asks is to hear that this is a terminal.
        sys.stderr = open(  # noqa: SIM115
            os.dup(terminal), "w", buffering=1, encoding=kept.encoding, errors=kept.errors
        )
    try:
        yield
    finally:
        if sys.stderr is not kept and _writes_to_2(kept):
            ours, sys.stderr = sys.stderr, kept
            # Not closed: handlers of logging that were made meanwhile go on writing to it.
            ours.flush()
            kept.flush()
        os.dup2(terminal, 2)
        # A child process may hold the pipe open: then it is served until this one ends.
        passing.join(timeout=1.0)


def _writes_to_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, ValueError):
        return False


def _pass_on(reads: int, terminal: int) -> None:
    with open(reads, "rb") as lines, open(terminal, "wb", buffering=0) as out:
        for line in lines:
            if not _CORE.match(line):
                # Whoever closed the terminal needs no lines.
                with contextlib.suppress(OSError):
                    out.write(line)
