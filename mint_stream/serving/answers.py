"""The labeler behind the wire: from questions to answers, in one thread, a batch at a time.

`ReadAnswers` reads a committed bank (`adapt: off`): the labeler's model, no step, nothing learned.
`TaughtAnswers` hands each batch to the labeler as a unit (`adapt: shadow` and `on`), so that it is
adapted to, merged and answered exactly as the pipeline would.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from mint_stream.bank.client import Bank
from mint_stream.bank.ledger import BankError
from mint_stream.bank.log import RestoreError
from mint_stream.input.units import DecodedFrame, Unit
from mint_stream.labeler.labeler import SHARED, AnsweredUnit, MintLabeler
from mint_stream.method.bank_state import BankState as BankNumbers
from mint_stream.method.bank_state import BankUpdateError
from mint_stream.serving.banks.follower import BankFollower, BankState
from mint_stream.serving.banks.reader import BankReader, most_probable_source
from mint_stream.serving.http.problems import Problem
from mint_stream.serving.questions import Answer, Outcome, Question
from mint_stream.store.errors import StorageError

log = logging.getLogger("ray.serve.mint_stream")


class Answers(Protocol):
    """What a replica asks. `start` and `answer` are called from one thread; the rest from any."""

    reader: BankReader

    def start(self) -> None:
        """Reach the bank for the first time; a failure is logged, and tried again later."""
        ...

    def answer(self, questions: Sequence[Question]) -> list[Outcome]:
        """An outcome for each question, in order; raises nothing."""
        ...

    @property
    def bank(self) -> BankState:
        """The bank that answers now."""
        ...

    @property
    def ready(self) -> bool:
        """Whether `answer` can do its work."""
        ...


class ReadAnswers:
    """Answers by the newest bank that `follower` found; by the frozen model if there is to be none.

    `wants`: called with the scope of each image, so that a live bank server is asked for it.
    """

    def __init__(self, reader: BankReader, follower: BankFollower, wants: Any = None) -> None:
        self.reader, self._follower, self._wants = reader, follower, wants

    def start(self) -> None:
        """See `Answers`."""
        self._follower.start()

    @property
    def bank(self) -> BankState:
        """See `Answers`."""
        return self._follower.state

    @property
    def ready(self) -> bool:
        """See `Answers`."""
        return self._follower.ready

    def answer(self, questions: Sequence[Question]) -> list[Outcome]:
        """See `Answers`."""
        if not self._follower.ready:
            error = self._follower.state.last_error or "no sound checkpoint was found yet"
            return [bank_missing(error)] * len(questions)
        if self._wants is not None:
            for scope in {self.reader.banks.scope_of(question.camera) for question in questions}:
                self._wants(scope)
        return alone_if_need_be(self._read, questions)

    def _read(self, questions: Sequence[Question]) -> list[Outcome]:
        readings = self.reader.read(
            torch.cat([question.view_1CHW for question in questions]),
            [question.camera for question in questions],
            max(question.top_k for question in questions),
        )
        return [Answer.of(reading) for reading in readings]


class TaughtAnswers:
    """Each batch is a unit of `labeler`, whose client is of `bank`: adapted to, merged, answered.

    reader: over the labeler's own adapter, without banks: it gives the frozen top-k.
    name: of this replica's units, unique for every start.
    max_cameras: that may have a bank of their own; images of others are refused.
    """

    def __init__(
        self,
        labeler: MintLabeler,
        reader: BankReader,
        bank: Bank,
        *,
        name: str,
        source: str,
        shadow: bool,
        max_cameras: int,
    ) -> None:
        self.reader = reader
        self._labeler, self._bank, self._name = labeler, bank, name
        self._source, self._shadow, self._max_cameras = source, shadow, max_cameras
        self._units = 0
        self._scopes: dict[str, BankNumbers] = {}
        self._state = BankState()
        self._error: str | None = None

    @property
    def bank(self) -> BankState:
        """See `Answers`."""
        return BankState(**{**self._state.__dict__, "last_error": self._error})

    @property
    def ready(self) -> bool:
        """See `Answers`."""
        return self._state.seq is not None

    def start(self) -> None:
        """See `Answers`."""
        try:
            self._note([self.reader.banks.scope_of(None)])
        except (BankError, StorageError, RestoreError) as error:
            self._error = str(error)
            log.warning("the bank cannot be reached: %s", error)

    def answer(self, questions: Sequence[Question]) -> list[Outcome]:
        """See `Answers`."""
        try:
            refused = self._refused({question.camera for question in questions} - {None, SHARED})
        except (BankError, StorageError, RestoreError) as error:
            return self._out_of_reach(questions, error)
        rest = [question for question in questions if question.camera not in refused]
        answers = iter(self._teach(rest) if rest else ())
        return [
            too_many_cameras(question.camera, self._max_cameras)
            if question.camera in refused
            else next(answers)
            for question in questions
        ]

    def _refused(self, cameras: set[str | None]) -> set[str | None]:
        """Those of `cameras` for which there is no room for another bank."""
        if self.reader.banks.scope != "camera" or cameras <= self._scopes.keys():
            return set()
        there = {*self._bank.scopes(), *self._scopes} - {SHARED}
        new = sorted(str(camera) for camera in cameras - there)
        return set(new[max(0, self._max_cameras - len(there)) :])

    def _out_of_reach(self, questions: Sequence[Question], error: Exception) -> list[Outcome]:
        self._error = str(error)
        log.warning("a batch was not answered: %s", error)
        problem = Problem(
            "bank-unreachable",
            "requests teach the bank here, and it could not take part",
            "Try again; if it lasts, see last_error in /v1/bank, or serve with adapt: off.",
        )
        return [problem] * len(questions)

    def _teach(self, questions: Sequence[Question]) -> list[Outcome]:
        """Adapted to, merged, answered: an outcome for each question, in order."""
        self._units += 1
        unit = f"{self._name}-{self._units:010d}"
        try:
            answered = self._labeler.answer(_as_unit(unit, questions))
            if answered.log_name:
                # No labels object follows: what requests teach is durable with a checkpoint.
                self._committed(unit, answered.log_name)
            outcomes = self._outcomes(questions, answered)
            self._note({self.reader.banks.scope_of(question.camera) for question in questions})
            self._error = None
            return outcomes
        except (BankError, StorageError, RestoreError, BankUpdateError) as error:
            return self._out_of_reach(questions, error)
        except Exception:
            log.exception("a batch of %d images failed", len(questions))
            return [internal()] * len(questions)

    def _committed(self, unit: str, log_name: str) -> None:
        commit: Any = getattr(self._bank, "committed", None)
        if commit is not None:
            commit(unit, log_name)

    def _outcomes(self, questions: Sequence[Question], answered: AnsweredUnit) -> list[Outcome]:
        predictions = answered.predictions
        if predictions is None:
            return [internal()] * len(questions)
        found = {frame.member: index for index, frame in enumerate(answered.frames)}
        source_topk = most_probable_source(predictions, len(predictions.labels))
        return [
            Answer(
                prediction=predictions[at],
                source_topk=source_topk[at],
                scope=answered.scopes[at],
                seq=answered.seq,
                source_stands=self._shadow,
            )
            if (at := found.get(str(index))) is not None
            else internal()
            for index in range(len(questions))
        ]

    def _note(self, scopes: Any) -> None:
        """Keep the numbers that `/v1/bank` shows."""
        client = self._labeler.bank
        assert client is not None
        client.begin(self._name)
        self._scopes.update({scope: client.state(scope) for scope in scopes})
        changed = client.seq != self._state.seq
        self._state = BankState(
            seq=client.seq,
            made_at=time.time() if changed else self._state.made_at,
            source=self._source,
            scopes=len(self._scopes),
            used_entries=sum(int((state.usage_K > 0).sum()) for state in self._scopes.values()),
            retrievals=sum(int(state.usage_K.sum()) for state in self._scopes.values()),
            takeovers=self._state.takeovers + changed,
        )


def alone_if_need_be(read: Any, questions: Sequence[Question]) -> list[Outcome]:
    """`read` for all at once; if that fails, one at a time, so that one fails alone."""
    try:
        found: list[Outcome] = read(questions)
        return found
    except Exception:
        log.exception("a batch of %d images failed", len(questions))
        if len(questions) == 1:
            return [internal()]
        return [outcome for one in questions for outcome in alone_if_need_be(read, [one])]


def bank_missing(why: str) -> Problem:
    """There is to be a bank, and none was found yet."""
    return Problem(
        "bank-missing",
        f"the bank has not been read yet: {why}",
        "Wait for the pipeline's first checkpoint, or correct `bank`; /readyz says when it is.",
    )


def too_many_cameras(camera: str | None, limit: int) -> Problem:
    """A camera that would need a bank of its own, and there are `limit` already."""
    return Problem(
        "too-many-cameras",
        f"the camera {camera!r} has no bank yet, and there are {limit} already",
        "Send the name of a camera that is known, or none; or serve with a larger max_cameras.",
    )


def internal() -> Problem:
    """Something that a client cannot mend."""
    return Problem(
        "internal",
        "this image could not be labelled",
        "Try again; if it lasts, give the request id to whoever runs the service.",
    )


def _as_unit(unit: str, questions: Sequence[Question]) -> Unit:
    """These images as a unit."""
    return Unit(
        unit=unit,
        shard_id=unit,
        shard="requests",
        frames=tuple(
            DecodedFrame(
                frame=question.frame,
                member=str(index),
                camera=question.camera,
                timestamp=None,
                width=question.picture.width,
                height=question.picture.height,
                pixels_height=question.picture.rgb_HW3.shape[0],
                pixels_width=question.picture.rgb_HW3.shape[1],
                pixels=question.picture.rgb_HW3.tobytes(),
            )
            for index, question in enumerate(questions)
        ),
        rejects=(),
        read_seconds=sum(question.picture.seconds for question in questions),
    )
