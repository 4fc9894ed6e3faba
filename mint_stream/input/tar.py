"""Frames from a tar in WebDataset form, plain or compressed, read once from front to back.

An image and its sidecar belong together: `<name>.json`, where the name is the image's own, or that
up to its last dot, or up to the first dot of its last part (WebDataset's key). The sidecar stands
beside its images (all of one key), before or after them, or anywhere before them; one that comes
later is too late for a stream and not used.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import replace

from mint_stream.input.frames import (
    Facts,
    Frame,
    Reject,
    ShardError,
    path_facts,
    sidecar_stems,
)
from mint_stream.input.left_out import LeftOut
from mint_stream.input.tar_members import Image, Sidecar, members
from mint_stream.store.errors import StorageError

log = logging.getLogger(__name__)

_MAX_WAITING = 64  # images of one key that are held back until their sidecar may have come
_MAX_WAITING_BYTES = 64 * 2**20
_MAX_EARLY_SIDECARS = 10_000


def read_tar(
    file: io.BufferedReader,
    size_bytes: int,
    uri: str,
    *,
    data_from: int | None,
    left_out: LeftOut | None = None,
) -> Iterator[Frame | Reject]:
    """Everything in the tar `file`; frames from index `data_from` on come with their bytes.

    (`data_from` None: none does.) `left_out` counts members of kinds that are not read. Raises
    `ShardError` where the tar is damaged, after what comes before the damage.
    """
    group, key, damage = _Group(uri), None, None
    found = members(file, size_bytes, uri, data_from, left_out=left_out)
    while True:
        try:
            member = next(found, None)
        except StorageError:
            raise
        except Exception as error:
            # tarfile meets bytes from anywhere, and fails on some in ways that are not listed.
            member, damage = None, error
        if member is None or member.key != key or group.has(member):
            yield from group.complete()
            group.close()
        if damage is not None:
            raise _as_shard_error(damage) from damage
        if member is None:
            return
        key = member.key
        group.add(member)
        if group.is_full():
            yield from group.complete(but_for=1)


def count_tar(file: io.BufferedReader, size_bytes: int, uri: str) -> int:
    """Number of items that `read_tar` yields, one more where it then finds damage."""
    count = 0
    try:
        for _ in members(file, size_bytes, uri, None, sidecars=False):
            count += 1
    except StorageError:
        raise
    except Exception as error:
        log.debug("%s: %s", uri, _as_shard_error(error))
        count += 1
    return count


class _Group:
    """Images and sidecars of one key that stand side by side, and sidecars from before them."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._images: list[Image] = []
        self._sidecars: dict[str, Facts] = {}
        self._used: set[str] = set()
        self._names: set[str] = set()
        self._early: dict[str, Facts] = {}

    def has(self, member: Image | Sidecar) -> bool:
        """Whether a member of that name is in it: then another group begins."""
        return _name(member) in self._names

    def add(self, member: Image | Sidecar) -> None:
        """Another member."""
        self._names.add(_name(member))
        if isinstance(member, Image):
            self._images.append(member)
        else:
            self._sidecars[member.stem] = member.facts
            self._bound()

    def is_full(self) -> bool:
        """Whether there is more than waits for the rest of the group."""
        items = (image.item for image in self._images)
        held = sum(len(item.data) for item in items if isinstance(item, Frame))
        return len(self._images) >= _MAX_WAITING or held > _MAX_WAITING_BYTES

    def complete(self, but_for: int = 0) -> Iterator[Frame | Reject]:
        """The images with what the sidecars say of them, and none of them waits any more.

        but_for: the last ones wait on, for a sidecar that may come behind them.
        """
        ready = len(self._images) - but_for
        for image in self._images[:ready]:
            facts = Facts()
            for stem in sidecar_stems(image.name):
                if stem in self._sidecars:
                    self._used.add(stem)
                    facts = facts.or_else(self._sidecars[stem])
                elif stem in self._early:
                    facts = facts.or_else(self._early[stem])
            if isinstance(image.item, Frame):
                facts = facts.or_else(path_facts(f"{self._uri}/{image.item.member}"))
                yield replace(image.item, facts=facts)
            else:
                yield image.item
        del self._images[:ready]
        self._bound()

    def close(self) -> None:
        """The group is over: sidecars without an image wait for one, the others do not."""
        for stem, facts in self._sidecars.items():
            if stem not in self._used and facts != Facts():
                self._early[stem] = facts
        self._sidecars, self._used, self._names = {}, set(), set()
        self._bound()

    def _bound(self) -> None:
        """Forget the oldest of what nobody may ever ask for."""
        for held in (self._early, self._sidecars):
            while len(held) > _MAX_EARLY_SIDECARS:
                held.pop(next(iter(held)))
        if len(self._names) > 2 * _MAX_EARLY_SIDECARS:
            self._names = {_name(image) for image in self._images}


def _name(member: Image | Sidecar) -> str:
    return member.name if isinstance(member, Image) else f"{member.stem}.json"


def _as_shard_error(error: Exception) -> ShardError:
    if isinstance(error, ShardError):
        return error
    return ShardError(f"the tar cannot be read: {error or type(error).__name__}")
