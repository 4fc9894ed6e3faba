"""The classes that frames are labelled with: names, synonyms, and the sentences CLIP reads.

A text file holds one class a line; blank lines and lines that begin with `#` are left out. JSON and
CSV: `class_table`. YAML (`.yaml`, `.yml`) and JSON may add synonyms and templates:

    templates: ["a photo of a {}.", "a street camera's picture of a {}."]
    classes:
      - car
      - {name: truck, synonyms: [lorry]}
"""

from __future__ import annotations

import codecs
import hashlib
import html
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from mint_stream.clip.class_table import Named, from_csv, from_json, from_text, squeezed
from mint_stream.config import ConfigError
from mint_stream.store.errors import ObjectMissing
from mint_stream.store.store import RetryPolicy, Store, split_url

DEFAULT_TEMPLATES = ("a photo of a {}.",)
_MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class ClassList:
    """At least two classes, in the order of the file. Raises `ConfigError` for what cannot work."""

    names: tuple[str, ...]
    phrases: tuple[tuple[str, ...], ...]
    """For each class its name and synonyms, the name first."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """Sentences in which `{}` stands for a phrase."""

    def __post_init__(self) -> None:
        if len(set(self.names)) < 2:
            raise ConfigError(
                f"the class list has {len(set(self.names))} distinct names ({self.names!r}); "
                "it must have at least 2, or every frame gets the same label"
            )
        if len(self.names) != len(self.phrases):
            raise ConfigError(f"{len(self.names)} names with phrases for {len(self.phrases)}")
        if not self.templates:
            raise ConfigError("templates is empty; it must have at least one sentence with {}")
        for template in self.templates:
            if template.count("{}") != 1 or set("{}") & set(template.replace("{}", "", 1)):
                raise ConfigError(
                    f"template {template!r} must hold exactly one {{}}, where the class name goes, "
                    "and no other braces"
                )

    @property
    def hash(self) -> str:
        """16 hex digits that change with any name, synonym, template or their order."""
        content = json.dumps([self.phrases, self.templates], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @classmethod
    def of(cls, names: Sequence[str], templates: Sequence[str] = DEFAULT_TEMPLATES) -> ClassList:
        """A class list of plain `names`. Raises `ConfigError` as the class does."""
        return cls._named([(f"class {n}", name) for n, name in enumerate(names, 1)], templates)

    @classmethod
    def _named(cls, named: Named, templates: Sequence[str] = DEFAULT_TEMPLATES) -> ClassList:
        _refuse_repetitions(iter(named))
        names = tuple(name for _, name in named)
        return cls(names, tuple((name,) for name in names), tuple(templates))


def load_class_list(url: str, *, retry: RetryPolicy | None = None) -> ClassList:
    """The class list at `url` (a path or any fsspec address).

    Raises `ConfigError`, naming the line or the field, for content that cannot work and for a file
    that is not there; `StorageError` where the store refuses.
    """
    folder, name = split_url(url)
    try:
        with Store(folder, retry=retry).open(name) as file:
            data = file.read(_MOST_BYTES + 1)
    except ObjectMissing as error:
        raise ConfigError(f"labels is {url!r}; there is no such file") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(
            f"labels {url}: it has more than {_MOST_BYTES:,} bytes; a class list is text, with a "
            "line or an entry for each class"
        )
    try:
        text = _decode(data)
        if name.lower().endswith((".yaml", ".yml")):
            return _from_yaml(text)
        return _from_table(text, name.lower().rpartition(".")[2])
    except ConfigError as error:
        raise ConfigError(f"labels {url}: {error}") from error


def _decode(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"line {line} is not UTF-8 text; save the file as UTF-8") from error


def _from_table(text: str, suffix: str) -> ClassList:
    read = {"json": from_json, "csv": from_csv, "tsv": from_csv}.get(suffix, from_text)
    found = read(text)
    return _structured(found) if isinstance(found, dict) else ClassList._named(found)


class _WithoutAliases(yaml.SafeLoader):
    """YAML in which nothing stands for something else: a page of aliases may mean gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "anchor", None) is not None:
            problem = "anchors and aliases are not read: put quotes around a name with & or *"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


def _from_yaml(text: str) -> ClassList:
    try:
        content = yaml.load(text, _WithoutAliases)
    except RecursionError as error:
        raise ConfigError("its brackets are nested too deep for a class list") from error
    except ValueError as error:  # a date that does not exist, a number of thousands of digits
        raise ConfigError(f"a value in it is none ({error}): put quotes around it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise ConfigError(f"{where} is not valid YAML: {problem}") from error
    if isinstance(content, list):
        content = {"classes": content}
    if not isinstance(content, dict):
        raise ConfigError("it must hold `classes:`, a list of names")
    return _structured(content)


def _structured(content: dict[Any, Any]) -> ClassList:
    _refuse_unknown("", content, ("classes", "templates"))
    classes = _list_of(content, "classes", "")
    phrases = [tuple(_phrases(f"classes[{n}]", item)) for n, item in enumerate(classes)]
    _refuse_repetitions(
        (f"classes[{n}]", phrase) for n, names in enumerate(phrases) for phrase in names
    )
    templates = tuple(
        _text(f"templates[{n}]", item)
        for n, item in enumerate(_list_of(content, "templates", "", DEFAULT_TEMPLATES))
    )
    return ClassList(tuple(names[0] for names in phrases), tuple(phrases), templates)


def _phrases(field: str, item: Any) -> Iterator[str]:
    if not isinstance(item, dict):
        yield _text(field, item)
        return
    _refuse_unknown(f"{field}.", item, ("name", "synonyms"))
    if "name" not in item:
        raise ConfigError(f"{field} is {item!r}; it must have a `name`")
    yield _text(f"{field}.name", item["name"])
    for n, synonym in enumerate(_list_of(item, "synonyms", f"{field}.", ())):
        yield _text(f"{field}.synonyms[{n}]", synonym)


def _list_of(content: dict[Any, Any], key: str, where: str, default: Any = None) -> Sequence[Any]:
    found = content.get(key, default)
    if not isinstance(found, list | tuple):
        raise ConfigError(f"{where}{key} is {found!r}; it must be a list")
    return found


def _text(field: str, item: Any) -> str:
    if not isinstance(item, str) or not item.strip():
        raise ConfigError(
            f"{field} is {item!r}; it must be text (put quotes around words such as no, on or 1)"
        )
    return squeezed(item)


def _refuse_unknown(where: str, content: dict[Any, Any], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise ConfigError(f"{where}{key} is not known; the keys are {', '.join(known)}")


def as_read(phrase: str) -> str:
    """What is left of a phrase for the model: no case, no underscores, single spaces."""
    text = html.unescape(html.unescape(unicodedata.normalize("NFKC", phrase)))
    return squeezed(text.translate(_QUOTES).replace("_", " ").lower())


_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")


def _refuse_repetitions(places: Iterator[tuple[str, str]]) -> None:
    """Raise where two places hold the same phrase: which class would it stand for?"""
    first: dict[str, tuple[str, str | None]] = {}
    for place, phrase in places:
        there, other = first.get(as_read(phrase), ("", None))
        if other == phrase:
            raise ConfigError(f"{place} repeats {phrase!r}, which is at {there} already")
        if other is not None:
            raise ConfigError(
                f"{place} is {phrase!r}, which is the same to the model as {other!r} at {there} "
                "(case, underscores and spaces make no difference): keep one of them"
            )
        first[as_read(phrase)] = (place, phrase)
