"""The labeler: one CLIP replica and its view of the bank, fed one unit at a time.

A plain class, used by Ray Data's actor pool and by Ray Serve alike; it imports no ray itself.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch

from mint_stream.bank.client import BankClient
from mint_stream.bank.files import write_delta
from mint_stream.clip.model import load_clip
from mint_stream.labeler.budget import BUDGET, AdaptBudget
from mint_stream.labeler.config import LabelerConfig
from mint_stream.labeler.unit_files import Labelled, label_rows, labels_file, rejects_file
from mint_stream.logs import about
from mint_stream.method import bank_state
from mint_stream.method.adapter import BankTensors, MintAdapter, Seen
from mint_stream.method.guard import NO_GUARD
from mint_stream.method.prediction import Prediction

log = logging.getLogger(__name__)

SHARED = "shared"
"""Scope of the one bank of all cameras, and of frames without a camera."""


def set_threads(threads: int | None) -> None:
    """CPU threads of torch, for what this thread asks of it; None leaves torch's own choice."""
    if threads:
        torch.set_num_threads(threads)


class Looked(NamedTuple):
    """What the pass without prompts shows of a unit; it depends on nothing that is learned."""

    frames: list[dict[str, Any]]
    """rows.FRAME of those that can be read."""
    rejects: list[dict[str, Any]]
    """rows.REJECT of the others."""
    seen: Seen | None
    """Of view 0 of each; None where there are none."""


class MintLabeler:
    """Labels units. `bank` is this labeler's client of the synchronized bank, None when frozen."""

    def __init__(self, config: LabelerConfig, bank: BankClient | None) -> None:
        set_threads(config.threads)
        self.config, self.bank = config, bank
        self.adapter = MintAdapter(
            load_clip(config.model),
            config.phrases,
            config.method,
            templates=config.templates,
            seed=config.seed,
            shadow=config.shadow,
        )
        self.budget = None
        if config.adapt_budget is not None and bank is not None:
            self.budget = AdaptBudget(config.adapt_budget, self.adapter.stopwatch)
        self._behind = False
        """Units went by of which the bank was not told."""

    @property
    def looks_ahead(self) -> bool:
        """Whether `look` at a unit may be taken while the one before it is being labelled.

        Not with an adaptation budget, which goes by the time that things take.
        """
        one_pass = self.bank is None or self.config.method.algorithm == "domains"
        return one_pass and self.budget is None

    def look(self, unit: dict[str, Any]) -> Looked:
        """The frozen model's pass over a unit (rows.UNIT_ROW)."""
        with about(unit=unit["unit"], camera=_only_camera(unit)):
            return self._look(unit["frames"])

    def __call__(
        self, unit: dict[str, Any], looked: Looked | None = None, idle_s: float = 0.0
    ) -> dict[str, Any]:
        """`label_unit`, and a line in the log."""
        with about(unit=unit["unit"], camera=_only_camera(unit)):
            labelled = self.label_unit(unit, looked, idle_s)
            log.info("labelled", extra={name: labelled[name] for name in _LOGGED})
        return labelled

    def label_unit(
        self, unit: dict[str, Any], looked: Looked | None = None, idle_s: float = 0.0
    ) -> dict[str, Any]:
        """Label a unit (rows.UNIT_ROW), merge what it changed in the bank, and only then answer
        (rows.LABELLED_ROW).

        looked: what `look` saw of it, where that was taken before. idle_s: how long this
        labeler had nothing to do before.

        A frame that cannot be labelled becomes a reject; the rest of the unit is labelled.
        """
        stopwatch = self.adapter.stopwatch
        stage_seconds = Counter({"decode": unit["read_seconds"], "idle": idle_s})
        rejects = [dict(reject) for reject in unit["rejects"]]
        spent_s = self.budget.spent_s if self.budget is not None else 0.0
        seq = 0 if self.bank is None else self._begin(self.bank, unit)
        labelled, update = self._label(unit["frames"], rejects, looked)
        log_name, log_data = "", None
        bank_seq = staleness = None
        if self.bank is not None:
            if update or self.budget is None:
                with self._spending(), stopwatch("bank"):
                    receipt = self.bank.merge(unit["unit"], update)
                if log_name := receipt.log_name:
                    log_data = write_delta(update, unit=unit["unit"], seq=receipt.seq)
                bank_seq = receipt.seq
                staleness = max(0, bank_seq - seq - bool(log_name))
            else:
                bank_seq, staleness, self._behind = seq, 0, True
        now = datetime.datetime.now(datetime.UTC)
        counts = Counter(reject["stage"] for reject in rejects)
        with stopwatch("write"):
            labels = label_rows(unit, labelled, self.config, seq, now)
            return {
                "unit": unit["unit"],
                "shard_id": unit["shard_id"],
                "partial": unit["partial"],
                "shard_frames": unit["shard_frames"],
                "labels": labels_file(labels, len(rejects), log_name),
                "rejects": rejects_file(unit, rejects, now),
                "log_name": log_name,
                "log": log_data,
                "labelled": len(labelled),
                "abstained": sum(label["label"] is None for label in labels),
                "adapted": sum(prediction.adapted for _, _, prediction in labelled),
                "spared": sum(prediction.guard == BUDGET for _, _, prediction in labelled),
                "adapt_seconds": 0.0 if self.budget is None else self.budget.spent_s - spent_s,
                "passes": sum(p.cost.forwards + p.cost.backwards for _, _, p in labelled),
                "rejected": json.dumps(counts),
                "bank_seq": bank_seq,
                "bank_staleness": staleness,
                "cameras": json.dumps(_cameras(labelled)),
                "stage_seconds": json.dumps(stage_seconds + Counter(stopwatch.take())),
            }

    def _begin(self, bank: BankClient, unit: dict[str, Any]) -> int:
        """Start on a unit, with the bank up to date if it will be needed; gives its seq."""
        with self._spending(), self.adapter.stopwatch("bank"):
            seq = bank.begin(unit["unit"])
            if self._behind and self._time_for(unit["frames"]):
                seq, self._behind = bank.merge(unit["unit"], {}).seq, False
        return seq

    def _time_for(self, frames: list[dict[str, Any]]) -> bool:
        """Whether the budget allows to adapt to these frames, or to one of them."""
        least = len(frames) if self.config.method.algorithm == "domains" else 1
        return self.budget is None or self.budget.affordable(least) == least

    def _spending(
        self, frames: int = 0, *, stage: str | None = None
    ) -> AbstractContextManager[None]:
        """`AdaptBudget.spending`, where there is a budget."""
        return nullcontext() if self.budget is None else self.budget.spending(frames, stage=stage)

    def _label(
        self,
        frames: list[dict[str, Any]],
        rejects: list[dict[str, Any]],
        looked: Looked | None,
    ) -> tuple[Labelled, dict[str, bank_state.Delta]]:
        """(frame, bank scope, prediction) for each frame, and what changed in each bank."""
        if self.bank is None:
            return self._label_frozen(looked or self._look(frames), rejects), {}
        if self.config.method.algorithm == "domains":
            if not self._time_for(frames):
                return self._label_frozen(self._look(frames), rejects, guard=BUDGET), {}
            return self._label_stream(self.bank, looked or self._look(frames), rejects)
        spared: dict[str, Prediction] = {}
        if self.budget is not None:
            frames, spared = self._spare(self.budget, frames, rejects)
        return self._adapt(self.bank, frames, spared, rejects)

    def _spare(
        self, budget: AdaptBudget, frames: list[dict[str, Any]], rejects: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Prediction]]:
        """The frames that can be read, and the frozen answers of those that there is no time for.

        There is time for the most uncertain ones first.
        """
        started_s = self.adapter.stopwatch.total_s
        answers = self._label_frozen(self._look(frames), rejects, guard=BUDGET)
        each_s = (self.adapter.stopwatch.total_s - started_s) / max(1, len(answers))
        cost = self.adapter.cost(self.config.method.views)
        count = budget.affordable(len(answers), each_s * (cost.forwards + cost.backwards))
        certain_first = sorted(answers, key=lambda answer: answer[2].entropy)
        return [frame for frame, _, _ in answers], {
            frame["frame"]: prediction
            for frame, _, prediction in certain_first[: len(answers) - count]
        }

    def _adapt(
        self,
        client: BankClient,
        frames: list[dict[str, Any]],
        spared: dict[str, Prediction],
        rejects: list[dict[str, Any]],
    ) -> tuple[Labelled, dict[str, bank_state.Delta]]:
        """One frame after the other, except those whose answer stands in `spared`."""
        labelled = []
        banks: dict[str, BankTensors] = {}
        for frame in frames:
            scope = self._scope(frame)
            if frame["frame"] in spared:
                labelled.append((frame, scope, spared[frame["frame"]]))
                continue
            if scope not in banks:
                state = client.state(scope)
                self.adapter.load_bank(*bank_state.effective(state), state.usage_K)
                banks[scope] = self.adapter.bank
            self.adapter.bank = banks[scope]
            try:
                with self._spending(frames=1):
                    # A copy: torch takes no read-only memory.
                    views = self.adapter.views(_pixels(frame).copy(), frame["frame"])
                    prediction = self.adapter.label_views(views, self.config.top_k)
            except Exception as error:
                rejects.append(_reject(frame, error))
                continue
            banks[scope] = self.adapter.bank
            labelled.append((frame, scope, prediction))
        return labelled, {
            scope: bank_state.delta(client.state(scope), *bank.arrays(), bank.decay)
            for scope, bank in banks.items()
        }

    def _label_stream(
        self, client: BankClient, looked: Looked, rejects: list[dict[str, Any]]
    ) -> tuple[Labelled, dict[str, bank_state.Delta]]:
        """All frames by the banks of their domains."""
        rejects.extend(looked.rejects)
        if looked.seen is None:
            return [], {}
        scopes = [self._scope(frame) for frame in looked.frames]
        banks = {}
        for scope in dict.fromkeys(scopes):
            state = client.state(scope)
            banks[scope] = self.adapter.domain_bank(
                *bank_state.effective(state), state.usage_K, self.config.labelers
            )
        with self._spending(frames=len(looked.frames), stage="domains"):
            predictions = self.adapter.label_stream(
                looked.seen,
                [banks[scope] for scope in scopes],
                [frame["camera"] for frame in looked.frames],
                self.config.top_k,
                learn=not self.config.relabels,
            )
        labelled = list(zip(looked.frames, scopes, predictions, strict=True))
        if self.config.relabels:
            return labelled, {}
        return labelled, {
            scope: bank_state.delta(client.state(scope), *bank.arrays(), bank.decay)
            for scope, bank in banks.items()
        }

    def _label_frozen(
        self, looked: Looked, rejects: list[dict[str, Any]], guard: str = NO_GUARD
    ) -> Labelled:
        """The frozen model's answers."""
        rejects.extend(looked.rejects)
        if looked.seen is None:
            return []
        predictions = self.adapter.label_frozen(looked.seen, self.config.top_k, guard=guard)
        return [
            (frame, self._scope(frame), prediction)
            for frame, prediction in zip(looked.frames, predictions, strict=True)
        ]

    def _look(self, frames: list[dict[str, Any]]) -> Looked:
        """One pass over view 0 of all frames. What cannot be made into a view becomes a reject."""
        try:
            views = self.adapter.first_views([_pixels(frame) for frame in frames])
            rejects: list[dict[str, Any]] = []
        except Exception as error:
            log.debug("frames cannot be read together: %s", error)
            frames, views, rejects = self._views_one_by_one(frames)
        return Looked(frames, rejects, self.adapter.look(views) if frames else None)

    def _views_one_by_one(
        self, frames: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], torch.Tensor, list[dict[str, Any]]]:
        """The frames that can be read, view 0 of each, and the rejects."""
        readable, views, rejects = [], [torch.empty(0)], []
        for frame in frames:
            try:
                views.append(self.adapter.first_views([_pixels(frame)]))
                readable.append(frame)
            except Exception as error:
                rejects.append(_reject(frame, error))
        return readable, torch.cat(views[1:] or views), rejects

    def _scope(self, frame: dict[str, Any]) -> str:
        return (frame["camera"] or SHARED) if self.config.bank_scope == "camera" else SHARED


_LOGGED = ("labelled", "abstained", "adapted", "rejected", "bank_seq", "bank_staleness")


def _cameras(labelled: Labelled) -> dict[str, dict[str, Any]]:
    """What rows.LABELLED_ROW tells of each camera's domain; nothing where there are none."""
    found: dict[str, dict[str, Any]] = {}
    for frame, _, prediction in labelled:
        if prediction.bank_domain is not None:
            # The same for all frames of a camera in a unit.
            camera = found.setdefault(frame["camera"] or "", {"frames": 0})
            camera |= {"domain": prediction.bank_domain, "drift": prediction.drift}
            camera["guard"] = prediction.guard
            camera["frames"] += 1
    return found


def _only_camera(unit: dict[str, Any]) -> str | None:
    """The camera of all frames of a unit, where they have one in common."""
    cameras = {frame["camera"] for frame in unit["frames"]}
    return cameras.pop() if len(cameras) == 1 else None


def _pixels(frame: dict[str, Any]) -> np.ndarray:
    shape = (frame["pixels_height"], frame["pixels_width"], 3)
    return np.frombuffer(frame["pixels"], np.uint8).reshape(shape)


def _reject(frame: dict[str, Any], error: Exception) -> dict[str, Any]:
    with about(camera=frame["camera"]):
        log.error("frame %s could not be labelled", frame["frame"], exc_info=error)
    return {
        "frame": frame["frame"],
        "member": frame["member"],
        "stage": "label",
        "error_type": type(error).__name__,
        "message": str(error),
        "size_bytes": None,
    }
