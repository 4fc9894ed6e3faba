"""What benchmarks within one process share: time of work on a device, and which device it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch

from mint_stream.config import ConfigError

Clock = Callable[[], float]
Result = TypeVar("Result")


def pick_clock(busy: bool) -> Clock:
    """The wall clock, or on a `busy` machine the CPU time of this process.

    Raises `ConfigError` for CPU time of several threads: those that wait count as working.
    """
    if busy and torch.get_num_threads() > 1:
        raise ConfigError("busy is True; it must be left out unless OMP_NUM_THREADS is 1")
    return time.process_time if busy else time.perf_counter


def timed(
    device: torch.device, work: Callable[[], Result], clock: Clock = time.perf_counter
) -> tuple[float, Result]:
    """Seconds, and what came out."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start, result


def where(device: torch.device) -> str:
    """The device in a few words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"
