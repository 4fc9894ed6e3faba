"""`run.json`: what an output was started with, as far as its other objects must agree with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mint_stream import schema
from mint_stream.outputs.findings import BRING_BACK, Findings
from mint_stream.schema import SETTINGS
from mint_stream.storage import ObjectMissing, Store

_KINDS: dict[str, type] = {
    "schema_version": int,
    "model_hash": str,
    "classes": list,
    "classes_hash": str,
    "preset": dict,
    "bank_scope": str,
    "seed": int,
    "unit_size": int,
}


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
    def classes(self) -> list[str]:
        """The labels there are."""
        return list(self.values["classes"])

    @property
    def identity(self) -> dict[str, Any]:
        """What checkpoints of this output say they belong to; see `bank_server.bank_config`."""
        values = self.values
        return {
            "model": values["model_hash"],
            "method": values["preset"],
            "scope": values["bank_scope"],
            "seed": values["seed"],
        }


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where `b` differs from the settings `a`: name, value in `a`, value in `b`.

    Nested names are joined by a dot. Names that only `b` has are left out, and values compare as
    they do in JSON.
    """
    a, b = json.loads(json.dumps(a)), json.loads(json.dumps(b))
    found: list[tuple[str, Any, Any]] = []
    for name in sorted(a):
        if isinstance(a[name], dict) and isinstance(b.get(name), dict):
            inner = {**dict.fromkeys(b[name]), **a[name]}
            found += [(f"{name}.{key}", x, y) for key, x, y in differences(inner, b[name])]
        elif a[name] != b.get(name):
            found.append((name, a[name], b.get(name)))
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


def check_settings(store: Store, findings: Findings) -> Settings | None:
    """The settings if they are whole; else None, with a finding."""
    try:
        values = read_settings(store)
    except ValueError as error:
        findings.add(SETTINGS, f"cannot be read ({error})", BRING_BACK)
        return None
    if not values:
        findings.add(SETTINGS, "is missing: nothing says how this output was started", BRING_BACK)
        return None
    lacking = [name for name, kind in _KINDS.items() if not isinstance(values.get(name), kind)]
    if lacking:
        findings.add(SETTINGS, f"lacks {', '.join(lacking)}", BRING_BACK)
        return None
    if values["schema_version"] != schema.SCHEMA_VERSION:
        findings.add(
            SETTINGS,
            f"has schema version {values['schema_version']}, this mint_stream writes "
            f"{schema.SCHEMA_VERSION}",
            "verify with the version that wrote it",
        )
        return None
    return Settings(values)
