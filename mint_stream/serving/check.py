"""A Serve configuration file, checked before it is deployed: `python -m mint_stream.serving.check`.

Ray's own schema lets unknown keys pass, so that `max_queue_requests` would be a limit that nobody
enforces. Here each key must be one that Serve knows, and the arguments of the application are
checked as `build_app` checks them.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from mint_stream.config import ConfigError
from mint_stream.serving.settings import read_settings

IMPORT_PATH = "mint_stream.serving:build_app"

_ALSO: dict[tuple[str, str], type[BaseModel]] = {
    ("DeploymentSchema", "autoscaling_config"): AutoscalingConfig,
}
"""Fields that Serve declares as free dictionaries and reads as these."""


def check_config(path: str | Path) -> ServeDeploySchema:
    """The configuration in the file at `path`.

    Raises `ConfigError`, naming each key that is unknown or has a value that cannot be.
    """
    try:
        content = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} is no Serve configuration: it holds {type(content).__name__}")
    unknown = [*_unknown(content, ServeDeploySchema, "")]
    if unknown:
        raise ConfigError(f"{path}: " + "; ".join(unknown))
    try:
        schema: ServeDeploySchema = ServeDeploySchema.model_validate(content)
    except ValidationError as error:
        said = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{path}: " + "; ".join(said)) from None
    for application in schema.applications:
        if application.import_path == IMPORT_PATH:
            read_settings(application.args)
    return schema


def _unknown(content: Any, model: type[BaseModel], where: str) -> Iterator[str]:
    """One sentence for each key in `content` that `model` does not have."""
    if not isinstance(content, dict):
        return
    known = {name for name in model.model_fields} | {
        field.alias for field in model.model_fields.values() if field.alias
    }
    for key, value in content.items():
        if key not in known:
            yield f"{where}{key} is not known to Serve; there are {', '.join(sorted(known))}"
            continue
        nested = _ALSO.get((model.__name__, key)) or _model_in(model.model_fields[key].annotation)
        if nested is None:
            continue
        items = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, item in items:
            place = f"{where}{key}." if index is None else f"{where}{key}[{index}]."
            yield from _unknown(item, nested, place)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds: itself, optional, or in a list."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((model for model in found if model is not None), None)


_USAGE = """usage: mint-stream serve-check FILE ...

Checks Serve configuration files before they are deployed: every key has to be one that Serve
knows, and the application's arguments have to fit. Exit code 0, or 2 with a line for each fault.

Example: mint-stream serve-check infra/serve.yaml
"""


def main(arguments: Sequence[str]) -> int:
    """Check each file named; 0 if all are sound, 2 if not."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(_USAGE)
        return 0 if arguments else 2
    status = 0
    for path in arguments:
        try:
            check_config(path)
        except ConfigError as error:
            sys.stderr.write(f"error: {error}\n")
            status = 2
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
