"""The bank server as a named Ray actor, and how labelers and commit tasks reach it.

bank = start_bank_server(config, namespace="mint")
client = BankClient(bank)          # in a labeler
bank.committed(unit, log_name)     # in a commit task
bank.finish()                      # in the driver, when nobody labels or commits any more
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import stamina
from ray.actor import ActorHandle
from ray.exceptions import ActorUnavailableError, RayActorError, RayTaskError

from mint_stream.bank.calls import BankCalls
from mint_stream.bank.ledger import BankError
from mint_stream.bank.server import BankConfig, BankServer
from mint_stream.pipeline.control import was_started_again
from mint_stream.pipeline.metrics import CheckpointMetrics
from mint_stream.pipeline.origin import Origin

NAME = "mint-bank"


@dataclass(frozen=True)
class RemoteBank(BankCalls):
    """A bank server somewhere else, with `BankServer`'s methods; it travels to tasks and actors.

    A call that finds the server dead waits for its restart, up to `patience_s`, and is repeated:
    every call of the server may come twice. Raises what the server raises, and `BankError` when
    it cannot be reached.
    """

    server: ActorHandle
    patience_s: float = 300.0

    def stop(self) -> None:
        """End the actor. `finish` comes first."""
        ray.kill(self.server)

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            for attempt in stamina.retry_context(
                on=ActorUnavailableError,
                attempts=None,
                timeout=self.patience_s,
                wait_initial=0.1,
                wait_max=2.0,
            ):
                with attempt:
                    return ray.get(getattr(self.server, method).remote(*arguments))
        except RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except RayActorError as error:
            raise BankError(
                f"the bank server cannot be reached ({str(error).strip()}); what was committed "
                "is intact, and the same command continues from there"
            ) from error
        raise AssertionError("stamina ends with a result or an exception")


class _BankActor(BankServer):
    """Knows whether it was there before."""

    def __init__(self, config: BankConfig, origin: Origin | None) -> None:
        self._metrics = None
        if origin is not None:
            origin.enter()
            self._metrics = CheckpointMetrics(origin.output)
        super().__init__(config, restarted=was_started_again())
        self.start_clock()

    def checkpoint(self) -> int:
        seq = super().checkpoint()
        if self._metrics is not None:
            self._metrics.saved(seq)
        return seq


def start_bank_server(
    config: BankConfig, *, namespace: str, name: str = NAME, origin: Origin | None = None
) -> RemoteBank:
    """Start the bank server of a run as the actor `name` in `namespace`, and restore it.

    It lives as long as the driver keeps what this returns, takes no CPU slot, and is started again
    whenever it dies. `origin`: the run for which it logs and counts. Raises `RestoreError` or
    `StorageError` where the bank cannot be restored.
    """
    server = (
        ray.remote(_BankActor)
        .options(
            name=name,
            namespace=namespace,
            num_cpus=0,
            max_restarts=-1,
            # Repeating is the caller's business: it first has to rejoin.
            max_task_retries=0,
        )
        .remote(config, origin)
    )
    bank = RemoteBank(server)
    bank.status()
    return bank
