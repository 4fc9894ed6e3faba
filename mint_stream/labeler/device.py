"""When the device fails that computes: told apart from what is wrong with a frame.

A frame is to blame only for what its own pixels cannot be made into; everything else (no memory, a
GPU that is gone, a kernel that fails) would happen to any other frame in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

_NO_MEMORY = (
    "free memory on it (nvidia-smi shows who uses it), use fewer labelers a GPU, --dtype bfloat16 "
    "or a smaller model"
)
_FAILED = (
    "check it (nvidia-smi, dmesg) and its driver, or use another one (--device); the same command "
    "continues from what is committed"
)


class DeviceFailed(RuntimeError):
    """The device cannot label, whatever the frame. The message names it, the cause, the remedy."""

    passing = False
    """Whether fewer images at once may be possible."""


@contextmanager
def computing(device: str) -> Iterator[None]:
    """Raise what goes wrong inside, on `device`, as `DeviceFailed`."""
    import torch  # here: the driver knows this module too, and needs no torch

    try:
        yield
    except (RuntimeError, MemoryError) as error:
        no_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
        text = " ".join(str(error).split()) or type(error).__name__
        what = "has too little memory" if no_memory else "failed while labelling"
        remedy = _NO_MEMORY if no_memory else _FAILED
        failed = DeviceFailed(f"the device {device} {what} ({text}); {remedy}")
        # Libraries say "no memory" in their own ways; what a GPU says of itself stays so.
        failed.passing = not isinstance(error, torch.AcceleratorError)
        raise failed from error


def with_less(attempt: Callable[[int], T], most: int, smaller: Callable[[int], None]) -> T:
    """`attempt(most)`; where the device fails with half of that, and so on, down to 1.

    smaller: told of each size that is tried next. Raises `DeviceFailed` if 1 is too many, or if it
    would fail at any size.
    """
    while True:
        try:
            return attempt(most)
        except DeviceFailed as error:
            if most <= 1 or not error.passing:
                raise
        most = (most + 1) // 2
        smaller(most)
