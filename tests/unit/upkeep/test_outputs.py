"""What `inspect` and `diff` say of outputs whose content is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from label_tables import labels_table
from label_tables import put as put_table
from plain_run import run_plainly
from tiny import Assets, members, put, put_tars, tar, write_assets

from mint_stream.cli.outputs import main
from mint_stream.output.read import read_labels
from mint_stream.store.store import Store
from mint_stream.upkeep.compare import compare
from mint_stream.upkeep.contents import describe
from mint_stream.upkeep.removal import remove_units

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    return write_assets(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, assets: Assets) -> Path:
    """A folder with `in` (12 good frames, 1 bad) and `out`."""
    root = tmp_path_factory.mktemp("outputs")
    put_tars(str(root / "in"), shards=2, frames=6, cameras=("north", "south"))
    put(str(root / "in"), {"bad.tar": tar([("x.png", b"no image")])})
    run_plainly(assets.config(str(root / "in"), str(root / "out")))
    return root


def test_inspect_counts_what_is_there(run: Path) -> None:
    contents = describe(str(run / "out"))
    labels = read_labels(str(run / "out")).to_pylist()
    assert (contents.units, contents.shards, contents.labelled, contents.rejected) == (5, 3, 12, 1)
    assert sum(count.frames for count in contents.labels) == 12
    for count in contents.labels:
        mine = [r for r in labels if (r["label"], r["camera"]) == (count.label, count.camera)]
        assert count.frames == len(mine)
    assert {count.camera for count in contents.labels} == {"north", "south"}
    assert contents.changed == sum(row["label"] != row["source_label"] for row in labels)
    assert 0 < contents.changed_share < 1
    assert contents.adapted == 12
    assert [(r.stage, r.error_type, r.frames) for r in contents.rejects] == [
        ("decode", "ImageError", 1)
    ]
    (newest,) = contents.checkpoints
    assert (newest.seq, newest.scopes) == (4, ("shared",))
    assert newest.name.endswith(newest.sha256[:12])
    assert contents.settings["preset"]["name"] == "tiny"


def test_inspect_is_read_by_people_and_by_programs(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = str(run / "out")
    assert main(["inspect", output]) == 0
    text = capsys.readouterr().out
    assert "12 labelled, 1 rejected, in 5 units of 3 shards" in text
    assert output in text, "an address is not folded"
    for word in ("north", "south", "ImageError", "tiny"):
        assert word in text
    assert main(["inspect", output, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["labelled"], values["checkpoints"][0]["seq"]) == (12, 4)


@pytest.fixture
def with_others(tmp_path: Path, assets: Assets) -> Path:
    """A folder with `in` (4 frames in a tar among members and files of other kinds) and `out`."""
    others = [("a.cls", b"7"), ("b.cls", b"7"), ("b.txt", b"seven")]
    data = tar([*members(range(2)), *others]) + tar(members(range(2, 4)))
    put(str(tmp_path / "in"), {"s.tar": data, "1.zip": b"x", "d/2.zip": b"x", "x.arrow": b"x"})
    run_plainly(assets.config(str(tmp_path / "in"), str(tmp_path / "out")))
    return tmp_path


FILES = "2 .zip (such as 1.zip), 1 .arrow (x.arrow)"
MEMBERS = "2 .cls (such as a.cls), 1 .txt (b.txt)"


def test_what_is_not_read_is_told_by_inspect_and_verify(
    with_others: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed, output = str(with_others / "in"), str(with_others / "out")
    for _ in ("before", "after"):
        contents = describe(output)
        assert (contents.labelled, contents.left_out) == (4, FILES)
        assert contents.left_out_members == MEMBERS
        assert main(["inspect", output]) == 0
        text = capsys.readouterr().out
        assert FILES in text
        assert MEMBERS in text
        assert main(["verify", output, "--input", feed]) == 0
        text = capsys.readouterr().out
        assert FILES in text
        assert MEMBERS in text
        assert "3 files that are not read, 3 members of tars that are not read" in text
        remove_units(output)


def test_what_is_read_again_is_no_longer_told(with_others: Path, assets: Assets) -> None:
    feed, output = str(with_others / "in"), str(with_others / "out")
    for name in ("1.zip", "d/2.zip", "x.arrow"):
        Store(feed).delete(name)
    run_plainly(assets.config(feed, output))
    assert describe(output).left_out == ""
    assert describe(output).left_out_members == MEMBERS


def test_the_same_run_twice_differs_in_nothing(run: Path, assets: Assets, tmp_path: Path) -> None:
    again = str(tmp_path / "again")
    run_plainly(assets.config(str(run / "in"), again), checkpoint_every=1)
    diff = compare(str(run / "out"), again)
    assert diff.same
    assert diff.both == 12
    assert main(["diff", str(run / "out"), again]) == 0


def test_another_seed_differs(
    run: Path, assets: Assets, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(tmp_path / "other")
    run_plainly(assets.config(str(run / "in"), other, seed=1, limit=9))
    diff = compare(str(run / "out"), other)
    assert [name for name, _, _ in diff.settings] == ["seed"]
    assert not diff.bank.same
    assert diff.bank.entries == {"shared": 24}
    assert diff.confidence > 0
    assert diff.source_labels == 0, "the frozen model does not know the seed"
    assert len(diff.only_a) == 12 + 1 - 9
    assert diff.only_b == ()
    assert main(["diff", str(run / "out"), other, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["same"] is False


def test_differences_are_counted_by_label_and_camera(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    put_table(a, "labels/a-00000000.parquet", labels_table(["car", "car", "bus", "dog"]))
    changed = labels_table(["car", "bus", "bus", "bus"], ["car", "car", "bus", "dog"])
    put_table(b, "labels/a-00000000.parquet", changed)
    diff = compare(a, b)
    assert (diff.both, diff.labels, diff.source_labels) == (4, 2, 0)
    assert sorted(diff.by_label) == [("car", "bus", 1), ("dog", "bus", 1)]
    assert diff.by_camera == (("cam-a", 2),)
    assert {(e.a, e.b) for e in diff.examples} == {("car", "bus"), ("dog", "bus")}
    confidences = [e.confidence_a for e in diff.examples]
    assert confidences == sorted(confidences, reverse=True)
    assert main(["diff", a, b]) == 1
    assert "they differ" in capsys.readouterr().out


def test_a_bank_that_was_damaged_is_another(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "out", tmp_path / "copy")
    store = Store(str(tmp_path / "copy"))
    (name,) = [i.name for i in store.list("bank/checkpoints/") if i.name.endswith(".json")]
    store.delete(name)
    diff = compare(str(run / "out"), store.url)
    assert (diff.bank.same, diff.bank.seq_b, diff.same) == (False, None, False)


def test_frames_are_exported_and_answers_imported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "review.csv"
    export = ["export", str(run / "out"), "--format", "csv", "--to", str(file)]
    assert main([*export, "--limit", "3", "--first", "disagreement"]) == 0
    assert "3 frames in" in capsys.readouterr().out
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1] + "bus", *lines[2:]]))
    to = ["--to", str(tmp_path / "truth.parquet"), "--output", str(run / "out")]
    assert main(["import-review", str(file), *to]) == 0
    assert "1 answers in" in capsys.readouterr().out
    assert main([*export, "--limit", "3", "--first", "random"]) == 0
    assert "no fair sample" not in capsys.readouterr().out
    assert main([*export, "--limit", "3", "--all"]) == 0
    assert f"{len(read_labels(str(run / 'out')))} frames in" in capsys.readouterr().out


def test_calibrate_says_how_many_answers_it_needs_before_anything_is_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["calibrate", str(run / "out"), "--to", str(tmp_path / "c.json")]
    for more in ([], ["--input", str(run / "in")]):
        assert main([*arguments, *more]) == 2
        said = capsys.readouterr().err
        assert "the truth of at least 100 frames must be known" in said
        assert "--first random --limit 150" in said, "30 of each of the 5 classes"
    with pytest.raises(SystemExit):
        main(["calibrate", "--help"])
    assert "100 frames" in capsys.readouterr().out


def test_images_come_out_of_the_shards(run: Path, tmp_path: Path) -> None:
    arguments = ["export", str(run / "out"), "--to", str(tmp_path / "fo"), "--format", "fiftyone"]
    assert main([*arguments, "--input", str(run / "in")]) == 0
    pictures = {path.read_bytes() for path in (tmp_path / "fo" / "data").iterdir()}
    assert pictures == {data for _, data in members(range(12))}


def test_it_is_called_as_a_module_and_as_a_script(run: Path) -> None:
    """The script is not named inspect.py: Python would take it for its own module `inspect`."""
    for command in (["-m", "mint_stream"], ["pipelines/inspect_output.py"]):
        done = subprocess.run(
            [sys.executable, *command, "verify", str(run / "out"), "--input", str(run / "in")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("clean: looked at ")


def test_looking_loads_no_torch_and_no_ray() -> None:
    names = ("contents", "compare", "export", "review_import", "tables", "verify.verify")
    modules = ["mint_stream.cli.outputs", *(f"mint_stream.upkeep.{name}" for name in names)]
    imports = "; ".join(f"import {module}" for module in modules)
    code = f"{imports}; import sys; print({{'torch', 'ray', 'open_clip'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_is_no_output_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 2
    assert "there is no output" in capsys.readouterr().err
    put(str(tmp_path / "x"), {"run.json": b"{"})
    assert main(["inspect", str(tmp_path / "x")]) == 2
    assert main(["verify", str(tmp_path / "x")]) == 1


def test_a_report_without_truth_tells_cameras_days_and_rejects(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    assert main(["report", str(run / "out"), "--input", str(run / "in"), "--to", str(page)]) == 0
    assert "12 frames in" in capsys.readouterr().out
    html = page.read_text()
    labels = read_labels(str(run / "out")).to_pylist()
    assert "By camera and day" in html
    for camera in ("north", "south"):
        frames = sum(row["camera"] == camera for row in labels)
        day = {f"{row['timestamp']:%Y-%m-%d}" for row in labels if row["camera"] == camera}
        for name in day:
            assert f"<td>{name}</td><td>{camera}</td>" in html
        assert frames
    assert "What was rejected" in html
    assert "<td>decode</td><td>ImageError</td><td>1</td>" in html
    assert "data:image" in html, "sample frames are shown"
    assert "Accuracy by segment" not in html


def test_a_report_of_an_output_without_labels_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(str(tmp_path), {"run.json": b"{}"})
    assert main(["report", str(tmp_path)]) == 2
    assert "at least one label" in capsys.readouterr().err
