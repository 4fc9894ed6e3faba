"""Log lines that say which run, unit and camera they are about, as text or as JSON.

    with about(unit="..."):
        log.warning("...")    # {"message": "...", "run": "...", "unit": "...", ...}

The JSON has the keys of Ray's own (`ray.LoggingConfig(encoding="JSON")`), which formats the lines
of the labelers and, once Ray has started, of the driver. `json_until_ray` covers the time before.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_ABOUT: ContextVar[Mapping[str, str]] = ContextVar("about", default=MappingProxyType({}))
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


@contextmanager
def about(**facts: str | None) -> Iterator[None]:
    """Lines logged within this block (and thread) carry `facts`; None leaves one out."""
    known = {name: fact for name, fact in facts.items() if fact is not None}
    token = _ABOUT.set({**_ABOUT.get(), **known})
    try:
        yield
    finally:
        _ABOUT.reset(token)


def set_run(run: str) -> None:
    """Every line that this process logs from now on carries `run`. To be called once handlers are
    there: Ray's are, in its workers and after `ray.init`."""
    _ADD.run = run
    _quiet()
    for handler in logging.getLogger().handlers:
        handler.addFilter(_ADD)


def _quiet() -> None:
    """Not where a client finds its credentials, in every process; retries `storage` logs itself."""
    for name in ("botocore", "aiobotocore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("stamina").propagate = False


_SAID: set[tuple[str, str]] = set()


def warn_once(logger: logging.Logger, what: str, message: str, *values: object) -> None:
    """Warn, unless this process has warned of `what` by this logger before."""
    if (logger.name, what) not in _SAID:
        _SAID.add((logger.name, what))
        logger.warning(message, *values)


class _AddFacts(logging.Filter):
    run: str | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        for name, fact in {"run": self.run, **_ABOUT.get()}.items():
            if fact is not None and not hasattr(record, name):
                setattr(record, name, fact)
        return True


_ADD = _AddFacts()


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with what was given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line = {
            "asctime": self.formatTime(record),
            "levelname": record.levelname,
            "message": record.getMessage(),
            "filename": record.filename,
            "lineno": record.lineno,
            "process": record.process,
        }
        if record.exc_info:
            line["exc_text"] = self.formatException(record.exc_info)
        line.update(
            (name, fact)
            for name, fact in record.__dict__.items()
            if name not in _STANDARD and not name.startswith("_")
        )
        return json.dumps(line, default=str)


def json_until_ray() -> None:
    """Log JSON to standard error, until `ray_formats`."""
    _quiet()
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)


def ray_formats() -> None:
    """Ray has brought a handler of its own: every line would be there twice."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler.formatter, JsonFormatter):
            root.removeHandler(handler)
