"""The `realtime` preset's Memory Prompt Bank: what each domain of the stream does to the features.

A camera at dusk moves all of its features one way, whatever it sees; subtracting the mean of a
domain's features takes most of the harm away, and it costs one vector addition. An entry of the
bank stands for a domain (a kind of light, weather, lens):

- its key is the mean query of the domain's frames at the first query level, where CLIP sees how a
  picture was taken rather than what is on it;
- its prompt is not attended to in the first block but subtracted after the last: the mean
  activation of the domain's frames (activation shifting: Niu et al. 2024, "Test-time model
  adaptation with only forward passes");
- beside it stand the sums that the guard reads.

Everything is a sum that fades by halves, so an update is an addition, as the bank server merges it.
No gradient, one encoder pass. A mean is the domain's doing only while the stream shows a mixture of
classes; `guard` says when it does not, and the frozen answer stands.

Shapes: B frames, D width, E dimension of the joint space, C classes, K entries.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mint_stream.config import MethodConfig
from mint_stream.method import guard
from mint_stream.method.guard import Evidence
from mint_stream.method.prediction import Standing

Array = NDArray[np.float64]

_PRIOR_FRAMES = 8.0
"""A new entry starts with this many frames' worth of its nearest neighbour's mean."""
_SLOW = 256.0
"""Half-life of keys and of what the guard takes for normal, frames."""
_TOGETHER = 4
"""Frames of one camera that must come together to tell anything about their order."""


class Sums:
    """Places of the sums in an entry's second row."""

    WEIGHT, FRAMES, KEY_FRAMES, KEY_SPREAD = range(4)
    SPREAD, WITHIN, FREEDOM, SAME, PAIRS = range(4, 9)
    USUAL_SPREAD, USUAL_FRAMES, MIXED, MIXED_FREEDOM = range(9, 13)
    COUNT = 13


@dataclass(frozen=True)
class ClassSpace:
    """The joint space as the classes span it; made once for a model and a class list."""

    projection_DE: Array
    """From the image tower's last activation to the joint space."""
    text_CE: Array
    """Unit text features."""
    scale: float

    @cached_property
    def centred_CE(self) -> Array:
        """Unit directions from the mean of all classes to each."""
        return _unit(self.text_CE - self.text_CE.mean(0))

    @cached_property
    def text_part(self) -> float:
        """Mean length of the unit text features without their mean."""
        return float(_length(self.text_CE - self.text_CE.mean(0)).mean())

    @cached_property
    def basis_DX(self) -> Array:
        """From activations to the subspace in which the classes differ."""
        u_EX, s_X, _ = np.linalg.svd((self.text_CE - self.text_CE.mean(0)).T, full_matrices=False)
        basis: Array = self.projection_DE @ u_EX[:, s_X > 1e-6 * max(s_X[0], 1e-30)]
        return basis


class DomainBank:
    """One bank in use. `decay` and `arrays` are what a labeler measures its update by.

    keys_KD (K, D), prompts_KPD (K, 2, D) and usage_K (K,): as the bank's checkpoint holds them.
    labelers: how many share the bank. Each sees one frame in so many: sums fade by the time that
    passes, not by the frames that one of them saw, and updates that cross each other stay small.
    """

    decay = 1.0

    def __init__(
        self,
        keys_KD: NDArray[Any],
        prompts_KPD: NDArray[Any],
        usage_K: NDArray[Any],
        method: MethodConfig,
        labelers: int = 1,
    ) -> None:
        self.method, self.labelers = method, labelers
        self.keys_KD = keys_KD.astype(np.float64)
        self.totals_KD = prompts_KPD[:, 0].astype(np.float64)
        self._rows_KD = prompts_KPD[:, 1].astype(np.float64)
        self.sums_KS = self._rows_KD[:, : Sums.COUNT]
        self.usage_K = usage_K.astype(np.int64)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keys (K, D), prompts (K, 2, D) and usage (K,) as a checkpoint holds them."""
        prompts_KPD = np.stack([self.totals_KD, self._rows_KD], axis=1)
        return self.keys_KD.astype(np.float32), prompts_KPD.astype(np.float32), self.usage_K.copy()

    def nearest(self, query_BD: Array) -> int | None:
        """The entry whose domain looks most like these frames; None as long as none is in use."""
        used_X = np.flatnonzero(self.usage_K)
        if not len(used_X):
            return None
        distance_X = ((self._means(used_X) - _unit(query_BD).mean(0)) ** 2).sum(-1)
        return int(used_X[distance_X.argmin()])

    def drift(self, query_BD: Array) -> float:
        """How far frames of one camera have drifted from the domain that the bank began with.

        The squared distance of their mean query to the first entry's key, over the mean squared
        distance of one domain's queries from their mean; from `new_domain` on they would have been
        a domain of their own. What chance alone makes of so few frames is taken off.
        """
        if not self.usage_K[0]:
            return 0.0
        return max(0.0, self._distance(0, _unit(query_BD)))

    def shift(self, entry: int) -> Array:
        """The mean activation of a domain: (D,)."""
        shift_D: Array = self.totals_KD[entry] / self.sums_KS[entry, Sums.WEIGHT]
        return shift_D

    def verdict(self, entry: int, classes: int) -> str:
        """What the guard says of a domain: `guard.ADAPTING`, or why the frozen answer stands."""
        if not self.method.guard:
            return guard.ADAPTING
        s = self.sums_KS[entry]
        usual_K = np.divide(
            self.sums_KS[:, Sums.USUAL_SPREAD],
            self.sums_KS[:, Sums.USUAL_FRAMES],
            out=np.zeros(len(self.sums_KS)),
            where=self.sums_KS[:, Sums.USUAL_FRAMES] >= guard.FRAMES_FOR_USUAL,
        )
        freedom = self.sums_KS[:, Sums.MIXED_FREEDOM].sum()
        return guard.verdict(
            Evidence(
                frames=s[Sums.FRAMES],
                stream_frames=freedom,
                spread=s[Sums.SPREAD] / max(s[Sums.FRAMES], 1e-9),
                within=s[Sums.WITHIN] / max(s[Sums.FREEDOM], 1e-9),
                mixed=self.sums_KS[:, Sums.MIXED].sum() / max(freedom, 1e-9),
                diversity=_diversity(s, classes),
                usual_spread=usual_K[entry],
                widest_spread=usual_K.max(),
            )
        )

    def observe(
        self, query_BD: Array, activation_BD: Array, answers_B: NDArray[Any], space: ClassSpace
    ) -> int:
        """Take in frames of one camera, in time order; gives the entry that they belong to.

        query_BD: at the first query level; activation_BD: the last, before the projection;
        answers_B: the frozen model's classes.
        """
        query_BD = _unit(query_BD)
        entry = self._entry_for(query_BD)
        frames = len(query_BD)
        fade = 0.5 ** (frames / self.method.half_life / self.labelers)
        fade_slowly = 0.5 ** (frames / _SLOW / self.labelers)
        s = self.sums_KS[entry]
        self.usage_K[entry] += frames

        self.keys_KD[entry] = self.keys_KD[entry] * fade_slowly + query_BD.sum(0)
        s[Sums.KEY_FRAMES] = s[Sums.KEY_FRAMES] * fade_slowly + frames
        key_D = self.keys_KD[entry] / s[Sums.KEY_FRAMES]
        s[Sums.KEY_SPREAD] = s[Sums.KEY_SPREAD] * fade_slowly + ((query_BD - key_D) ** 2).sum()

        self.totals_KD[entry] = self.totals_KD[entry] * fade + activation_BD.sum(0)
        s[Sums.WEIGHT] = s[Sums.WEIGHT] * fade + frames
        s[Sums.FRAMES] = s[Sums.FRAMES] * fade + frames

        class_BX = activation_BD @ space.basis_DX
        off_BX = class_BX - self.shift(entry) @ space.basis_DX
        s[Sums.SPREAD] = s[Sums.SPREAD] * fade + (off_BX**2).sum()
        if frames >= _TOGETHER:
            self._observe_order(s, class_BX, answers_B, fade, fade_slowly)
        if (
            _diversity(s, len(space.text_CE)) >= guard.DIVERSE_AT_FIRST
            and s[Sums.FRAMES] >= guard.FRAMES_FOR_USUAL
        ):
            spread = s[Sums.SPREAD] / s[Sums.FRAMES]
            s[Sums.USUAL_SPREAD] = s[Sums.USUAL_SPREAD] * fade_slowly + spread * frames
            s[Sums.USUAL_FRAMES] = s[Sums.USUAL_FRAMES] * fade_slowly + frames
        return entry

    def _observe_order(
        self, s: Array, class_BX: Array, answers_B: NDArray[Any], fade: float, fade_slowly: float
    ) -> None:
        """Whether frames that come together are more alike than frames of the domain are."""
        frames = len(class_BX)
        within = ((class_BX - class_BX.mean(0)) ** 2).sum()
        s[Sums.WITHIN] = s[Sums.WITHIN] * fade + within
        s[Sums.FREEDOM] = s[Sums.FREEDOM] * fade + frames - 1
        spread = max(s[Sums.SPREAD] / s[Sums.FRAMES], 1e-12)
        s[Sums.MIXED] = s[Sums.MIXED] * fade_slowly + within / spread
        s[Sums.MIXED_FREEDOM] = s[Sums.MIXED_FREEDOM] * fade_slowly + frames - 1
        counts = np.unique(answers_B, return_counts=True)[1]
        s[Sums.SAME] = s[Sums.SAME] * fade + (counts * (counts - 1)).sum() / 2
        s[Sums.PAIRS] = s[Sums.PAIRS] * fade + frames * (frames - 1) / 2

    def _entry_for(self, query_BD: Array) -> int:
        """The nearest entry, or a new one where the frames' mean lies too far from it."""
        nearest = self.nearest(query_BD)
        unused_X = np.flatnonzero(self.usage_K == 0)
        if nearest is None:
            return int(unused_X[0])
        frames = len(query_BD)
        if frames < _TOGETHER or not len(unused_X):
            return nearest
        if self._distance(nearest, query_BD) <= self.method.new_domain:
            return nearest
        new = int(unused_X[0])
        self.totals_KD[new] = _PRIOR_FRAMES * self.shift(nearest)
        self.sums_KS[new, Sums.WEIGHT] = _PRIOR_FRAMES
        return new

    def _distance(self, entry: int, query_BD: Array) -> float:
        """From an entry's key to the mean of unit queries, in units of the spread of a domain's."""
        frames, mean_D = len(query_BD), query_BD.mean(0)
        s = self.sums_KS[entry]
        usual = spread = s[Sums.KEY_SPREAD] / s[Sums.KEY_FRAMES]
        if frames >= _TOGETHER:
            spread = ((query_BD - mean_D) ** 2).sum(-1).mean() * frames / (frames - 1)
        distance = ((self._means(np.array([entry]))[0] - mean_D) ** 2).sum() - spread / frames
        return float(distance / max(usual, spread, 1e-12))

    def _means(self, entries_X: NDArray[Any]) -> Array:
        means: Array = self.keys_KD[entries_X] / self.sums_KS[entries_X, Sums.KEY_FRAMES, None]
        return means


def answer(
    frozen_BC: Array,
    query_BD: Array,
    activation_BD: Array,
    banks: Sequence[DomainBank | None],
    cameras: Sequence[Hashable],
    space: ClassSpace,
    *,
    learn: bool,
) -> tuple[Array, list[Standing]]:
    """Logits of B frames by the banks of their domains (B, C), and where each frame stands.

    NaN where there is no answer: no bank, an empty one, or an activation that is not finite. Only
    where the guard says `ADAPTING` should the answer stand. Frames of one bank and one camera are
    taken together, in the order of time; with `learn` the bank takes them in first.
    """
    logits_BC, standings = np.full_like(frozen_BC, np.nan), [Standing()] * len(banks)
    finite_B = np.isfinite(activation_BD.sum(-1))
    together: dict[tuple[int, Hashable], list[int]] = {}
    for i, (bank, camera) in enumerate(zip(banks, cameras, strict=True)):
        if bank is not None and finite_B[i]:
            together.setdefault((id(bank), camera), []).append(i)
    for rows in together.values():
        bank = banks[rows[0]]
        assert bank is not None
        query_XD, activation_XD = query_BD[rows], activation_BD[rows]
        drift = bank.drift(query_XD)
        entry = (
            bank.observe(query_XD, activation_XD, frozen_BC[rows].argmax(-1), space)
            if learn
            else bank.nearest(query_XD)
        )
        if entry is None:
            continue
        share = bank.method.frozen_share
        shift_D = bank.shift(entry)
        logits_BC[rows] = adapted_logits(frozen_BC[rows], activation_XD, shift_D, space, share)
        verdict = bank.verdict(entry, frozen_BC.shape[1])
        for i in rows:
            standings[i] = Standing(verdict, entry, drift)
    return logits_BC, standings


def adapted_logits(
    frozen_BC: Array, activation_BD: Array, shift_D: Array, space: ClassSpace, frozen_share: float
) -> Array:
    """Logits with a domain's shift taken away, by the classes' own directions: (B, C).

    `frozen_share` of the frozen logits is mixed in. What is left of a feature is shorter than the
    feature was, so that its cosines are larger; the logits are scaled back by that measure. No
    answer changes by it: without it adapted answers are far too sure of themselves.
    """
    feature_BE = activation_BD @ space.projection_DE
    rest_BE = feature_BE - shift_D @ space.projection_DE
    part_B1 = _length(rest_BE) / _length(feature_BE)
    spread_BC = space.scale * _unit(rest_BE) @ space.centred_CE.T
    mixed_BC = frozen_share * frozen_BC + (1 - frozen_share) * spread_BC
    logits_BC: Array = (frozen_share + (1 - frozen_share) * part_B1 * space.text_part) * mixed_BC
    return logits_BC


def _diversity(sums_S: Array, classes: int) -> float:
    """Effective number of classes among the frozen answers, over `classes` (inverse Simpson)."""
    if sums_S[Sums.PAIRS] <= 0:
        return 0.0
    same = sums_S[Sums.SAME] / sums_S[Sums.PAIRS]
    return float(1 / (classes * max(same, 1 / (2 * classes))))


def _unit(x_XD: Array) -> Array:
    unit_XD: Array = x_XD / _length(x_XD)
    return unit_XD


def _length(x_XD: Array) -> Array:
    length_X1: Array = np.maximum(np.linalg.norm(x_XD, axis=-1, keepdims=True), 1e-12)
    return length_X1
