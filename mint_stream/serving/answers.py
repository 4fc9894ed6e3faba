"""The labeler behind the wire: from questions to answers, in one thread, a batch at a time.

`ReadAnswers` reads a committed bank (`adapt: off`): the labeler's model, no step, nothing learned.
`TaughtAnswers` hands each batch to the labeler as a unit (`adapt: shadow` and `on`), so that it is
adapted to, merged and answered exactly as the pipeline would.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from typing import Any, Protocol

import pyarrow.parquet as pq
import torch

from mint_stream.bank.client import Bank
from mint_stream.bank.ledger import BankError
from mint_stream.bank.log import RestoreError
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.method.bank_state import BankState as BankNumbers
from mint_stream.method.bank_state import BankUpdateError
from mint_stream.method.prediction import Cost, Prediction
from mint_stream.serving.banks.follower import BankFollower, BankState
from mint_stream.serving.banks.reader import BankReader
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
    ) -> None:
        self.reader = reader
        self._labeler, self._bank, self._name = labeler, bank, name
        self._source, self._shadow = source, shadow
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
        self._units += 1
        unit = f"{self._name}-{self._units:010d}"
        try:
            labelled = self._labeler.label_unit(_as_unit(unit, questions))
            if log_name := labelled["log_name"]:
                # No labels object follows: what requests teach is durable with a checkpoint.
                self._committed(unit, log_name)
            outcomes = self._outcomes(questions, labelled)
            self._note({self.reader.banks.scope_of(question.camera) for question in questions})
            self._error = None
            return outcomes
        except (BankError, StorageError, RestoreError, BankUpdateError) as error:
            self._error = str(error)
            log.warning("a batch was not answered: %s", error)
            problem = Problem(
                "bank-unreachable",
                "requests teach the bank here, and it could not take part",
                "Try again; if it lasts, see last_error in /v1/bank, or serve with adapt: off.",
            )
            return [problem] * len(questions)
        except Exception:
            log.exception("a batch of %d images failed", len(questions))
            return [internal()] * len(questions)

    def _committed(self, unit: str, log_name: str) -> None:
        commit: Any = getattr(self._bank, "committed", None)
        if commit is not None:
            commit(unit, log_name)

    def _outcomes(self, questions: Sequence[Question], labelled: dict[str, Any]) -> list[Outcome]:
        rows = {
            row["member"]: row for row in pq.read_table(io.BytesIO(labelled["labels"])).to_pylist()
        }
        readings = self.reader.read(
            torch.cat([question.view_1CHW for question in questions]),
            [question.camera for question in questions],
            len(self.reader.adapter.labels),
        )
        return [
            Answer(
                prediction=_prediction(rows[str(index)]),
                source_topk=reading.source_topk,
                scope=rows[str(index)]["bank_scope"],
                seq=rows[str(index)]["bank_seq"],
                source_stands=self._shadow,
            )
            if str(index) in rows
            else internal()
            for index, reading in enumerate(readings)
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


def internal() -> Problem:
    """Something that a client cannot mend."""
    return Problem(
        "internal",
        "this image could not be labelled",
        "Try again; if it lasts, give the request id to whoever runs the service.",
    )


def _as_unit(unit: str, questions: Sequence[Question]) -> dict[str, Any]:
    """`rows.UNIT_ROW` of these images."""
    return {
        "unit": unit,
        "shard_id": unit,
        "shard": "requests",
        "frames": [
            {
                "frame": question.frame,
                "member": str(index),
                "camera": question.camera,
                "timestamp": None,
                "width": question.picture.width,
                "height": question.picture.height,
                "pixels_height": question.picture.rgb_HW3.shape[0],
                "pixels_width": question.picture.rgb_HW3.shape[1],
                "pixels": question.picture.rgb_HW3.tobytes(),
            }
            for index, question in enumerate(questions)
        ],
        "rejects": [],
        "partial": False,
        "shard_frames": None,
        "read_seconds": sum(question.picture.seconds for question in questions),
    }


def _prediction(row: dict[str, Any]) -> Prediction:
    """A row of `labels/` as the prediction that it was made of."""
    return Prediction(
        label=row["label"],
        confidence=row["confidence"],
        entropy=row["entropy"],
        topk=tuple(zip(row["topk_labels"], row["topk_scores"], strict=True)),
        source_label=row["source_label"],
        source_confidence=row["source_confidence"],
        adapted=row["adapted"],
        cost=Cost(forwards=0, backwards=0),
    )
