"""Presets by name, and with single settings changed: `paper+steps=1+learning_rate=0.001`."""

from __future__ import annotations

import dataclasses
from typing import Any

import yaml

from mint_stream.config import ConfigError, MethodConfig, preset, require


def variant(name: str) -> MethodConfig:
    """The preset that `name` begins with, changed as it says; `name` becomes its name.

    Raises `ConfigError` for a preset or a setting that does not exist, or a value that cannot be.
    """
    base, *changes = name.split("+")
    method = preset(base)
    fields = {field.name for field in dataclasses.fields(method)} - {"name"}
    values: dict[str, Any] = {}
    for change in changes:
        field, equals, text = change.partition("=")
        require(bool(equals), "presets", name, "PRESET or PRESET+SETTING=VALUE+...")
        require(field in fields, "presets", name, f"made of the settings {', '.join(fields)}")
        values[field] = _value(field, text, getattr(method, field))
    return dataclasses.replace(method, name=name, **values)


def _value(field: str, text: str, now: object) -> object:
    """`text` as a value of the kind that the setting has `now`."""
    value = yaml.safe_load(text)
    if isinstance(now, float) and isinstance(value, int | float | str):
        try:
            return float(value)  # YAML takes 1e-3 for text
        except ValueError as error:
            raise ConfigError(f"{field} is {text!r}; it must be a number") from error
    require(
        now is None or type(value) is type(now), field, text, f"of the kind of {now!r}, as it is"
    )
    return value
