"""A shard that kills whoever reads it is given up, and the stream goes on behind it."""

from __future__ import annotations

from pathlib import Path

import pytest
from oracle import Output, check_bank
from places import Place
from stages import deadly_read_units
from tiny import METHOD, members, put, tar, write_assets

from mint_stream.pipeline import dataset
from mint_stream.upkeep.verify.verify import verify

pytestmark = pytest.mark.usefixtures("cluster")


def test_a_shard_whose_readers_die_is_a_reject_and_does_not_block_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(str(tmp_path), write_assets(tmp_path / "assets"))
    names = ("a.tar", "deadly.tar", "z.tar")
    objects = {name: tar(members(range(n * 12, n * 12 + 12))) for n, name in enumerate(names)}
    store = put(place.input, objects)
    monkeypatch.setattr(dataset, "read_units", deadly_read_units)
    summary = place.run(unit_size=2)
    output = Output.read(place.output)
    (reject,) = output.reject_rows
    assert (reject["shard"], reject["frame"]) == (store.uri("deadly.tar"), None)
    assert (reject["stage"], reject["error_type"]) == ("read", "ReaderDied")
    labelled = {row["frame"].removeprefix(f"{store.uri()}/") for row in output.label_rows}
    sound = {f"a.tar#{n:06d}.png" for n in range(12)} | {
        f"z.tar#{n:06d}.png" for n in range(24, 36)
    }
    assert sound <= labelled
    rest = labelled - sound
    assert rest == {f"deadly.tar#{n:06d}.png" for n in range(12, 12 + len(rest))}
    assert len(rest) < 6
    assert summary.rejects == {"read": 1}
    check_bank(output, METHOD)
    assert place.run(unit_size=2).units == 0, "what was given up is not asked again"
    assert verify(place.output).clean
