"""`/docs`: the service's OpenAPI description as one page, with nothing loaded from anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

DESCRIPTION_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the page: no script, no request."""

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 52rem; padding: 2rem 1.25rem;
  font: 16px/1.5 system-ui, sans-serif; }
code, pre { font: 0.85rem/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: 0.75rem; border: 1px solid #8886; border-radius: 8px; }
h2 { margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1.25rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0; }
""".strip()


def describe(openapi: Mapping[str, Any]) -> str:
    """The page for an OpenAPI 3.1 description: each address with parameters, bodies, answers."""
    about = openapi["info"]
    parts = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{_text(about["title"])}</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head><body>',
        f"<h1>{_text(about['title'])} {_text(about['version'])}</h1>",
        f"<p>{_text(about.get('description', ''))}</p>",
        '<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            parts += [f"<h2><code>{method.upper()} {_text(path)}</code></h2>"]
            parts += _operation(operation)
    parts.append("<h2>Bodies</h2>")
    for name, schema in sorted(openapi["components"]["schemas"].items()):
        parts += _schema(name, schema)
    return "\n".join([*parts, "</body></html>"])


def _operation(operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<p>{_text(operation.get('description', ''))}</p>"
    if operation.get("security"):
        yield "<p>Asks for <code>Authorization: Bearer &lt;token&gt;</code> where one is set.</p>"
    if parameters := operation.get("parameters"):
        yield _table(
            ("parameter", "what it is"),
            [(_code(one["name"]), _text(one.get("description", ""))) for one in parameters],
        )
    if body := operation.get("requestBody"):
        yield f"<p>Takes {', '.join(map(_code, body['content']))}.</p>"
    rows = [
        (_code(status), f"{_text(answer['description'])} {_kinds(answer)}")
        for status, answer in operation["responses"].items()
    ]
    yield _table(("status", "answer"), rows)


def _kinds(answer: Mapping[str, Any]) -> str:
    """The bodies of an answer, as links, and the kinds of problems."""
    found = []
    for content in answer.get("content", {}).values():
        schema = content.get("schema", {})
        for part in schema.get("anyOf", [schema]):
            if name := part.get("$ref", "").rpartition("/")[2]:
                found.append(f'<a href="#{_text(name)}">{_text(name)}</a>')
        found += map(_code, content.get("examples", {}))
    return ", ".join(found)


def _schema(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    yield f'<h3 id="{_text(name)}">{_text(name)}</h3><p>{_text(schema.get("description", ""))}</p>'
    fields = schema.get("properties", {}).items()
    yield _table(
        ("field", "what it is"),
        [(_code(field), _text(one.get("description", ""))) for field, one in fields],
    )
    for example in schema.get("examples", []):
        yield f"<pre>{_text(json.dumps(example, indent=2, ensure_ascii=False))}</pre>"


def _table(head: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [f"<tr><td>{first}</td><td>{second}</td></tr>" for first, second in rows]
    return f"<table><tr><th>{head[0]}</th><th>{head[1]}</th></tr>{''.join(lines)}</table>"


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"


def _text(text: str) -> str:
    return escape(str(text))
