"""The file of a calibration: JSON that people can read, and a hash of what it changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mint_stream.config import ConfigError
from mint_stream.labeler.abstention import Calibration
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import PREFLIGHT, Store, split_url

FORMAT = 1


def write_calibration(calibration: Calibration, facts: Mapping[str, Any], to: str) -> None:
    """Write it as JSON, with `facts` about how it was fitted beside it. Raises `StorageError`."""
    values = {"format": FORMAT, **dataclasses.asdict(calibration), "fitted": dict(facts)}
    folder, name = split_url(to)
    Store(folder or ".").write(name, json.dumps(values, indent=1, ensure_ascii=False).encode())


def read_calibration(url: str) -> tuple[Calibration, str]:
    """The calibration in a file, and 16 hex digits that change with it.

    Raises `ConfigError` for a file that is none, `StorageError` as the store does.
    """
    folder, name = split_url(url)
    try:
        values = json.loads(Store(folder or ".", retry=PREFLIGHT).read(name))
    except ObjectMissing as error:
        raise ConfigError(f"calibration is {url!r}: no such file") from error
    except ValueError as error:
        raise ConfigError(f"calibration {url} is not JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ConfigError(
            f"{url} is no calibration of format {FORMAT}: make one with `mint-stream calibrate`"
        )
    names = [field.name for field in dataclasses.fields(Calibration)]
    try:
        calibration = Calibration(**{name: values[name] for name in names})
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"calibration {url} lacks a sound {error}") from error
    # How it was fitted changes no answer.
    content = json.dumps({name: values[name] for name in names}, sort_keys=True)
    return calibration, hashlib.sha256(content.encode()).hexdigest()[:16]
