"""The documents name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from metrics_scrape import watched

from mint_stream.output import schema

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("kind", ["LABELS", "REJECTS", "BANK", "BANK_LOG"])
def test_formats_describe_every_field(kind: str) -> None:
    text = (ROOT / "docs" / "formats.md").read_text()
    for field in getattr(schema, kind):
        description = field.metadata[b"description"].decode()
        assert f"| `{field.name}` |" in text
        assert description in text, f"{kind}.{field.name} is described in other words"


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < 200


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{p.name}" for p in DOCS)])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert ((ROOT / page).parent / link).exists(), f"{page} links to {link}"


def test_the_metrics_that_are_explained_are_those_that_are_watched() -> None:
    explained = set(re.findall(r"`(mint_\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    shown = {name.removeprefix("ray_").removesuffix("_bucket") for name in watched()}
    assert explained == shown


def test_files_that_the_readme_names_are_there() -> None:
    text = (ROOT / "README.md").read_text()
    there = {path.name for path in (ROOT / "mint_stream").rglob("*.py")}
    for name in re.findall(r"`(\w+\.py)`", text):
        assert name in there, f"README names {name}"
    for name in re.findall(r"`((?:mint_stream|pipelines)/[\w/]+\.py)`", text):
        assert (ROOT / name).exists(), f"README names {name}"
