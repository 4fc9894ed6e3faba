"""The text of a review file, however an office program saved it again."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator

from mint_stream.config import ConfigError

_NOT_TEXT = {
    b"PK\x03\x04": "a spreadsheet (.xlsx, .ods) or another zip file",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls)",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "compressed",
    b"%PDF": "a PDF",
}
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SEPARATORS = ",;\t|"
_DECLARED = re.compile(r"\s*\"?sep=(.)\"?[^\S\n]*\n", re.IGNORECASE)
_AS_CSV = 'save it as "CSV UTF-8"'


def decoded(data: bytes, file: str) -> str:
    """The text: UTF-8, UTF-16, or Windows-1252 where it is neither. Raises `ConfigError`."""
    for start, what in _NOT_TEXT.items():
        if data.startswith(start):
            raise ConfigError(f"{file} is {what}, not text: {_AS_CSV}")
    encodings = [encoding for mark, encoding in _MARKS.items() if data.startswith(mark)]
    if not encodings and b"\0" in data[:4]:  # "f" of the header, and the other half of it
        encodings = ["utf-16-be" if data[:1] == b"\0" else "utf-16-le"]
    for encoding in encodings or ["utf-8", "cp1252"]:
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise ConfigError(f"{file} is not text in UTF-8, UTF-16 or Windows-1252: {_AS_CSV}")


def table_rows(text: str, file: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV as their line and the cells by column; separated by , ; | or tabs.

    Raises `ConfigError` for what is none, or has no column `frame`.
    """
    declared = _DECLARED.match(text)
    text = text[declared.end() :] if declared else text.lstrip("\r\n")
    separators = [declared[1]] if declared else list(_SEPARATORS)
    headers = [_header(text, separator) for separator in separators]
    fitting = [n for n, header in enumerate(headers) if "frame" in header]
    if not fitting:
        columns = ", ".join(max((len(header), header) for header in headers)[1])
        raise ConfigError(f"{file} has the columns {columns:.200}; it must have frame, and truth")
    header, separator = headers[fitting[0]], separators[fitting[0]]
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        next(rows)
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield rows.line_num + bool(declared), dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise ConfigError(f"{file}, line {rows.line_num}: it is no CSV ({error})") from error


def _header(text: str, separator: str) -> list[str]:
    try:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]
