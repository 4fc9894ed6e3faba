"""Class lists as people write them, and messages that name the line or the field."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_stream.clip.class_list import DEFAULT_TEMPLATES, ClassList, as_read, load_class_list
from mint_stream.config import ConfigError
from mint_stream.store.store import Store


def load(folder: Path, content: str | bytes, name: str = "labels.txt") -> ClassList:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_class_list(str(path))


class TestText:
    @pytest.mark.parametrize(
        "content",
        [
            "car\ntruck\nstreet lamp\n",
            "car\ntruck\nstreet lamp",
            "\ufeffcar\r\ntruck\r\nstreet lamp\r\n",
            "# road users\n\n  car  \n\ntruck\n   # more\nstreet   lamp\n\n",
            "car\ntruck\nstreet lamp".encode("utf-16"),
        ],
        ids=["plain", "no last newline", "windows", "comments and blanks", "utf-16"],
    )
    def test_one_class_a_line(self, tmp_path: Path, content: str | bytes) -> None:
        classes = load(tmp_path, content)
        assert classes.names == ("car", "truck", "street lamp")
        assert classes.phrases == (("car",), ("truck",), ("street lamp",))
        assert classes.templates == DEFAULT_TEMPLATES == ("a photo of a {}.",)

    def test_names_may_hold_any_character(self, tmp_path: Path) -> None:
        names = ("C# logo", "Fußgänger", "car, red", "{}", "a: b", "火車")
        assert load(tmp_path, "\n".join(names)).names == names

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "has 0 distinct names"),
            ("# nothing\n\n", "has 0 distinct names"),
            ("car\n", r"has 1 distinct names .*'car'.* at least 2"),
            ("car\n\ncar\n", r"line 3 repeats 'car', which is at line 1"),
            ("car\nbus\n  car ", r"line 3 repeats 'car', which is at line 1"),
            (b"car\nb\xffs\n", "line 2 is not UTF-8"),
        ],
    )
    def test_what_cannot_work_is_named(
        self, tmp_path: Path, content: str | bytes, said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            load(tmp_path, content)
        assert str(tmp_path / "labels.txt") in str(caught.value)


class TestYaml:
    def test_synonyms_and_templates(self, tmp_path: Path) -> None:
        content = """
            templates: ["a photo of a {}.", "{} at night"]
            classes: [car, {name: truck, synonyms: [lorry, semi]}, {name: street  lamp}]
        """
        classes = load(tmp_path, content, "labels.yaml")
        assert classes.names == ("car", "truck", "street lamp")
        assert classes.phrases == (("car",), ("truck", "lorry", "semi"), ("street lamp",))
        assert classes.templates == ("a photo of a {}.", "{} at night")

    def test_a_bare_list_is_enough(self, tmp_path: Path) -> None:
        assert load(tmp_path, "- car\n- bus\n", "labels.YML").names == ("car", "bus")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("", "must hold `classes:`"),
            ("car", "must hold `classes:`"),
            ("classes: car", "classes is 'car'; it must be a list"),
            ("classes: [car]", "has 1 distinct names"),
            ("classes: [car, car]", r"classes\[1\] repeats 'car', which is at classes\[0\]"),
            ("classes: [car, no]", r"classes\[1\] is False; it must be text \(put quotes"),
            ("classes: [car, 2]", r"classes\[1\] is 2; it must be text"),
            ("classes: [car, '']", r"classes\[1\] is ''; it must be text"),
            ("classes: [a, {synonyms: [b]}]", r"classes\[1\] is .* it must have a `name`"),
            ("classes: [a, {name: b, synonym: [c]}]", r"classes\[1\]\.synonym is not known; the"),
            ("classes: [a, {name: b, synonyms: c}]", r"classes\[1\]\.synonyms is 'c'; .* a list"),
            ("classes: [a, {name: b, synonyms: [a]}]", r"classes\[1\] repeats 'a'"),
            ("class: [a, b]", "class is not known; the keys are classes, templates"),
            ("classes: [a, b]\ntemplates: []", "templates is empty"),
            ("classes: [a, b]\ntemplates: a {}", "templates is 'a {}'; it must be a list"),
            ("classes: [a, b]\ntemplates: ['a photo']", "'a photo' must hold exactly one {}"),
            ("classes: [a, b]\ntemplates: ['{} {}']", "must hold exactly one {}"),
            ("classes: [a, b]\ntemplates: ['{} {0}']", "no other braces"),
            ("classes: [a,\n  b", "line 2 is not valid YAML"),
            ("classes: [a, b]\n\tx: 1", "line 2 is not valid YAML"),
            ("!!python/object/apply:os.getcwd []", "line 1 is not valid YAML"),
        ],
    )
    def test_what_cannot_work_is_named(self, tmp_path: Path, content: str, said: str) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            load(tmp_path, content, "labels.yaml")
        assert str(tmp_path / "labels.yaml") in str(caught.value)


def test_from_any_store(root: str) -> None:
    Store(root).write("labels/all.txt", b"car\nbus\n")
    assert load_class_list(f"{root}/labels/all.txt").names == ("car", "bus")
    with pytest.raises(ConfigError, match=r"labels is '.*none\.txt'; there is no such file"):
        load_class_list(f"{root}/labels/none.txt")


def test_text_and_yaml_of_the_same_content_have_the_same_hash(tmp_path: Path) -> None:
    text = load(tmp_path, "car\nbus\n")
    assert (
        text == load(tmp_path, "classes: [car, bus]", "labels.yaml") == ClassList.of(["car", "bus"])
    )
    assert len(text.hash) == 16


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=4), min_size=2, max_size=4, unique_by=as_read))
def test_the_hash_changes_with_every_part_and_with_the_order(names: list[str]) -> None:
    classes = ClassList.of(names)
    others = [
        ClassList.of(names[::-1]),
        ClassList.of([*names, "".join(names) + "x"]),
        ClassList.of(names, ("a {}",)),
        ClassList(classes.names, ((names[0], "".join(names) + "x"), *classes.phrases[1:])),
    ]
    assert len({classes.hash, *(other.hash for other in others)}) == 5
    assert ClassList.of(names).hash == classes.hash


class TestBombs:
    """Class lists come from anybody: what they are read into is no larger than they are."""

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(9)), "line 1"),
            ("classes: &c [car, bus]\ntemplates: *c\n", "anchors and aliases are not read"),
            ("- car\n- *bus\n", "line 2 .* put quotes around a name with & or \\*"),
            ("- car\n- &bus bus\n", "line 2 .* put quotes"),
            ("[" * 9_000, "nested too deep"),
            ("- car\n- " + "9" * 10_000, "put quotes around it"),
            ("- car\n- 2024-13-45", "put quotes around it"),
        ],
        ids=["laughs", "alias", "star", "ampersand", "brackets", "digits", "date"],
    )
    def test_yaml_that_stands_for_more_than_it_says_is_refused(
        self, tmp_path: Path, content: str, said: str
    ) -> None:
        with pytest.raises(ConfigError, match=said) as caught:
            load(tmp_path, content, "labels.yaml")
        assert "\n" not in str(caught.value)

    def test_names_with_an_ampersand_or_a_star_are_names_in_quotes(self, tmp_path: Path) -> None:
        classes = load(tmp_path, '- "*bus"\n- "&car"\n- rock & roll\n', "labels.yaml")
        assert classes.names == ("*bus", "&car", "rock & roll")

    @pytest.mark.parametrize("name", ["labels.txt", "labels.yaml"])
    def test_a_file_that_is_no_class_list_is_not_read_to_its_end(
        self, tmp_path: Path, name: str
    ) -> None:
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)  # a terabyte, of which the disk holds nothing
        with pytest.raises(ConfigError, match="more than 4,194,304 bytes"):
            load_class_list(str(tmp_path / name))
