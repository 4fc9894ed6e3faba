"""Whether the nodes of a cluster share the local folders of a run.

A path says nothing of the disk below it: on another node the same one may be another folder, and
labels that are written there are lost to the run without any error. So a file with a random name is
put into the output by the driver; every node has to see it there, and to put down one of its own
that the driver sees. Of the input every node that reads has to see the first and the last shard, as
large as the driver does.

This is how things are when labelling begins. A node that joins later is asked when it commits for
the first time (`require_shared`). What is not found out: a folder that is unmounted from a node in
mid run and leaves an empty one behind, until that node's next commit; an input of which a node has
its own copy that agrees in those two shards; a network file system that caches names for so long
that what is shared looks as if it were not.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from mint_stream.config import ConfigError
from mint_stream.input.shard import Shard
from mint_stream.store.errors import StorageError
from mint_stream.store.store import PREFLIGHT, Store

log = logging.getLogger(__name__)

ANSWER_S = 60.0
"""How long nodes have to answer: the first task of a node may have to install packages."""
_JOB_COPY = "/runtime_resources/working_dir_files/"
_REMEDY = (
    "mount one folder at this path on all nodes, or give the address of an object store (s3://...)"
)


@contextmanager
def shared_folders(output: Store, shards: Sequence[Shard]) -> Iterator[str | None]:
    """Check the folders of a run; gives the name for `require_shared`, None where none is needed.

    Raises `ConfigError` for a folder that is not shared, and for an output that only one process
    can see or that ends with the job.
    """
    if output.uri().startswith("memory://"):
        raise ConfigError(
            f"output {output.url!r} is the memory of each process of the run by itself: choose a "
            "folder or an object store"
        )
    if _JOB_COPY in output.uri():
        raise ConfigError(
            f"output {output.url!r} lies in the copy of the working directory that Ray made for "
            "this job and deletes with it: give the folder's full path, or an object store (s3://...)"
        )
    nodes = [node for node in ray.nodes() if node["Alive"]]
    ends = [shard for shard in (*shards[:1], *shards[-1:]) if _is_local(shard.root)]
    local = _is_local(output.uri())
    if len(nodes) > 1 and (local or ends):
        token = _put_token(output) if local else None
    elif local and os.environ.get("RAY_ADDRESS"):
        # Other nodes may join.
        token, nodes = _put_token(output), []
    else:
        yield None
        return
    try:
        _ask(nodes, output, token, ends)
        yield token
    finally:
        if token is not None:
            output.delete(token)


def require_shared(output: Store, token: str) -> None:
    """Raise `ConfigError` unless the run's driver and this node share the folder `output`."""
    if not output.exists(token):
        raise ConfigError(
            f"output {output.uri()} is not the same folder on {_here()} as on the node where the "
            f"run began, and labels would be scattered over their disks: {_REMEDY}"
        )


def _ask(nodes: list[dict[str, Any]], output: Store, token: str | None, ends: list[Shard]) -> None:
    """Ask all nodes at once, without a CPU of theirs."""
    # Nobody reads where there are no CPUs.
    asked = {
        ray.remote(num_cpus=0, max_retries=0)(_look)
        .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(output.url, token, ends if node["Resources"].get("CPU") else []): node
        for node in nodes
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    if silent:
        names = ", ".join(sorted(_name(asked[ref]) for ref in silent))
        log.warning("no answer from %s: whether it shares the run's folders is not known", names)
    apart, blind = set[str](), set[str]()
    for ref in answered:
        try:
            own, unseen = ray.get(ref)
        except ray.exceptions.RayError as error:
            # A node that went away has nothing to share.
            log.debug("%s was not asked: %r", _name(asked[ref]), error)
            continue
        if token is not None and (own is None or not output.exists(own)):
            apart.add(_name(asked[ref]))
        if own is not None:
            output.delete(own)
        blind |= {f"{_name(asked[ref])} ({shard})" for shard in unseen}
    if apart:
        raise ConfigError(
            f"output {output.uri()} is not the same folder on {', '.join(sorted(apart))} as here, "
            f"and labels would be scattered over the nodes' disks: {_REMEDY}"
        )
    if blind:
        raise ConfigError(
            f"the input is a folder that not every node sees as it is here: {min(blind)}"
            f"{'' if len(blind) == 1 else f' and {len(blind) - 1} more'}; {_REMEDY}"
        )


def _look(output_url: str, token: str | None, ends: list[Shard]) -> tuple[str | None, list[str]]:
    """On a node: a file of its own beside the driver's, None where there is no such; and which of
    the shards `ends` it does not see, and how."""
    unseen = [found for shard in ends if (found := _unseen(shard)) is not None]
    if token is None:
        return None, unseen
    output = Store(output_url, retry=PREFLIGHT)
    try:
        return (_put_token(output) if output.exists(token) else None), unseen
    except StorageError as error:
        log.warning("this node cannot write to the output: %s", error)
        return None, unseen


def _unseen(shard: Shard) -> str | None:
    member = shard.members[0]
    try:
        found = Store(shard.root, retry=PREFLIGHT).stat(member.name)
    except StorageError as error:
        return str(error)
    if found is None:
        return f"{shard.uri} is not there"
    if found.size != member.size_bytes:
        return f"{shard.uri} has {found.size:,} bytes there and {member.size_bytes:,} here"
    return None


def _put_token(output: Store) -> str:
    # A name that `verify` knows, should it be left behind.
    name = f".mint-stream-probe-{secrets.token_hex(8)}"
    output.write(name, b"")
    return name


def _is_local(uri: str) -> bool:
    return "://" not in Store(uri).uri()


def _here() -> str:
    return str(ray.util.get_node_ip_address())


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
