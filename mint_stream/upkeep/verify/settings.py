"""Whether `run.json` is whole."""

from __future__ import annotations

from mint_stream.output import schema
from mint_stream.output.schema import SETTINGS
from mint_stream.output.settings import Settings, read_settings
from mint_stream.store.store import Store
from mint_stream.upkeep.verify.findings import BRING_BACK, Findings

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
