"""Where a service finds the live bank of a run: the name that the run leaves in its output."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import pytest
from rich.console import Console

from mint_stream.bank.ledger import BankError
from mint_stream.bank.live import LIVE, announce, find_live, withdraw
from mint_stream.pipeline.progress import LoggedProgress, RunProgress
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep.listing import Listing


def test_the_newest_run_s_bank_is_found_and_none_after_it_ended(root: str) -> None:
    store = Store(root)
    with pytest.raises(BankError, match="no run labels into"):
        find_live(store)
    announce(store, "bank-1", "mint_stream")
    announce(store, "bank-2", "mint_stream")
    assert find_live(store) == ("bank-2", "mint_stream")
    # The first one ends late, and does not take away what the second wrote.
    withdraw(store, "bank-1")
    assert find_live(store) == ("bank-2", "mint_stream")
    withdraw(store, "bank-2")
    with pytest.raises(BankError, match=LIVE):
        find_live(store)
    withdraw(store, "bank-2")
    assert Listing.read(store).foreign == []


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"{}", b"null", b'"bank"', b"\xff"])
def test_a_damaged_name_is_told_and_ends_no_run(tmp_path: Path, damaged: bytes) -> None:
    store = Store(str(tmp_path))
    store.write(LIVE, damaged)
    with pytest.raises(BankError, match=r"live\.json is damaged .* the next run writes it anew"):
        find_live(store)
    withdraw(store, "bank-1")
    announce(store, "bank-1", "mint_stream")
    assert find_live(store) == ("bank-1", "mint_stream")


def test_the_name_belongs_to_what_an_output_holds(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    announce(store, "bank-1", "mint_stream")
    assert Listing.read(store).foreign == []
    assert Listing.read(store).single == {LIVE}


def test_a_run_goes_on_where_the_name_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(str(tmp_path))

    def refuse(name: str, data: bytes) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(store, "write", refuse)
    announce(store, "bank-1", "mint_stream")
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize("quiet", [False, True])
def test_the_name_is_printed(quiet: bool, caplog: pytest.LogCaptureFixture) -> None:
    out = io.StringIO()
    RunProgress(Console(file=out), quiet=quiet).bank("bank-1a2b3c4d")
    with caplog.at_level(logging.INFO):
        LoggedProgress(quiet=quiet).bank("bank-1a2b3c4d")
    assert ("bank-1a2b3c4d" in out.getvalue()) is not quiet
    assert [record.__dict__["bank_actor"] for record in caplog.records] == ["bank-1a2b3c4d"][quiet:]
