"""The labeler: one CLIP replica and its view of the bank, fed one unit at a time.

A plain class, used by Ray Data's actor pool and by Ray Serve alike; it imports no ray itself.
"""

from __future__ import annotations

import datetime
import logging
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from mint_stream.bank.client import BankClient
from mint_stream.bank.files import write_delta
from mint_stream.clip.device import settler
from mint_stream.clip.model import load_clip
from mint_stream.input.units import DecodedFrame, Rejected, Unit
from mint_stream.labeler.budget import BUDGET, AdaptBudget
from mint_stream.labeler.config import LabelerConfig
from mint_stream.labeler.device import computing, with_less
from mint_stream.labeler.unit_files import label_table, labels_file, rejects_file
from mint_stream.logs import about
from mint_stream.method.adapter import MintAdapter
from mint_stream.method.bank_state import Update, delta
from mint_stream.method.frozen import Seen
from mint_stream.method.guard import NO_GUARD
from mint_stream.method.methods import BankInUse
from mint_stream.method.prediction import Predictions
from mint_stream.output import schema
from mint_stream.output.units import CameraDomain, LabelledUnit, UnitFacts

log = logging.getLogger(__name__)

SHARED = "shared"
"""Scope of the one bank of all cameras, and of frames without a camera."""


def set_threads(threads: int | None) -> None:
    """CPU threads of torch, for what this thread asks of it; None leaves torch's own choice."""
    if threads:
        torch.set_num_threads(threads)


class Looked(NamedTuple):
    """What the pass without prompts shows of a unit; it depends on nothing that is learned."""

    frames: tuple[DecodedFrame, ...]
    """Those that can be read."""
    rejects: tuple[Rejected, ...]
    """The others."""
    seen: Seen | None
    """Of view 0 of each; None where there are none."""


class Labelled(NamedTuple):
    """Frames with their predictions, and what could not be labelled."""

    frames: Sequence[DecodedFrame]
    predictions: Predictions | None
    """None where there is no frame."""
    rejects: Sequence[Rejected]
    update: Update
    """What changed in each bank."""


@dataclass(frozen=True, kw_only=True)
class AnsweredUnit:
    """A unit's answers, and its merge into the bank."""

    frames: Sequence[DecodedFrame]
    """Those that were labelled, in their order."""
    scopes: Sequence[str]
    """The bank of each."""
    predictions: Predictions | None
    """None where there is no frame."""
    rejects: Sequence[Rejected]
    seq: int
    """Merges that the bank had seen before."""
    bank_seq: int | None
    bank_staleness: int | None
    """As `UnitFacts` has them."""
    log_name: str
    log: bytes | None


class _Unreadable(Exception):
    """Frames that cannot be made into views, by their id, with what is wrong with each."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        super().__init__(", ".join(errors))
        self.errors = errors


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
            # Else adapting, which reads the encoder's answer first, would pay for its pass.
            self.adapter.stopwatch.settle = settler(self.adapter.clip.device)
        self._behind = False
        """Units went by of which the bank was not told."""

    @property
    def one_pass(self) -> bool:
        """Whether a look at view 0 of its frames is all that a unit needs of the encoder."""
        return self.bank is None or self.adapter.algorithm.one_pass

    @property
    def looks_ahead(self) -> bool:
        """Whether `look` at a unit may be taken while the one before it is being labelled.

        Not with an adaptation budget, which goes by the time that things take.
        """
        return self.one_pass and self.budget is None

    def look(self, unit: Unit) -> Looked:
        """The frozen model's pass over a unit."""
        with about(unit=unit.unit, camera=_only_camera(unit)):
            return self._look(unit.frames)

    def __call__(
        self, unit: Unit, looked: Looked | None = None, idle_s: float = 0.0
    ) -> LabelledUnit:
        """`label_unit`, and a line in the log."""
        with about(unit=unit.unit, camera=_only_camera(unit)):
            labelled = self.label_unit(unit, looked, idle_s)
            log.info("labelled", extra={name: getattr(labelled.facts, name) for name in _LOGGED})
        return labelled

    def label_unit(
        self, unit: Unit, looked: Looked | None = None, idle_s: float = 0.0
    ) -> LabelledUnit:
        """`answer` a unit, and make the objects that are to be written.

        idle_s: how long this labeler had nothing to do before.
        """
        stopwatch, budget = self.adapter.stopwatch, self.budget
        stage_seconds = Counter({"decode": unit.read_seconds, "idle": idle_s})
        spent_s = budget.spent_s if budget is not None else 0.0
        answered = self.answer(unit, looked)
        now = datetime.datetime.now(datetime.UTC)
        with stopwatch("write"):
            predictions = answered.predictions
            if predictions is None:
                table = schema.LABELS.empty_table()
            else:
                table = label_table(
                    unit,
                    answered.frames,
                    answered.scopes,
                    predictions,
                    self.config,
                    answered.seq,
                    now,
                )
            labels = labels_file(table, len(answered.rejects), answered.log_name)
            rejects = rejects_file(unit, answered.rejects, now)
        guards = () if predictions is None else predictions.guard_B.tolist()
        return LabelledUnit(
            unit=unit.unit,
            shard_id=unit.shard_id,
            partial=unit.partial,
            shard_frames=unit.shard_frames,
            labels=labels,
            rejects=rejects,
            log_name=answered.log_name,
            log=answered.log,
            facts=UnitFacts(
                left_out=unit.left_out,
                labelled=len(answered.frames),
                abstained=table["label"].null_count,
                adapted=0 if predictions is None else int(predictions.adapted_B.sum()),
                spared=sum(verdict == BUDGET for verdict in guards),
                adapt_seconds=0.0 if budget is None else budget.spent_s - spent_s,
                passes=0 if predictions is None else predictions.passes,
                rejected=Counter(reject.stage for reject in answered.rejects),
                bank_seq=answered.bank_seq,
                bank_staleness=answered.bank_staleness,
                cameras=_cameras(answered),
                stage_seconds=stage_seconds + Counter(stopwatch.take()),
            ),
        )

    def answer(self, unit: Unit, looked: Looked | None = None) -> AnsweredUnit:
        """Label a unit, merge what it changed in the bank, and only then answer.

        looked: what `look` saw of it, where that was taken before.

        A frame whose pixels are no image becomes a reject; the rest of the unit is labelled.
        Raises `DeviceFailed` for whatever else goes wrong while computing.
        """
        seq = 0 if self.bank is None else self._begin(self.bank, unit)
        labelled = self._label(unit.frames, looked)
        update = labelled.update
        log_name, log_data = "", None
        bank_seq = staleness = None
        if self.bank is not None:
            if update or self.budget is None:
                with self._spending(), self.adapter.stopwatch("bank"):
                    receipt = self.bank.merge(unit.unit, update)
                if log_name := receipt.log_name:
                    log_data = write_delta(update, unit=unit.unit, seq=receipt.seq)
                bank_seq = receipt.seq
                staleness = max(0, bank_seq - seq - bool(log_name))
            else:
                bank_seq, staleness, self._behind = seq, 0, True
        return AnsweredUnit(
            frames=labelled.frames,
            scopes=[self._scope(frame) for frame in labelled.frames],
            predictions=labelled.predictions,
            rejects=[*unit.rejects, *labelled.rejects],
            seq=seq,
            bank_seq=bank_seq,
            bank_staleness=staleness,
            log_name=log_name,
            log=log_data,
        )

    def _begin(self, bank: BankClient, unit: Unit) -> int:
        """Start on a unit, with the bank up to date if it will be needed; gives its seq."""
        with self._spending(), self.adapter.stopwatch("bank"):
            seq = bank.begin(unit.unit)
            if self._behind and self._time_for(unit.frames):
                seq, self._behind = bank.merge(unit.unit, {}).seq, False
        return seq

    def _time_for(self, frames: Sequence[DecodedFrame]) -> bool:
        """Whether the budget allows to adapt to these frames, or to one of them."""
        least = len(frames) if self.one_pass else 1
        return self.budget is None or self.budget.affordable(least) == least

    def _spending(
        self, frames: int = 0, *, stage: str | None = None
    ) -> AbstractContextManager[None]:
        """`AdaptBudget.spending`, where there is a budget."""
        return nullcontext() if self.budget is None else self.budget.spending(frames, stage=stage)

    def _label(self, frames: Sequence[DecodedFrame], looked: Looked | None) -> Labelled:
        if self.bank is None:
            return self._label_frozen(looked or self._look(frames))
        if self.one_pass:
            if not self._time_for(frames):
                return self._label_frozen(self._look(frames), guard=BUDGET)
            return self._label_together(self.bank, looked or self._look(frames))
        if self.budget is None:
            return self._label_one_by_one(self.bank, frames)
        return self._label_within(self.budget, self.bank, frames)

    def _label_frozen(self, looked: Looked, guard: str = NO_GUARD) -> Labelled:
        """The frozen model's answers."""
        predictions = None
        if looked.seen is not None:
            with self._computing():
                predictions = self.adapter.label_frozen(looked.seen, self.config.top_k, guard=guard)
        return Labelled(looked.frames, predictions, looked.rejects, {})

    def _label_together(self, client: BankClient, looked: Looked) -> Labelled:
        """All frames at once, by the banks of their scopes."""
        if looked.seen is None:
            return Labelled((), None, looked.rejects, {})
        scopes = [self._scope(frame) for frame in looked.frames]
        banks = {scope: self._bank(client, scope) for scope in dict.fromkeys(scopes)}
        with self._spending(frames=len(looked.frames), stage="domains"), self._computing():
            predictions = self.adapter.label_frames(
                looked.seen,
                [banks[scope] for scope in scopes],
                [frame.camera for frame in looked.frames],
                self.config.top_k,
                times_s=[_seconds(frame) for frame in looked.frames],
                learn=not self.config.relabels,
            )
        update = {} if self.config.relabels else self._update(client, banks)
        return Labelled(looked.frames, predictions, looked.rejects, update)

    def _label_one_by_one(
        self,
        client: BankClient,
        frames: Sequence[DecodedFrame],
        spared: Mapping[str, Predictions] | None = None,
    ) -> Labelled:
        """One frame after the other, except those whose answer stands in `spared`, by frame id."""
        labelled, predictions = list[DecodedFrame](), list[Predictions]()
        rejects = list[Rejected]()
        banks: dict[str, BankInUse] = {}
        for frame in frames:
            if spared is not None and frame.frame in spared:
                labelled.append(frame)
                predictions.append(spared[frame.frame])
                continue
            scope = self._scope(frame)
            if scope not in banks:
                banks[scope] = self._bank(client, scope)
            try:
                with self._spending(frames=1):
                    found = self._label_one(frame, banks[scope])
            except _Unreadable as unreadable:
                rejects.append(_reject(frame, unreadable.errors[frame.frame]))
                continue
            labelled.append(frame)
            predictions.append(found)
        joined = Predictions.joined(predictions) if predictions else None
        return Labelled(labelled, joined, rejects, self._update(client, banks))

    def _label_one(self, frame: DecodedFrame, bank: BankInUse) -> Predictions:
        """The answer to one frame by its views, and the bank that it leaves."""

        def attempt(_: int) -> Predictions:
            with self._computing():
                with self._blaming([frame]):
                    # A copy: torch takes no read-only memory.
                    views = self.adapter.views(frame.rgb_HW3.copy(), frame.frame)
                return self.adapter.label_frames(
                    self.adapter.look(views), [bank], [frame.camera], self.config.top_k
                )

        return with_less(attempt, self._at_once(self.config.method.views), self._take_less)

    def _label_within(
        self, budget: AdaptBudget, client: BankClient, frames: Sequence[DecodedFrame]
    ) -> Labelled:
        """As many frames one by one as there is time for, the most uncertain ones first; the
        others get the frozen answer."""
        started_s = self.adapter.stopwatch.total_s
        frozen = self._label_frozen(self._look(frames), guard=BUDGET)
        if frozen.predictions is None:
            return frozen
        count = len(frozen.frames)
        each_s = (self.adapter.stopwatch.total_s - started_s) / count
        cost = self.adapter.algorithm.cost
        affordable = budget.affordable(count, each_s * (cost.forwards + cost.backwards))
        certain_first = np.argsort(frozen.predictions.entropy_B, kind="stable")
        spared = {
            frozen.frames[index].frame: frozen.predictions.take([index])
            for index in certain_first[: count - affordable]
        }
        labelled = self._label_one_by_one(client, frozen.frames, spared)
        return labelled._replace(rejects=[*frozen.rejects, *labelled.rejects])

    def _bank(self, client: BankClient, scope: str) -> BankInUse:
        state = client.state(scope)
        with self._computing():
            bank: BankInUse = self.adapter.algorithm.bank(state, self.config.labelers)
        return bank

    def _update(self, client: BankClient, banks: Mapping[str, BankInUse]) -> Update:
        return {
            scope: delta(client.state(scope), *bank.arrays(), bank.decay)
            for scope, bank in banks.items()
        }

    def _look(self, frames: Sequence[DecodedFrame]) -> Looked:
        """One pass over view 0 of all frames. What cannot be made into a view becomes a reject."""

        def attempt(most: int) -> Seen:
            parts = [frames[first : first + most] for first in range(0, len(frames), most)]
            with self._computing():
                with self._blaming(frames):
                    views = [self.adapter.first_views([f.rgb_HW3 for f in part]) for part in parts]
                return self.adapter.look(torch.cat(views))

        if not frames:
            return Looked((), (), None)
        try:
            seen = with_less(attempt, self._at_once(len(frames)), self._take_less)
            return Looked(tuple(frames), (), seen)
        except _Unreadable as found:
            bad = [frame for frame in frames if frame.frame in found.errors]
            rejects = [_reject(frame, found.errors[frame.frame]) for frame in bad]
            looked = self._look([frame for frame in frames if frame.frame not in found.errors])
            return looked._replace(rejects=(*rejects, *looked.rejects))

    @contextmanager
    def _blaming(self, frames: Sequence[DecodedFrame]) -> Iterator[None]:
        """Raise `_Unreadable` for what goes wrong inside, if these frames' own pixels are why.

        That is so for those that cannot be made into views without the device, either.
        """
        try:
            yield
        except Exception as failure:
            errors: dict[str, Exception] = {}
            for frame in frames:
                try:
                    self.adapter.views(frame.rgb_HW3.copy(), frame.frame, on_cpu=True)
                except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
                    raise failure from None
                except Exception as error:
                    errors[frame.frame] = error
            if not errors:
                raise
            raise _Unreadable(errors) from failure

    def _computing(self) -> AbstractContextManager[None]:
        """Where what goes wrong is the device's affair."""
        return computing(str(self.adapter.clip.device))

    def _at_once(self, images: int) -> int:
        """How many of so many images are encoded together."""
        return min(images, self.adapter.encoder.at_once or images)

    def _take_less(self, most: int) -> None:
        """Encode no more than so many images at once from here on."""
        log.warning("the device failed; %d images at once from here on", most)
        self.adapter.encoder.at_once = most
        if self.adapter.clip.device.type == "cuda":
            torch.cuda.empty_cache()

    def _scope(self, frame: DecodedFrame) -> str:
        return (frame.camera or SHARED) if self.config.bank_scope == "camera" else SHARED


_LOGGED = ("labelled", "abstained", "adapted", "rejected", "bank_seq", "bank_staleness")


def _cameras(answered: AnsweredUnit) -> tuple[CameraDomain, ...]:
    """Where each camera's frames stand, which is the same for all of them in a unit."""
    predictions, frames = answered.predictions, Counter[str]()
    last: dict[str, int] = {}
    if predictions is None:
        return ()
    for index, frame in enumerate(answered.frames):
        if predictions.domain_B[index] >= 0:
            camera = frame.camera or ""
            frames[camera] += 1
            last[camera] = index
    return tuple(
        CameraDomain(
            camera=camera,
            domain=int(predictions.domain_B[index]),
            drift=predictions[index].drift,
            guard=predictions.guard_B[index],
            frames=frames[camera],
        )
        for camera, index in last.items()
    )


def _seconds(frame: DecodedFrame) -> float:
    """When it was taken, seconds since 1970; NaN where it does not say."""
    return math.nan if frame.timestamp is None else frame.timestamp.timestamp()


def _only_camera(unit: Unit) -> str | None:
    """The camera of all frames of a unit, where they have one in common."""
    cameras = {frame.camera for frame in unit.frames}
    return cameras.pop() if len(cameras) == 1 else None


def _reject(frame: DecodedFrame, error: Exception) -> Rejected:
    with about(camera=frame.camera):
        log.error("frame %s could not be labelled", frame.frame, exc_info=error)
    return Rejected(
        frame=frame.frame,
        member=frame.member,
        stage="label",
        error_type=type(error).__name__,
        message=str(error),
        size_bytes=None,
    )
