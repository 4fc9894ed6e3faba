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


def written_commands(text: str) -> list[str]:
    """Commands in a page or manifest that label, evaluate or serve what a person names."""
    text = re.sub(r"\s*\\?\n(?: +(?=\S)|(?=--))", " ", text)
    found = re.findall(
        r"(?:label_stream\.py|evaluate\.py|mint-stream (?:label|evaluate)|build_app)[ \w].*", text
    )
    return [line for line in found if re.search(r"--input|--labels|labels=|bank=", line)]


def test_every_written_command_names_its_model() -> None:
    pages = [ROOT / "README.md", *DOCS, *(ROOT / "infra").rglob("*.yaml")]
    commands = [line for page in pages for line in written_commands(page.read_text())]
    assert len(commands) > 12
    for line in commands:
        assert re.search(r"(--)?model[ =]\S", line), f"no model in: {line}"


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
