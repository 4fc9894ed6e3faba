"""The documents name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mint_stream import schema

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("kind", ["LABELS", "REJECTS", "BANK", "BANK_LOG"])
def test_formats_describe_every_field(kind: str) -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    for field in getattr(schema, kind):
        description = field.metadata[b"description"].decode()
        assert f"| `{field.name}` |" in text
        assert description in text, f"{kind}.{field.name} is described in other words"


def test_the_readme_stays_short_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 200
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / link).exists(), f"README links to {link}"


def test_files_that_the_readme_names_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`(\w+\.py)`", text):
        assert (ROOT / "mint_stream" / name).exists(), f"README names {name}"
