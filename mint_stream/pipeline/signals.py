"""A stop request from the terminal or the job server."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mint_stream.pipeline.progress import log


@contextmanager
def stop_on_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """SIGTERM or Ctrl-C asks for an orderly stop; a second Ctrl-C exits at once.

    To be entered after `ray.init`, which replaces the handler of SIGTERM. Does nothing outside
    the main thread, where Python takes no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def handle(number: int, _: object) -> None:
        nonlocal interrupted
        if number == signal.SIGINT and interrupted:
            os._exit(128 + signal.SIGINT)
        interrupted = interrupted or number == signal.SIGINT
        stop("stop requested")
        log.warning("Stopping: finishing the units in flight. Ctrl-C once more exits at once.")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
