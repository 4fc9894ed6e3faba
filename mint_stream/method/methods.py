"""What a method is, and which there are: by the `algorithm` of a preset.

A method of one's own is a class with the verbs of `Method` and a preset that names it, in another
package, known by an entry point (docs/own-method.md).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from mint_stream.config import METHODS_GROUP, ConfigError, MethodConfig
from mint_stream.method.bank_state import BankState
from mint_stream.method.baselines import Tpt, Zero
from mint_stream.method.camera_table import Cameras
from mint_stream.method.frozen import FrozenClip, Seen
from mint_stream.method.mint import Mint
from mint_stream.method.prediction import Answers, Cost
from mint_stream.method.realtime import Domains


class BankInUse(Protocol):
    """A bank while a unit is labelled: what the labeler measures its update by."""

    decay: float
    """What rows that were not touched were scaled by since."""

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Effective keys (K, D), prompts (K, P, D) and usage (K,), as arrays of their own."""
        ...


class Method(Protocol):
    """A way to answer that is not the frozen model's. Made with the `FrozenClip` it works on."""

    one_pass: bool
    """Whether it looks at view 0 alone: then `seen` is of many frames, else of the V views of one.
    """
    keeps_state: bool
    """Whether answering changes its bank."""

    def bank(self, state: BankState, labelers: int = 1) -> Any:
        """The bank of `state` in use (`BankInUse`), as one of so many labelers that share it."""
        ...

    def answer(
        self,
        seen: Seen,
        banks: Sequence[Any],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
        learn: bool = True,
    ) -> Answers:
        """Answer frames, in time order, by their banks, which change with `learn`.

        banks, cameras: of each frame. times_s: when each was taken, seconds since 1970; NaN for a
        frame that does not say, None where none does.
        """
        ...

    def read(
        self,
        seen: Seen,
        banks: Sequence[Any],
        cameras: Sequence[Hashable],
        *,
        times_s: Sequence[float] | None = None,
    ) -> Answers:
        """Answer B frames that have nothing to do with each other, by banks that stay as they are.

        banks: None for a frame that has none, and then no answer.
        """
        ...

    @property
    def cost(self) -> Cost:
        """What answering one frame costs, with the frozen model's own pass."""
        ...


METHODS: dict[str, type] = {
    "mint": Mint,
    "domains": Domains,
    "cameras": Cameras,
    "tpt": Tpt,
    "zero": Zero,
}
"""By the `algorithm` of their presets."""


def build_method(clip: FrozenClip, config: MethodConfig) -> Method | None:
    """The method of a preset; None if it does not adapt.

    Raises `ConfigError` for an algorithm that no installed package has.
    """
    if not config.adapts:
        return None
    kind = METHODS.get(config.algorithm)
    if kind is None:
        kind = _installed(config.algorithm)
    method: Method = kind(clip)
    return method


def _installed(algorithm: str) -> type:
    found = entry_points(group=METHODS_GROUP, name=algorithm)
    if not found:
        known = ", ".join([*METHODS, *(entry.name for entry in entry_points(group=METHODS_GROUP))])
        raise ConfigError(
            f"algorithm is {algorithm!r}; there are {known}: install the package that has it"
        )
    kind: type = next(iter(found)).load()
    return kind
