"""mint_stream: label a drifting stream of images with a CLIP that adapts to it.

The names below are loaded when they are first used: importing the package loads neither torch
nor ray.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mint_stream.config import (
        PRESETS,
        ConfigError,
        MethodConfig,
        ModelConfig,
        RunConfig,
        preset,
    )
    from mint_stream.method.adapter import MintAdapter
    from mint_stream.method.prediction import Prediction
    from mint_stream.output.accuracy import accuracy_by, with_truth
    from mint_stream.output.read import read_labels, read_rejects
    from mint_stream.pipeline.summary import RunSummary

__all__ = [
    "PRESETS",
    "ConfigError",
    "MethodConfig",
    "MintAdapter",
    "ModelConfig",
    "Prediction",
    "RunConfig",
    "RunSummary",
    "accuracy_by",
    "preset",
    "read_labels",
    "read_rejects",
    "with_truth",
]

_HOMES = {
    "method.adapter": ("MintAdapter",),
    "config": ("PRESETS", "ConfigError", "MethodConfig", "ModelConfig", "RunConfig", "preset"),
    "method.prediction": ("Prediction",),
    "output.accuracy": ("accuracy_by", "with_truth"),
    "output.read": ("read_labels", "read_rejects"),
    "pipeline.summary": ("RunSummary",),
}
_HOME = {name: f"mint_stream.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module 'mint_stream' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    try:
        return version("mint_stream")
    except PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"
