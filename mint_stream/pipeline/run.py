"""The run: what is prepared, watched and told about while the dataset labels what is left."""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Callable, Generator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import ray
from ray.exceptions import RayActorError

from mint_stream.bank import live
from mint_stream.bank.ledger import BankError
from mint_stream.bank.log import RestoreError
from mint_stream.clip.device import check_in_actor
from mint_stream.config import ConfigError, RunConfig
from mint_stream.input.discovery import discover
from mint_stream.input.units import LeftBehind, ShardTask
from mint_stream.labeler.device import DeviceFailed
from mint_stream.output.done import load_done
from mint_stream.output.lease import Lease
from mint_stream.output.units import CommittedUnit
from mint_stream.pipeline.bank_actor import RemoteBank, start_bank_server
from mint_stream.pipeline.cluster import check_cluster, start_ray
from mint_stream.pipeline.control import RemoteControl, start_run_control
from mint_stream.pipeline.dataset import labelled_units
from mint_stream.pipeline.left import left_to_do
from mint_stream.pipeline.leftovers import Leftovers
from mint_stream.pipeline.metrics import RunMetrics
from mint_stream.pipeline.origin import Origin
from mint_stream.pipeline.parcels import StreamBroken
from mint_stream.pipeline.parts import run_bank
from mint_stream.pipeline.placement import say_if_no_gpu
from mint_stream.pipeline.preflight import Prepared, prepare, tell_left_out
from mint_stream.pipeline.sharing import shared_folders
from mint_stream.pipeline.signals import stop_on_signals
from mint_stream.pipeline.summary import RunFailed, RunSummary
from mint_stream.pipeline.tally import RECENT_FRAMES, Tally, summarize
from mint_stream.pipeline.watch import Unplaced
from mint_stream.reports.camera_events import CameraEvents
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

NAMESPACE = "mint_stream"
MOST_DEATHS = 3
"""Deaths of the only labeler in a row, with nothing committed in between, that a run survives."""


@dataclass
class Run:
    """A prepared run: what is left to do, and who watches it.

    Args:
        on_start: called once with (frames already done, shards left).
        on_commit: called after each committed unit with the tally so far.
        on_bank: called with the name of the live bank server, where there is one.
    """

    config: RunConfig
    prepared: Prepared
    on_start: Callable[[int, int], None]
    on_commit: Callable[[Tally], None]
    handle_signals: bool = False
    """Take SIGTERM and Ctrl-C as requests to stop in an orderly way while labelling."""
    log_json: bool = False
    """Have Ray format the log lines of all processes as JSON."""
    on_bank: Callable[[str], None] = lambda name: None
    origin: Origin = field(init=False)
    _stopped: str | None = None
    _lease_lost: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _control: RemoteControl | None = None
    _bank_name: str = ""
    _units_before: int = 0
    _frames_before: int = 0

    def __post_init__(self) -> None:
        self.origin = Origin(run=secrets.token_hex(4), output=self.config.output)

    def stop(self, why: str) -> None:
        """Finish the units in flight, write a checkpoint and return. Safe in a signal handler."""
        if self._stopped is None:
            self._stopped = why
            # Not from here: a signal may have interrupted whoever holds the locks.
            threading.Thread(target=self._pass_on_stop, name="stop", daemon=True).start()

    def execute(self) -> RunSummary:
        """Label everything that is left.

        Raises `RunFailed`, `LeaseHeld`, `StorageError`, or `ConfigError` where the cluster cannot
        be joined or its nodes do not share a local folder of the run.
        """
        started = time.monotonic()
        lease = Lease(self.prepared.store, on_lost=self._lose_lease)
        lease.acquire()
        try:
            tell_left_out(self.prepared)
            done = load_done(self.prepared.store, self.prepared.unit_size)
            self._units_before, self._frames_before = len(done.units), done.frames
            tally, seq = Tally(), None
            left = left_to_do(self.config, self.prepared, done, tally.left.add_shard)
            self.on_start(0 if self.config.relabel_suspect else done.frames, len(left))
            if left or self.config.follow:
                start_ray(log_json=self.log_json)
                with shared_folders(self.prepared.store, self.prepared.shards) as token:
                    self.origin = replace(self.origin, token=token)
                    try:
                        seq = self._label(left, tally)
                        if self.config.follow:
                            tally.left.settle(self.prepared.store, self.prepared.unit_size)
                    except Exception as error:
                        raise _readable(error) from error
            if self._lease_lost:
                raise RunFailed(
                    f"another run has taken {self.config.output} over; this one has stopped, and "
                    "what it committed is kept"
                )
            return summarize(
                self.config,
                self.prepared,
                done,
                tally,
                started=started,
                seq=seq,
                stopped=self._stopped,
            )
        finally:
            self._ended.set()
            lease.release()

    def _lose_lease(self) -> None:
        self._lease_lost = True
        self.stop("another run took the output over")

    def _pass_on_stop(self) -> None:
        # Again and again: an actor that was started again has forgotten it.
        while not self._ended.is_set():
            if self._control is not None:
                self._control.stop()
            self._ended.wait(1.0)

    def _label(self, left: list[ShardTask], tally: Tally) -> int | None:
        self.origin.enter()
        say_if_no_gpu(self.config.model.device)
        metrics = RunMetrics(self.config.output, follow=self.config.follow)
        metrics.start()
        events = CameraEvents()
        bank = self._start_bank() if self.config.keeps_bank else None
        signals = stop_on_signals(self.stop) if self.handle_signals else nullcontext()
        seq = None
        try:
            with signals, contextlib.closing(self._units(left, bank, tally)) as units:
                for unit in units:
                    tally.add(unit)
                    metrics.add(unit)
                    events.add(unit)
                    self.on_commit(tally)
                    self._check_rejects(tally)
            if bank is not None and not self._lease_lost:
                seq = bank.finish().seq
        except BaseException:
            _finish_quietly(bank)
            raise
        finally:
            if bank is not None:
                bank.stop()
                live.withdraw(self.prepared.store, self._bank_name)
            metrics.end()
            self.origin.leave()
        return seq

    def _start_bank(self) -> RemoteBank:
        bank = run_bank(self.config, self.prepared)
        # A name of its own: several runs may share a cluster.
        name = f"bank-{secrets.token_hex(4)}"
        server = start_bank_server(bank, namespace=NAMESPACE, name=name, origin=self.origin)
        live.announce(self.prepared.store, name, NAMESPACE)
        self._bank_name = name
        self.on_bank(name)
        return server

    def _units(
        self, left: list[ShardTask], bank: RemoteBank | None, tally: Tally
    ) -> Generator[CommittedUnit]:
        """What was committed: of one dataset, and of another one if that breaks off."""
        deaths = 0
        while True:
            self._control = start_run_control()
            committed = labelled_units(
                self.config,
                self.prepared,
                left,
                self._control,
                bank,
                self.origin,
                lambda what: self._leave(what, tally),
            )
            try:
                with contextlib.closing(committed):
                    for unit in committed:
                        deaths = 0
                        yield unit
                return
            except Unplaced as ending:
                if self._stopped is not None:
                    return
                log.warning("%s: its parts are placed anew", ending)
            except Exception as error:
                broken = isinstance(_cause(error), StreamBroken)
                died = isinstance(error, RayActorError) and self.config.num_labelers == 1
                if not (broken or died):
                    raise
                if self._stopped is not None:
                    return
                why = "the labeler died" if died else f"the stream broke off ({_cause(error)})"
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise RunFailed(
                        f"{why}, for the {deaths}th time in a row with nothing labelled in "
                        "between; most often the labeler's machine has too little memory; Ray's "
                        "logs say more (/tmp/ray/session_latest/logs). What was committed is kept"
                    ) from error
                log.warning("%s: another labeler goes on with what is not committed", why)
            finally:
                self._control.end()
            left = self._left_now(bank, tally)
            if not left and not self.config.follow:
                return

    def _leave(self, left: list[LeftBehind], tally: Tally) -> None:
        """Take note of what could not be had; a source that follows tries again."""
        tally.left.add(left)
        if self._control is not None and self.config.follow:
            self._control.leave(left)

    def _left_now(self, bank: RemoteBank | None, tally: Tally) -> list[ShardTask]:
        """What is to do for a labeler that follows one that died, as for a run that begins."""
        if bank is not None:
            bank.drop_unfinished()
        tally.left = Leftovers()  # all of that is tried again
        config = self.config
        if config.follow:
            shards = discover(config.input, unit_size=self.prepared.unit_size)
            self.prepared = replace(self.prepared, shards=shards)
        done = load_done(self.prepared.store, self.prepared.unit_size)
        if not config.relabel_suspect:
            tally.catch_up(len(done.units) - self._units_before, done.frames - self._frames_before)
        return left_to_do(config, self.prepared, done, tally.left.add_shard)

    def _check_rejects(self, tally: Tally) -> None:
        rejected = sum(tally.rejects.values())
        for which, few, rejects, seen in (
            ("", 50, rejected, tally.frames + rejected),
            ("the last ", RECENT_FRAMES, *tally.recent),
        ):
            if seen >= few and rejects / seen > self.config.max_reject_ratio:
                raise RunFailed(
                    f"{rejects:,} of {which}{seen:,} frames were rejected (in all "
                    f"{dict(tally.rejects)}), more than --max-reject-ratio "
                    f"{self.config.max_reject_ratio}: see the messages in "
                    f"{self.config.output}/rejects; what was labelled is kept"
                )


def prepare_run(
    config: RunConfig,
    *,
    on_start: Callable[[int, int], None] = lambda done, left: None,
    on_commit: Callable[[Tally], None] = lambda tally: None,
    on_bank: Callable[[str], None] = lambda name: None,
    handle_signals: bool = False,
    log_json: bool = False,
) -> Run:
    """Check everything that can be checked before a model is loaded; then `execute` it."""
    check_in_actor(config.model.device)
    check_cluster()
    return Run(config, prepare(config), on_start, on_commit, handle_signals, log_json, on_bank)


def run(config: RunConfig) -> RunSummary:
    """Prepare and execute a run, quietly."""
    return prepare_run(config).execute()


def _finish_quietly(bank: RemoteBank | None) -> None:
    """The last checkpoint of a run that failed: worth a try, and no more than that."""
    if bank is None:
        return
    try:
        bank.finish()
    except Exception as error:
        log.debug("no last checkpoint: the log holds what it would have held", exc_info=error)


def _cause(error: Exception) -> BaseException:
    """What was raised in a task, where that is what `error` tells of."""
    return error.cause if isinstance(error, ray.exceptions.RayTaskError) else error


_IN_WORDS = (StorageError, BankError, RestoreError, ConfigError, DeviceFailed)
"""Errors whose message says what is wrong and what to do."""
_TELL_WHAT_IS_KEPT = (StorageError, BankError)
"""Those among them that say what becomes of what was committed, where that is in question."""


def _readable(error: Exception) -> RunFailed:
    """What a person needs of an error that ended a run, in one line."""
    cause = _cause(error)
    if isinstance(cause, RunFailed):
        return cause
    # Ray Data appends advice of its own to the message.
    text = " ".join(str(cause).partition("\nFailed to ")[0].split())
    if not isinstance(cause, _IN_WORDS):
        log.debug("the run failed", exc_info=error)
        text = f"{type(cause).__name__}: {text}"
    if not isinstance(cause, _TELL_WHAT_IS_KEPT):
        text += ". What was committed is kept"
    return RunFailed(text)
