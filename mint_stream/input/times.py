"""Times as people, cameras and tables write them. What could be read in two ways is not read.

Text: ISO 8601 and its relatives, year first, with or without separators, seconds, fractions and a
zone (`2024-05-01T12:30:00.5+02:00`, `20240501T1230Z`, `2024/5/1 9:05`), EXIF's
`2024:05:01 12:30:00`, digits alone (`20240501`, `202405011230`, `20240501123000`, with three or six
more for the fraction). Numbers: those digits, or s, ms, us or ns since 1970.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FROM_S, _UNTIL_S = 631_152_000, 4_102_444_800
"""1990 to 2100. Counted in s, ms, us and ns these ranges are disjoint, and disjoint from dates
written in digits; so that no number has two meanings."""
_YEARS = range(1900, 2100)  # of dates in digits alone, which are any number otherwise
_HUGE = 10**20
_EXACT = 2**53  # from here on a float has no longer all its digits

_DATE = r"(?P<year>\d{4})(?P<s>[-/:._])(?P<month>\d{1,2})(?P=s)(?P<day>\d{1,2})"
_DIGITS_DATE = r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)"
_FRACTION = r"[.,](?P<fraction>\d+)"
_DIGITS_TIME = (
    r"(?P<hour>\d\d)(?P<minute>\d\d)"
    rf"(?:(?P<second>\d\d)(?:{_FRACTION}|(?P<digits>\d{{3}}|\d{{6}}|\d{{9}}))?)?"
)
_TIMES = (
    rf"(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:{_FRACTION})?)?",
    rf"(?P<hour>\d\d)(?P<t>[-._])(?P<minute>\d\d)(?P=t)(?P<second>\d\d)(?:{_FRACTION})?",
    _DIGITS_TIME,
)
_ZONE = r"(?:\s*(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?"
_HOUR = r"(?P<hour>\d\d)(?P<zone>Z|[+-]\d\d:\d\d)?"
_BETWEEN = r"(?:[T_-]|\s+)"


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII | re.IGNORECASE)


_DIGITS_FORM = _form(_DIGITS_DATE)
_BOTH_DIGITS_FORM = _form(_DIGITS_DATE + _DIGITS_TIME + _ZONE)
_FORMS = [
    *(_form(_DATE), _DIGITS_FORM, _BOTH_DIGITS_FORM),
    *(
        _form(day + _BETWEEN + time)
        for day in (_DATE, _DIGITS_DATE)
        for time in (*(time + _ZONE for time in _TIMES), _HOUR)
    ),
]
_NUMBER = _form(r"\d{1,20}(\.\d*)?")


def parse_timestamp(value: Any) -> datetime | None:
    """The time in UTC that `value` means: text, a number, a date or a datetime. None for others.

    A time without zone is in UTC. Fractions are rounded to microseconds.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    try:
        if isinstance(value, str):
            return _from_text(value.strip())
        if isinstance(value, datetime):
            return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
            return _from_number(value)
    except (ValueError, OverflowError):  # a 30th of February, the year 10000
        return None
    return None


def _from_text(text: str) -> datetime | None:
    if _NUMBER.fullmatch(text):
        return _from_number(Decimal(text))
    for form in _FORMS:
        if found := form.fullmatch(text):
            return _from_parts(found)
    return None


def _from_parts(found: re.Match[str]) -> datetime:
    """Raises `ValueError` and `OverflowError` for a time that there is not."""
    parts = found.groupdict()
    year, month, day, hour, minute, second = (
        int(parts.get(name) or 0) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    fraction = Fraction(f"0.{parts.get('fraction') or parts.get('digits') or 0}")
    zone = _zone(parts.get("zone") or "Z")
    moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    return moment.astimezone(UTC) + timedelta(microseconds=round(fraction * 10**6))


def _zone(text: str) -> timezone:
    if text[0] not in "+-":
        return UTC
    hours, minutes = int(text[1:3]), int(text[3:].lstrip(":") or 0)
    if minutes > 59:
        raise ValueError(f"there is no zone {text}")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if text[0] == "-" else offset)


def _from_number(number: float | Decimal) -> datetime | None:
    if not 0 < number < _HUGE:  # no nan, either
        return None
    if not isinstance(number, float) or number < _EXACT:
        text = f"{Decimal(str(number)).normalize():f}"
        for form in (_DIGITS_FORM, _BOTH_DIGITS_FORM):
            if (found := form.fullmatch(text)) and int(text[:4]) in _YEARS:
                return _from_parts(found)
        if len(text) == 10 and _is_date_with_hour(text):
            return None  # 2024050112: noon of that day, or a second of 2034
    for per_second in (1, 10**3, 10**6, 10**9):
        if _FROM_S * per_second <= number < _UNTIL_S * per_second:
            return _EPOCH + timedelta(microseconds=round(Fraction(number) * 10**6 / per_second))
    return None


def _is_date_with_hour(digits: str) -> bool:
    try:
        return datetime.strptime(digits, "%Y%m%d%H").year in _YEARS
    except ValueError:
        return False
