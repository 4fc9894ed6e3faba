"""A driver of its own in a process of its own, with a Ray cluster that goes when it goes.

Everything that a driver starts inherits a variable by which it is found again: a driver that was
killed leaves Ray's processes behind, and exactly those are ended here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

REPOSITORY = Path(__file__).parents[2]
TOKEN = "MINT_TEST_DRIVER"
PATIENCE_S = 240.0
"""Longest wait for anything; only a failure waits so long."""


def wait_until(condition: Callable[[], bool], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Look again and again until `condition` holds: another process has no other way to tell."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within_s:.0f} s in vain: {what}")
        time.sleep(0.02)


class Driver:
    """`python ARGUMENTS` in the background; on exit everything that it started is killed."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path = REPOSITORY,
    ) -> None:
        self.token = secrets.token_hex(8)
        # Short: Ray's sockets lie below it, and their paths may have 107 characters.
        self.folder = Path(tempfile.mkdtemp(prefix="mint", dir="/tmp"))
        paths = [str(REPOSITORY / folder) for folder in ("", "tests/support", "tests/faults")]
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": str(self.folder),
            TOKEN: self.token,
            **(environment or {}),
        }
        self._arguments, self._cwd = list(arguments), cwd

    def __enter__(self) -> Driver:
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdout=out,
                stderr=err,
                env=self._environment,
                cwd=self._cwd,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.clear()
        if error is not None:
            print(f"--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-8000:]}")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def wait(self, within_s: float = PATIENCE_S) -> int:
        """The exit code, negative for a signal."""
        return self.process.wait(within_s)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for `condition`; a driver that ends before it holds is a failure."""

        def look() -> bool:
            ended = self.process.poll() is not None
            if condition():
                return True
            assert not ended, f"the driver ended with {self.process.returncode} before: {what}"
            return False

        wait_until(look, what)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """Send a signal to the driver alone."""
        os.kill(self.process.pid, number)

    def kill(self, title: str) -> None:
        """Kill -9 the one process of this driver's whose command line has `title` in it."""
        (process,) = (p for p in self._own() if _has_title(p, title))
        process.kill()
        psutil.wait_procs([process], timeout=30)

    def clear(self) -> None:
        """Kill the driver and whatever it started, and wait until they are gone."""
        own = self._own()
        for process in own:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(own, timeout=30)

    def _own(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if self._is_own(process)]

    def _is_own(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get(TOKEN) == self.token
        except psutil.Error:
            return False


def _has_title(process: psutil.Process, title: str) -> bool:
    try:
        return title in " ".join(process.cmdline())
    except psutil.Error:
        return False


def label_stream(*arguments: str, environment: Mapping[str, str] | None = None) -> Driver:
    """`python pipelines/label_stream.py ARGUMENTS`."""
    return Driver(["pipelines/label_stream.py", *arguments], environment=environment)
