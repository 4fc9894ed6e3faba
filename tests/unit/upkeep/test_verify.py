"""`verify` finds nothing wrong with what a run writes, and names every damage that is planted."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bank_work import ENTRIES, PROMPT_ROWS, work
from bank_world import World
from hypothesis import given
from hypothesis import strategies as st
from plain_run import run_plainly
from tiny import METHOD, Assets, members, png, put, put_tars, tar, write_assets

from mint_stream.bank import checkpoint
from mint_stream.bank.checkpoint import Checkpoint
from mint_stream.bank.client import BankClient
from mint_stream.bank.files import LogName, read_delta
from mint_stream.bank.log import committed_log
from mint_stream.bank.server import BankServer, bank_config
from mint_stream.cli.outputs import main
from mint_stream.config import PRESETS
from mint_stream.input.grid import unit_id
from mint_stream.input.units import Rejected, Unit
from mint_stream.labeler.labeler import MintLabeler
from mint_stream.method.bank_state import merge_all
from mint_stream.output import schema
from mint_stream.output.commit import commit_unit
from mint_stream.output.settings import Settings, read_settings
from mint_stream.pipeline.parts import labeler_config
from mint_stream.pipeline.preflight import prepare
from mint_stream.store.errors import StorageError
from mint_stream.store.store import Store
from mint_stream.upkeep.listing import Listing
from mint_stream.upkeep.verify.bank import banks_in, check_bank
from mint_stream.upkeep.verify.findings import Findings
from mint_stream.upkeep.verify.rows import Rows
from mint_stream.upkeep.verify.verify import verify


@dataclass(frozen=True)
class Made:
    """An input, and what a run made of it."""

    input: str
    output: str
    assets: Assets
    objects: dict[str, bytes]

    def copy(self, root: str) -> Store:
        """The output once more, at `root`."""
        return put(root, self.objects)


def objects_of(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {info.name: store.read(info.name) for info in store.list()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two tars of 10 frames and one with bad images; 5 checkpoints, so that log was removed."""
    root = tmp_path_factory.mktemp("verified")
    assets = write_assets(root / "assets")
    feed, output = str(root / "in"), str(root / "out")
    put_tars(feed, shards=2, frames=10, cameras=("north", "south"))
    bad = tar([("x.png", b"no image"), *members(range(20, 23)), ("z.png", b"GIF89a")])
    put(feed, {"bad.tar": bad})
    assert run_plainly(assets.config(feed, output), checkpoint_every=2) == 8
    return Made(feed, output, assets, objects_of(output))


def test_what_a_run_wrote_is_clean_on_every_store(made: Made, root: str) -> None:
    made.copy(root)
    verdict = verify(root, input_url=made.input)
    assert verdict.findings == ()
    assert verdict.notes == ()
    counts = {"units": 8, "labels": 23, "rejects": 2, "log objects": 3, "checkpoints": 3}
    assert verdict.checked.items() >= {**counts, "input frames": 25}.items()


@pytest.mark.parametrize(
    "changes",
    [
        {"method": PRESETS["frozen"]},
        {"method": PRESETS["realtime"]},
        {"method": PRESETS["realtime"], "bank_scope": "camera"},
        {"method": replace(METHOD, name="text", algorithm="tpt")},
        {"method": replace(METHOD, name="votes", algorithm="zero", steps=0)},
        {"bank_scope": "camera"},
        {"limit": 6},
        {"unit_size": 1},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_other_settings_are_clean(made: Made, tmp_path: Path, changes: dict[str, Any]) -> None:
    output = str(tmp_path / "out")
    config = made.assets.config(made.input, output, **changes)
    run_plainly(config)
    assert verify(output).findings == ()
    missing = verify(output, input_url=made.input).findings
    if "limit" not in changes:
        assert missing == ()
        return
    assert [f.object.rpartition("/")[2] for f in missing] == ["000.tar", "001.tar", "bad.tar"]
    assert "4 of its 10 frames" in missing[0].what
    run_plainly(replace(config, limit=None))
    assert verify(output, input_url=made.input).findings == ()


def test_fields_that_came_later_may_be_missing(made: Made, tmp_path: Path) -> None:
    store = made.copy(str(tmp_path))
    older = read_table(store, labels(store)).drop_columns(sorted(schema.LATER))
    write_table(store, labels(store), older)
    assert verify(str(tmp_path)).findings == ()


def test_a_prefix_that_has_grown_and_a_replaced_shard_are_clean(made: Made, tmp_path: Path) -> None:
    feed, output = str(tmp_path / "in"), str(tmp_path / "out")
    put_tars(feed, shards=1, frames=6)
    put(feed, {f"{n}.png": png(n) for n in range(0, 6, 2)})
    config = made.assets.config(feed, output)
    run_plainly(config)
    put(feed, {f"{n}.png": png(n) for n in range(1, 6, 2)})
    put_tars(feed, shards=1, frames=6, first=1)
    run_plainly(config)
    assert verify(output, input_url=feed).findings == ()
    put(feed, {"001.tar": tar(members(range(6, 15)))})
    run_plainly(config)
    verdict = verify(output, input_url=feed)
    assert verdict.findings == ()
    assert "001.tar was replaced" in verdict.notes[0]


def test_what_a_killed_attempt_leaves_behind_is_a_note(made: Made, tmp_path: Path) -> None:
    store = made.copy(str(tmp_path))
    log = newest_log(store)
    name = LogName.parse(log)
    store.write(str(replace(name, seq=name.seq + 7)), store.read(log))
    stem = checkpoints(store)[-1].name
    store.write(f"{stem[:-12]}{'0' * 12}.parquet", b"cut o")
    store.write(".mint-stream-probe-0123456789abcdef", b"first")
    verdict = verify(store.url)
    assert verdict.findings == ()
    assert len(verdict.notes) == 3


def test_a_bank_that_requests_taught_is_not_replayed(made: Made, tmp_path: Path) -> None:
    store = made.copy(str(tmp_path))
    model = read_settings(store)["model_hash"]
    server = BankServer(
        bank_config(METHOD, store=store, width=32, model_hash=model, scope="shared", seed=0)
    )
    client = BankClient(server)
    client.begin("replica-0000000001")
    update = {"shared": work(client.state("shared"), "a request")}
    receipt = client.merge("replica-0000000001", update)
    server.committed("replica-0000000001", receipt.log_name)
    server.finish()
    verdict = verify(store.url, input_url=made.input)
    assert verdict.findings == ()
    (note,) = verdict.notes
    assert "requests of a service taught this bank" in note


class PlayedSettings(Settings):
    """Of the played world, whose bank belongs to no run."""

    @property
    def identity(self) -> dict[str, Any]:
        return {}


def findings_about_the_bank(world: World) -> list[str]:
    listing = Listing.read(world.store)
    # Nobody retrieves in this world: how often is not to be compared.
    rows = Rows(guarded=True)
    rows.log_names = {unit: committed_log(world.store, unit, None) or "" for unit in listing.labels}
    settings = PlayedSettings(
        {"preset": {"bank_size": ENTRIES, "prompt_rows": PROMPT_ROWS}, "seed": 7}
    )
    findings = Findings()
    check_bank(listing, settings, rows, findings)
    return [str(finding) for finding in findings.found]


@given(st.lists(st.integers(0, 2**16), max_size=50), st.integers(1, 4), st.booleans())
def test_crashes_of_labelers_and_bank_servers_leave_nothing_to_find(
    fate: list[int], labelers: int, reckless: bool
) -> None:
    units = [f"{'0' * 20}-{n:08d}" for n in range(12)]
    world = World(units, labelers, in_order=labelers == 1)
    for number in fate:
        actions = world.actions(reckless=reckless and labelers > 1)
        actions[number % len(actions)]()
        if number % 5 == 0:
            assert findings_about_the_bank(world) == []
    world.run_to_the_end()
    assert findings_about_the_bank(world) == []


def test_two_runs_at_once_leave_a_whole_output(made: Made, tmp_path: Path) -> None:
    """As where a lease lies: each has a bank server of its own."""
    config = made.assets.config(made.input, str(tmp_path / "out"))
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda _: run_plainly(config, checkpoint_every=1), range(2)):
            pass
    put_tars(str(tmp_path / "more"), shards=1, frames=6, first=5)
    more = Store(str(tmp_path / "more"))
    grown = put(str(tmp_path / "in"), {**objects_of(made.input), **objects_of(more.url)})
    run_plainly(made.assets.config(grown.url, config.output))
    assert verify(config.output).findings == ()


Damage = Callable[[Store], tuple[str, str]]
"""Does it, and gives the object and the words by which it must be found."""


def units(store: Store) -> list[str]:
    names = [info.name for info in store.list("labels/")]
    return [name.removeprefix("labels/").removesuffix(".parquet") for name in names]


def first_unit(store: Store) -> str:
    """Of a shard that has more than one."""
    shards = [unit.rpartition("-")[0] for unit in units(store)]
    return next(u for u in units(store) if shards.count(u.rpartition("-")[0]) == 3)


def labels(store: Store) -> str:
    return f"labels/{first_unit(store)}.parquet"


def newest_log(store: Store) -> str:
    return store.list("bank/log/")[-1].name


def checkpoints(store: Store) -> list[Checkpoint]:
    """The newest first."""
    return checkpoint.find(store).sound


def read_table(store: Store, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.read(name)))


def write_table(store: Store, name: str, table: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.write(name, sink.getvalue())


def replace_column(table: pa.Table, name: str, values: list[Any]) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(name), pa.array(values, table[name].type))


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def missing_labels(store: Store) -> tuple[str, str]:
    name = labels(store)
    store.delete(name)
    return name, "is missing: shards/"


def missing_labels_that_the_bank_holds(store: Store) -> tuple[str, str]:
    name = f"labels/{LogName.parse(newest_log(store)).unit}.parquet"
    store.delete(name)
    return name, "and the bank checkpoint"


def doubled_unit(store: Store) -> tuple[str, str]:
    unit = first_unit(store)
    copy = f"labels/{'f' * 20}-{unit.rpartition('-')[2]}.parquet"
    store.write(copy, store.read(labels(store)))
    return copy, "4 of its frames stand in labels/"


def doubled_row(store: Store) -> tuple[str, str]:
    table = read_table(store, labels(store))
    write_table(store, labels(store), pa.concat_tables([table.slice(0, 3), table.slice(0, 1)]))
    return labels(store), "stand twice in it"


def lost_row(store: Store) -> tuple[str, str]:
    write_table(store, labels(store), read_table(store, labels(store)).slice(1))
    return labels(store), "says that its unit has 4 frames; there are 3 labels"


def truncated_labels(store: Store) -> tuple[str, str]:
    store.write(labels(store), store.read(labels(store))[:-100])
    return labels(store), "cannot be read as Parquet"


def flipped_byte_in_labels(store: Store) -> tuple[str, str]:
    data = store.read(labels(store))
    column = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0)
    end = column.dictionary_page_offset + column.total_compressed_size
    store.write(labels(store), flip(data, end - 2))
    return labels(store), "cannot be read as Parquet"


def column_lost(store: Store) -> tuple[str, str]:
    write_table(store, labels(store), read_table(store, labels(store)).drop_columns(["guard"]))
    return labels(store), "guard missing or of another kind"


def confidence_beyond_one(store: Store) -> tuple[str, str]:
    table = read_table(store, labels(store))
    write_table(store, labels(store), replace_column(table, "confidence", [0.5, 0.5, 0.5, 7.0]))
    return labels(store), "confidence is not in [0, 1]"


def unknown_label(store: Store) -> tuple[str, str]:
    table = read_table(store, labels(store))
    write_table(store, labels(store), replace_column(table, "label", ["zeppelin"] * 4))
    return labels(store), "no class of run.json: zeppelin"


def labels_of_another_model(store: Store) -> tuple[str, str]:
    table = read_table(store, labels(store))
    write_table(store, labels(store), replace_column(table, "model", ["0" * 16] * 4))
    return labels(store), "model is 0000000000000000 where run.json says"


def log_of_another_unit(store: Store) -> tuple[str, str]:
    table = read_table(store, labels(store))
    facts = {**table.schema.metadata, b"mint.bank_log": newest_log(store).encode()}
    write_table(store, labels(store), table.replace_schema_metadata(facts))
    return labels(store), "is not a log object of its unit"


def lost_rejects(store: Store) -> tuple[str, str]:
    name = store.list("rejects/")[0].name
    store.delete(name)
    return name.replace("rejects/", "labels/"), "and 0 rejects"


def rejects_without_labels(store: Store) -> tuple[str, str]:
    name = f"rejects/{'f' * 20}-00000000.parquet"
    store.write(name, store.read(store.list("rejects/")[0].name))
    return name, "has no labels object"


def missing_log(store: Store) -> tuple[str, str]:
    name = newest_log(store)
    store.delete(name)
    return name, "is missing, and labels/"


def flipped_byte_in_log(store: Store) -> tuple[str, str]:
    name = newest_log(store)
    store.write(name, flip(store.read(name), 900))
    return name, "is damaged"


def flipped_byte_in_checkpoint(store: Store) -> tuple[str, str]:
    name = f"{checkpoints(store)[0].name}.parquet"
    data = store.read(name)
    store.write(name, flip(data, len(data) // 2))
    return name, "does not match the hash"


def changed_hash(store: Store) -> tuple[str, str]:
    newest = checkpoints(store)[0]
    changed = replace(newest, parquet_sha256="0" * 64)
    store.write(f"{newest.name}.json", changed.to_json())
    return f"{newest.name}.parquet", "does not match the hash that was written with it"


def changed_json(store: Store) -> tuple[str, str]:
    name = f"{checkpoints(store)[0].name}.json"
    store.write(name, store.read(name).replace(b'"seq": ', b'"seq": 1'))
    return name, "does not match its hash"


def checkpoint_without_its_bank(store: Store) -> tuple[str, str]:
    name = f"{checkpoints(store)[0].name}.parquet"
    store.delete(name)
    return name, "is missing beside its JSON"


def resave(store: Store, change: Callable[[Any, Any], Any]) -> str:
    """Write the newest checkpoint again, changed and with sound hashes; gives its name."""
    settings = Settings(read_settings(store))
    newest = checkpoints(store)[0]
    update = read_delta(store.read(newest_log(store)))
    banks = banks_in(store.read(f"{newest.name}.parquet"), settings)
    for suffix in (".json", ".parquet"):
        store.delete(newest.name + suffix)
    return checkpoint.save(
        store,
        change(banks, update),
        covered=newest.covered,
        number=newest.number,
        identity={k: v for k, v in newest.identity.items() if k != "start"},
    ).name


def doubled_update(store: Store) -> tuple[str, str]:
    name = resave(store, lambda banks, update: merge_all(banks, update, banks.seq))
    return f"{name}.parquet", "an update is in it twice"


def moved_bank(store: Store) -> tuple[str, str]:
    def nudge(banks: Any, _: Any) -> Any:
        state = banks.state("shared")
        keys_KD = state.keys_KD.copy()
        keys_KD[3, 2] = np.nextafter(keys_KD[3, 2], np.float32(9))
        moved = replace(state, keys_KD=keys_KD)
        return replace(banks, states={"shared": moved})

    return f"{resave(store, nudge)}.parquet", "1 entries of shared differ"


def foreign_file(store: Store) -> tuple[str, str]:
    store.write("labels/notes.txt", b"mine")
    return "labels/notes.txt", "is not an object that a run writes"


def marker_without_labels(store: Store) -> tuple[str, str]:
    name = f"partial/{'a' * 20}-00000004"
    store.write(name, b"")
    return name, "marks a unit that has no labels"


def end_of_a_shard_without_labels(store: Store) -> tuple[str, str]:
    name = f"shards/{'a' * 20}-00000009"
    store.write(name, b"")
    return name, "marks the end of a shard that has no labels"


def lost_marker(store: Store) -> tuple[str, str]:
    shard = first_unit(store).rpartition("-")[0]
    store.delete(f"shards/{shard}-00000010")
    return f"labels/{shard}-00000008.parquet", "has 2 frames of the 4 that follow frame 8"


def second_end_of_a_shard(store: Store) -> tuple[str, str]:
    shard = first_unit(store).rpartition("-")[0]
    store.write(f"shards/{shard}-00000012", b"")
    return f"shards/{shard}-00000012", "another marker says 10"


def settings_gone(store: Store) -> tuple[str, str]:
    store.delete("run.json")
    return "run.json", "is missing"


def settings_cut(store: Store) -> tuple[str, str]:
    store.write("run.json", store.read("run.json")[:50])
    return "run.json", "cannot be read"


def change_settings(store: Store, **changes: Any) -> None:
    store.write("run.json", json.dumps({**read_settings(store), **changes}).encode())


def wrong_seed(store: Store) -> tuple[str, str]:
    change_settings(store, seed=5)
    return f"{checkpoints(store)[0].name}.json", "belongs to another run than run.json says: seed"


def wrong_classes(store: Store) -> tuple[str, str]:
    change_settings(store, classes_hash="f" * 16)
    return labels(store), "where run.json says ffffffffffffffff"


DAMAGES: list[Damage] = [
    missing_labels,
    missing_labels_that_the_bank_holds,
    doubled_unit,
    doubled_row,
    lost_row,
    truncated_labels,
    flipped_byte_in_labels,
    column_lost,
    confidence_beyond_one,
    unknown_label,
    labels_of_another_model,
    log_of_another_unit,
    lost_rejects,
    rejects_without_labels,
    missing_log,
    flipped_byte_in_log,
    flipped_byte_in_checkpoint,
    changed_hash,
    changed_json,
    checkpoint_without_its_bank,
    doubled_update,
    moved_bank,
    foreign_file,
    marker_without_labels,
    end_of_a_shard_without_labels,
    lost_marker,
    second_end_of_a_shard,
    settings_gone,
    settings_cut,
    wrong_seed,
    wrong_classes,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damage_is_found_and_named(
    damage: Damage, made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = made.copy(str(tmp_path / "out"))
    name, words = damage(store)
    assert main(["verify", store.url]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("found")]
    mine = [line for line in lines if f" {name}: " in line and words in line]
    assert mine, "\n".join(lines)
    assert all("; " in line for line in lines), "each says what to do"


def test_damages_are_found_on_s3(made: Made, s3: str) -> None:
    store = made.copy(s3)
    planted = [damage(store) for damage in (foreign_file, flipped_byte_in_log, missing_labels)]
    found = [str(finding) for finding in verify(s3, input_url=made.input).findings]
    for name, words in planted:
        assert any(line.startswith(f"{name}: ") and words in line for line in found), found


def test_the_input_is_held_against_the_labels(made: Made, tmp_path: Path) -> None:
    grown = put(str(tmp_path / "in"), objects_of(made.input))
    put_tars(grown.url, shards=1, frames=3, first=7)
    grown.delete("001.tar")
    # The same names below another root are other frames.
    verdict = verify(made.output, input_url=grown.url)
    assert {f.object for f in verdict.findings} >= {grown.uri("007.tar"), grown.uri("000.tar")}
    assert any("are not in the input" in f.what for f in verdict.findings)


def test_an_output_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path / "none")]) == 2


def test_a_reject_of_what_was_only_missing_is_found_and_the_remedy_works(tmp_path: Path) -> None:
    """As versions wrote it that took a shard that was missing for one that is damaged."""
    assets = write_assets(tmp_path / "assets")
    feed, output = str(tmp_path / "in"), str(tmp_path / "out")
    ids = put_tars(feed, shards=2, frames=6)
    config = assets.config(feed, output, method=PRESETS["frozen"])
    prepared = prepare(config)
    shard = prepared.shards[1]
    missing = Rejected(
        frame=None,
        member=None,
        stage="read",
        error_type="ObjectMissing",
        message="there is no such object",
        size_bytes=1,
    )
    unit = Unit(
        unit=unit_id(shard.id, 0),
        shard_id=shard.id,
        shard=shard.uri,
        frames=(),
        rejects=(missing,),
        shard_frames=1,
    )
    labeler = MintLabeler(labeler_config(config, prepared, 0), None)
    commit_unit(labeler(unit), prepared.store, None)
    assert run_plainly(config) == 2
    found = [f for f in verify(output).findings if "was only out of reach" in f.what]
    assert [finding.object for finding in found] == [f"rejects/{unit.unit}.parquet"]
    named = found[0].remedy.partition("delete ")[2].partition(", and run")[0]
    for name in named.split(", "):
        assert prepared.store.exists(name)
        prepared.store.delete(name)
    assert run_plainly(config) == 2
    verdict = verify(output, input_url=feed)
    assert verdict.clean, verdict.findings
    assert verdict.checked["labels"] == len(ids)


def test_an_input_that_cannot_be_read_is_a_finding_and_its_frames_are_not_surplus(
    made: Made, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.copy(root)
    opened = Store.open

    def refuses(self: Store, name: str, **options: Any) -> Any:
        if name == "000.tar":
            raise StorageError(f"cannot read {name}: Permission denied; check who may read there")
        return opened(self, name, **options)

    monkeypatch.setattr(Store, "open", refuses)
    (finding,) = verify(root, input_url=made.input).findings
    assert finding.object.endswith("000.tar")
    assert "could not be compared: cannot read 000.tar: Permission denied" in finding.what
    assert "run the same command again, then verify again" in finding.remedy
