"""Keeps a replica on the newest bank: a thread finds it, and the next batch is read from it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mint_stream.bank.ledger import BankError
from mint_stream.bank.log import RestoreError
from mint_stream.serving.banks.reader import BankReader
from mint_stream.serving.banks.watch import BankNews, BankWatch, WrongBank
from mint_stream.store.errors import StorageError

log = logging.getLogger("ray.serve.mint_stream")


@dataclass(frozen=True)
class BankState:
    """The bank in use, for `/v1/bank`."""

    seq: int | None = None
    made_at: float | None = None
    source: str | None = None
    scopes: int = 0
    used_entries: int = 0
    retrievals: int = 0
    takeovers: int = 0
    last_error: str | None = None

    @property
    def age_s(self) -> float | None:
        """Seconds since it was written or changed; never negative, whatever clocks say."""
        return None if self.made_at is None else max(0.0, time.time() - self.made_at)


class BankFollower:
    """Polls `watches`, the first that answers, and gives what they bring to `reader`.

    A source that cannot be reached costs nothing but news: the bank in use stays.
    """

    def __init__(
        self, watches: Sequence[BankWatch], reader: BankReader, *, poll_s: float = 5.0
    ) -> None:
        self._watches, self._reader, self._poll_s = watches, reader, poll_s
        self._lock = threading.Lock()
        self._state = BankState()
        self._error: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bank-follower", daemon=True)

    @property
    def expected(self) -> bool:
        """Whether there is to be a bank at all."""
        return bool(self._watches)

    @property
    def state(self) -> BankState:
        """The bank in use."""
        with self._lock:
            return BankState(**{**self._state.__dict__, "last_error": self._error})

    @property
    def ready(self) -> bool:
        """Whether images can be answered: a bank was found, or none is to be."""
        with self._lock:
            return not self._watches or self._state.seq is not None

    def start(self) -> None:
        """Look once, then keep looking in a thread."""
        self.poll()
        if self._watches:
            self._thread.start()

    def stop(self) -> None:
        """No more polls."""
        self._stop.set()

    def poll(self) -> None:
        """Look for news once. Failures are logged and kept for `/v1/bank`, never raised."""
        failures = []
        for watch in self._watches:
            try:
                news = watch.news()
            except (WrongBank, StorageError, BankError, RestoreError) as error:
                failures.append(str(error))
                continue
            if news is not None:
                self._take_over(news)
            break
        said = "; ".join(failures) or None
        if said is not None and said != self._error:
            log.warning("no newer bank: %s", said)
        self._error = said

    def _take_over(self, news: BankNews) -> None:
        """The batch that runs is finished with the bank that it began with."""
        self._reader.banks = self._reader.load(news.banks, news.scope)
        states = news.banks.states.values()
        with self._lock:
            self._state = BankState(
                seq=news.banks.seq,
                made_at=news.made_at,
                source=news.source,
                scopes=len(states),
                used_entries=sum(int((state.usage_K > 0).sum()) for state in states),
                retrievals=sum(int(state.usage_K.sum()) for state in states),
                takeovers=self._state.takeovers + 1,
            )
        log.info("bank %d taken over from %s", news.banks.seq, news.source)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.poll()
            except Exception:
                # Whatever it was, the bank in use still answers, and the next poll may do better.
                log.exception("looking for a newer bank failed")
