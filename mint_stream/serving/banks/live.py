"""The bank server of a pipeline on the same cluster, and one that a service runs for itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray
import stamina
from ray.actor import ActorHandle
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.util import list_named_actors

from mint_stream.bank.calls import BankCalls
from mint_stream.bank.client import BankClient
from mint_stream.bank.ledger import BankError
from mint_stream.bank.server import BankConfig, BankServer
from mint_stream.config import BankScope
from mint_stream.output.lease import Lease
from mint_stream.pipeline.bank_actor import RemoteBank
from mint_stream.serving.banks.watch import BankNews, LiveWatch

log = logging.getLogger("ray.serve.mint_stream")

_PATIENCE_S = 10.0


def find_bank(name: str, namespace: str) -> RemoteBank:
    """The live bank server `name`. Raises `BankError`, naming those that there are."""
    try:
        actor: ActorHandle = ray.get_actor(name, namespace)
    except ValueError:
        there = [
            actor["name"]
            for actor in list_named_actors(all_namespaces=True)
            if actor["namespace"] == namespace and actor["name"].startswith("bank-")
        ]
        raise BankError(
            f"there is no bank server {name!r} in namespace {namespace!r}; "
            + (f"there are {', '.join(sorted(there))}" if there else "no pipeline runs one now")
        ) from None
    return RemoteBank(actor, patience_s=_PATIENCE_S)


class ActorWatch:
    """`LiveWatch` over a bank server that may come and go.

    where: its name and namespace, asked for whenever there is none to follow. Raises `BankError`
    or `StorageError` where it is not known.
    """

    def __init__(
        self, where: Callable[[], tuple[str, str]], *, reader: str, scope: BankScope
    ) -> None:
        self._where, self._reader, self._scope = where, reader, scope
        self._watch: LiveWatch | None = None
        self._wanted: set[str] = set()

    def want(self, scope: str) -> None:
        """See `LiveWatch.want`."""
        self._wanted.add(scope) if len(self._wanted) < 64 else None
        if self._watch is not None:
            self._watch.want(scope)

    def news(self) -> BankNews | None:
        """See `LiveWatch.news`."""
        if self._watch is None:
            name, namespace = self._where()
            client, source = BankClient(find_bank(name, namespace)), f"live bank server {name}"
            self._watch = LiveWatch(client, name=source, reader=self._reader, scope=self._scope)
            for scope in self._wanted:
                self._watch.want(scope)
        try:
            return self._watch.news()
        except BankError:
            self._watch = None
            raise


class BankKeeper:
    """The bank server that requests teach, as a deployment of one replica, with the output's lease.

    Serve starts it again when it dies; it then restores from the last checkpoint, and the replicas
    bring along what they merged since (`BankClient`).
    """

    def __init__(self, config: BankConfig) -> None:
        self._lease = Lease(config.store)
        self._lease.acquire()
        self._server = BankServer(config, restarted=True)
        self._server.status()
        self._server.start_clock()

    async def call(self, method: str, arguments: Sequence[Any]) -> Any:
        """One call of `BankServer`."""
        return await asyncio.to_thread(getattr(self._server, method), *arguments)

    def __del__(self) -> None:
        # Called by Serve when it shuts a replica down in good order.
        try:
            self._server.finish()
        finally:
            self._lease.release()


class KeptBank(BankCalls):
    """A labeler's way to `BankKeeper`; calls may come twice, as the bank server allows."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            for attempt in stamina.retry_context(
                on=(ray.exceptions.RayActorError, RayServeException),
                attempts=None,
                timeout=_PATIENCE_S,
                wait_initial=0.1,
                wait_max=1.0,
            ):
                with attempt:
                    response = self._handle.call.remote(method, arguments)
                    return response.result(timeout_s=_PATIENCE_S)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Exception):
                raise error.cause from None
            raise
        except (ray.exceptions.RayActorError, RayServeException, TimeoutError) as error:
            raise BankError(
                f"the bank server of this service cannot be reached ({error}); "
                "its own log says why (`serve status`)"
            ) from error
        raise AssertionError("stamina ends with a result or an exception")
