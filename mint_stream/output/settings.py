"""`run.json`: what an output was started with, as far as its other objects must agree with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mint_stream.config import ConfigError, MethodConfig
from mint_stream.output.schema import SETTINGS
from mint_stream.store.errors import ObjectMissing, StorageError
from mint_stream.store.store import Store


@dataclass(frozen=True)
class Settings:
    """The settings of an output; see `preflight`."""

    values: dict[str, Any] = field(default_factory=dict)

    @property
    def unit_size(self) -> int:
        """Frames in a unit."""
        return int(self.values["unit_size"])

    @property
    def preset(self) -> dict[str, Any]:
        """The method's hyper-parameters by name."""
        return dict(self.values["preset"])

    @property
    def method(self) -> MethodConfig:
        """The same, checked."""
        return MethodConfig.from_dict(self.values["preset"])

    @property
    def classes(self) -> list[str]:
        """The labels there are."""
        return list(self.values["classes"])

    @property
    def identity(self) -> dict[str, Any]:
        """What checkpoints of this output say they belong to; see `bank.server.bank_config`."""
        values = self.values
        return {
            "model": values["model_hash"],
            "method": values["preset"],
            "scope": values["bank_scope"],
            "seed": values["seed"],
        }


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where the settings `a` and `b` differ: name, value in `a`, value in `b`.

    Nested names are joined by a dot. A name that one of them lacks counts as None there, and
    values compare as they do in JSON: tuples are lists, and 1 is 1.0.
    """
    a, b = json.loads(json.dumps(dict(a))), json.loads(json.dumps(dict(b)))
    found: list[tuple[str, Any, Any]] = []
    for name in sorted({*a, *b}):
        one, other = a.get(name), b.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [(f"{name}.{key}", x, y) for key, x, y in differences(one, other)]
        elif one != other:
            found.append((name, one, other))
    return found


def read_settings(store: Store) -> dict[str, Any]:
    """`run.json` as it is; empty where there is none. Raises `ValueError` if it is damaged."""
    try:
        values = json.loads(store.read(SETTINGS))
    except ObjectMissing:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"it holds a {type(values).__name__}, not an object")
    return values


_MAY_DIFFER = {"unit_size", "model", "weights", "classes"}
"""Unit size is the output's own; names may differ where the hashes beside them agree."""


def pin(store: Store, settings: dict[str, Any]) -> dict[str, Any]:
    """The output's settings: `settings` if it is new, else those it was started with."""
    data = json.dumps(settings, indent=1, sort_keys=True).encode()
    try:
        pinned: dict[str, Any] = json.loads(store.read(SETTINGS))
    except ObjectMissing:
        _check_writable(store)
        if store.create(SETTINGS, data):
            return settings
        pinned = json.loads(store.read(SETTINGS))
    except ValueError:
        raise ConfigError(
            f"{store.uri(SETTINGS)} is damaged; it says how this output was started: restore it, "
            "or choose another --output"
        ) from None
    found = [
        _shown(*difference, pinned, settings)
        for difference in differences(pinned, settings)
        if difference[0] not in _MAY_DIFFER
    ]
    if found:
        raise ConfigError(
            f"output {store.url!r} was started with other settings: {'; '.join(found)}. "
            "Use the same, or choose another --output"
        )
    _check_writable(store)
    return pinned


def _shown(name: str, old: Any, new: Any, pinned: dict[str, Any], asked: dict[str, Any]) -> str:
    """A difference, for a person: what the hashes stand for."""
    if name == "model_hash":
        return f"model was {_model(pinned)}, now {_model(asked)}"
    if name != "classes_hash":
        return f"{name} was {old!r}, now {new!r}"
    old_names, new_names = pinned.get("classes", []), asked["classes"]
    gone = [c for c in old_names if c not in new_names]
    come = [c for c in new_names if c not in old_names]
    text = f"without {', '.join(gone)}" if gone else ""
    text += (" and " if gone and come else "") + (f"with {', '.join(come)}" if come else "")
    return f"class list now {text or 'in another order, or with other phrases'}"


def _model(settings: dict[str, Any]) -> str:
    return f"{settings.get('model')} ({settings.get('weights') or 'own weights'})"


def _check_writable(store: Store) -> None:
    try:
        store.check_writable()
    except StorageError as error:
        raise StorageError(f"output {store.url!r} cannot be written: {error}") from error
