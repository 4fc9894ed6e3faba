"""Class lists of tools and data sets: read as what they mean, or refused with the line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from mint_stream.clip.class_list import ClassList, as_read, load_class_list
from mint_stream.clip.name_length import check_name_length
from mint_stream.config import ConfigError, ModelConfig

NAMES = ("car", "fire engine", "bus")


def load(folder: Path, name: str, content: str) -> ClassList:
    path = folder / name
    path.write_text(content, encoding="utf-8", newline="")
    return load_class_list(str(path))


@pytest.mark.parametrize(
    "value",
    [
        ["car", "fire engine", "bus"],
        {"0": "car", "1": "fire engine", "2": "bus"},
        {"2": "bus", "10": "truck", "0": "car", "1": "fire engine"},
        {"n01": "car", "n02": "fire  engine", "n03": "bus"},
        {"0": ["n02958343", "car"], "1": ["n03345487", "fire engine"], "2": ["n02924116", "bus"]},
        {"car": 0, "bus": 2, "fire engine": 1},
        {"classes": ["car", {"name": "fire engine"}, "bus"]},
        {"names": ["car", "fire engine", "bus"], "nc": 3},
        {"architectures": ["ViT"], "id2label": {"0": "car", "1": "fire engine", "2": "bus"}},
        {"categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)], "images": []},
        [{"id": n, "name": name, "supercategory": ""} for n, name in enumerate(NAMES)],
    ],
    ids=lambda value: json.dumps(value)[:40],
)
@pytest.mark.parametrize("suffix", ["json", "txt"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_is_read_as_what_it_means(
    tmp_path: Path, value: object, suffix: str, indent: int | None
) -> None:
    names = load(tmp_path, f"labels.{suffix}", json.dumps(value, indent=indent)).names
    assert tuple(name for name in names if name != "truck") == NAMES


def test_json_may_hold_synonyms_and_templates_as_yaml_does(tmp_path: Path) -> None:
    value = {"classes": ["car", {"name": "truck", "synonyms": ["lorry"]}], "templates": ["a {}"]}
    classes = load(tmp_path, "labels.json", json.dumps(value))
    assert classes.phrases == (("car",), ("truck", "lorry"))
    assert classes.templates == ("a {}",)


@pytest.mark.parametrize(
    "content",
    [
        "id,name\n0,car\n1,fire engine\n2,bus\n",
        "Name;ID\r\ncar;0\r\nfire engine;1\r\nbus;2\r\n",
        "0,car\n1,fire engine\n2,bus",
        "n02958343,car\nn03345487,fire engine\nn02924116,bus\n",
        "/m/0k4j,car\n/m/0kcd,fire engine\n/m/01bjv,bus\n",
        "0\tcar\n1\tfire engine\n2\tbus\n",
        '"car"\n"fire engine"\n"bus"\n',
        '"car",\n"fire engine",\n"bus"\n',
        "'car',\n'fire engine',\n'bus',\n",
        "car,\nfire engine,\nbus,\n",
        '"id","display_name","note"\n"0","car","a, b"\n"1","fire engine",""\n"2","bus",""\n',
        "n02958343 car\nn03345487 fire engine\nn02924116 bus\n",
        "n02958343 1 car\nn03345487 2 fire engine\nn02924116 3 bus\n",
        "\n# id, name\n0, car\n1, fire engine\n\n2, bus\n",
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_tables_are_read_as_what_they_mean(tmp_path: Path, content: str, suffix: str) -> None:
    assert load(tmp_path, f"labels.{suffix}", content).names == NAMES


@pytest.mark.parametrize(
    "content", ["name\ncar\nfire engine\nbus\n", "sep=;\nid;name\n0;car\n1;fire engine\n2;bus\n"]
)
def test_of_a_csv_the_header_is_no_name(tmp_path: Path, content: str) -> None:
    assert load(tmp_path, "labels.csv", content).names == NAMES


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '["car", "bus"', "line 1 is not valid JSON"),
        ("a.txt", '["car",\n"bus",\n]', "is not valid JSON"),
        ("a.json", '"car"', 'it holds "car", not a list'),
        ("a.json", '["car", 3]', "classes[1] is 3; it must be text"),
        ("a.json", '{"0": "car", "1": 3}', "'1' is 3; it must be a name"),
        ("a.json", '{"0": "car", "0": "bus"}', "it holds '0' twice"),
        ("a.json", '{"0": "car", "1": "car"}', "'1' repeats 'car', which is at '0' already"),
        ("a.json", "[" * 100_000, "nested too deeply"),
        ("a.txt", '{"name": "car"}\n{"name": "bus"}', "line 2 is not valid JSON"),
        ("a.csv", "car,red\nbus,blue\n", "line 1 has 2 cells (car, red), and no header says"),
        ("a.csv", "id,name\n0,car\n1,\n", "line 3 has no name in column 2"),
        ("a.csv", "id,name\n0,car\n1,bus, red\n", "line 3 has more cells than the header"),
        ("a.csv", 'name\ncar\n"bus\n', "is no CSV"),
        ("a.csv", "name\ncar\ncar\n", "line 3 repeats 'car', which is at line 2"),
        ("a.txt", "0 car\n1 bus\n", "line 1 is '0 car', like all others a number that counts"),
        ("a.txt", "1. car\n2. bus\n", "line 1 is '1. car', like all others"),
        ("a.txt", "0: car\n1: bus\n", "line 1 is '0: car', like all others"),
        ("a.txt", "n02958343\nn03345487\n", "line 1 is 'n02958343', without a name"),
        ("a.txt", "n02958343 car\nbus\n", "line 2 is 'bus', and others begin with an id"),
        ("a.txt", "- car\n- bus\n", "with a bullet: call the file .yaml"),
        ("a.txt", "classes:\n  - car\n  - bus\n", "line 1 is 'classes:', which is no class name"),
        ("a.txt", 'CLASSES = ["car",\n"bus"]\n', "which is no class name; write the names alone"),
        ("a.txt", "<!DOCTYPE html>\n<html>\n", "line 1 is '<!DOCTYPE html>', which is no class"),
        ("a.txt", "version https://git-lfs.github.com/spec/v1\noid x\n", "line 1 is 'version"),
        ("a.txt", "PK\x03\x04\ncar\n", "line 1 is not text"),
        ("a.csv", "", "has 0 distinct names"),
        ("a.json", "{}", "has 0 distinct names"),
    ],
)
def test_what_is_no_list_of_names_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        load(tmp_path, name, content)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ("3 doors", "5 doors"),
        ("car, red", "bus, blue"),
        ("0", "1", "2"),
        ("[sic]", "{}", "a: b"),
        ('"quoted" word', "other"),
        ("<3", "- minus"),
        ("n01", "n02"),
    ],
)
def test_names_that_only_resemble_a_table_stay_names(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    assert load(tmp_path, "labels.txt", "\n".join(names)).names == names


@given(st.lists(st.from_regex(r"[a-z][a-z ,'\"]{0,9}[a-z]", fullmatch=True), min_size=2))
def test_csv_and_json_of_any_names_give_them_back(names: list[str]) -> None:
    import csv
    import io

    from mint_stream.clip.class_table import from_csv, from_json

    names = list({as_read(name): " ".join(name.split()) for name in names}.values())
    table = io.StringIO()
    csv.writer(table).writerows([["id", "name"], *enumerate(names)])
    assert [name for _, name in from_csv(table.getvalue())] == names
    assert [name for _, name in from_json(json.dumps(dict(enumerate(names))))] == names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Traffic Light", "traffic light"),
        ("traffic_light", "traffic light"),
        ("TRAFFIC_light", "traffic  light"),
        ("driver\u2019s cab", "driver's cab"),
        ("\uff43\uff41\uff52", "car"),
        ("bed &amp; breakfast", "bed & breakfast"),
    ],
)
@pytest.mark.parametrize("kind", ["txt", "yaml", "of"])
def test_names_that_are_one_to_the_model_are_refused(
    tmp_path: Path, one: str, other: str, kind: str
) -> None:
    names = [one, "bus", other]
    content = json.dumps(names) if kind == "yaml" else "\n".join(names)
    with pytest.raises(ConfigError) as caught:
        ClassList.of(names) if kind == "of" else load(tmp_path, f"labels.{kind}", content)
    for said in (repr(one), "the same to the model"):
        assert said in str(caught.value)
    assert as_read(one) == as_read(other)


def test_what_is_one_to_the_tokenizer_is_one_here() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    for name in ("Traffic_Light", "  bed &amp;amp; b", "caf\u00e9", "driver\u2019s"):
        ids = tokenizer.encode(name.replace("_", " "))
        assert tokenizer.encode(as_read(name)) == ids


def test_a_name_too_long_for_the_model_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    """The folder's weights are no model: who touches them fails."""
    folder = tiny.write_clip(tmp_path / "clip")
    (folder / "model.safetensors").write_bytes(b"no weights")
    config = ModelConfig(model=str(folder))
    long = "road works " * 40
    with pytest.raises(ConfigError, match=r"'road works .* needs \d+ text positions .* has \d+"):
        check_name_length(ClassList.of(["car", long]), config, ())
    check_name_length(ClassList.of(["car", "road works"]), config, ())
    with pytest.raises(ConfigError, match="needs 8"):
        check_name_length(ClassList.of(["car", "bus"]), config, ("so " * 80 + "{}",))


def test_short_names_do_not_import_torch(tmp_path: Path) -> None:
    folder = tiny.write_clip(tmp_path / "clip")
    code = (
        "import sys; from mint_stream.clip.name_length import *; "
        f"check_name_length(ClassList.of(['car', 'bus']), ModelConfig(model={str(folder)!r}), ());"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
