"""Where the live bank of a run is to be found: `bank/live.json`, while a run goes on.

Not in `run.json`, which never changes: every run has a bank server of another name. A run that is
killed leaves its name behind; the next one writes its own over it, and whoever looks for an actor
of that name finds none.
"""

from __future__ import annotations

import json
import logging

from mint_stream.bank.ledger import BankError
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store

LIVE = "bank/live.json"

log = logging.getLogger(__name__)


def announce(store: Store, actor: str, namespace: str) -> None:
    """Say that the bank of this output is the actor `actor` in `namespace`; raises nothing."""
    try:
        store.write(LIVE, json.dumps({"actor": actor, "namespace": namespace}).encode())
    except StorageError as error:
        # Labelling does not need it.
        log.warning("%s could not be written, so no service finds the bank: %s", LIVE, error)


def withdraw(store: Store, actor: str) -> None:
    """Take that back, unless another run has written its own meanwhile; raises nothing."""
    try:
        if find_live(store)[0] == actor:
            store.delete(LIVE)
    except (BankError, StorageError) as error:
        log.debug("%s stays: %s", LIVE, error)


def find_live(store: Store) -> tuple[str, str]:
    """Actor and namespace of the live bank of this output.

    Raises `BankError` where no run says that it has one; `StorageError`.
    """
    try:
        told = json.loads(store.read(LIVE))
        return str(told["actor"]), str(told["namespace"])
    except ObjectMissing:
        raise BankError(f"no run labels into {store.url} now: there is no {LIVE}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise BankError(
            f"{store.uri(LIVE)} is damaged ({error!r}): the next run writes it anew; until then "
            "name the bank server that the run printed"
        ) from None
