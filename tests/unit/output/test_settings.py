"""What differs between two sets of settings: one comparison for runs, banks, verify and diff."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mint_stream.output.settings import differences

SETTINGS = st.recursive(
    st.none() | st.integers(0, 3) | st.text(max_size=2) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
ALL = st.dictionaries(st.sampled_from("abc"), SETTINGS, max_size=3)


@given(ALL, ALL)
def test_whoever_asks_first_finds_the_same(a: dict[str, object], b: dict[str, object]) -> None:
    assert [(name, y, x) for name, x, y in differences(a, b)] == differences(b, a)
    assert differences(a, a) == []


def test_a_name_of_either_side_counts_and_values_compare_as_in_json() -> None:
    a = {"seed": 1.0, "steps": (1, 2), "preset": {"views": 6, "new": None}, "only": 3}
    b = {"seed": 1, "steps": [1, 2], "preset": {"views": 7, "levels": 2}, "none": None}
    assert differences(a, b) == [
        *(("only", 3, None), ("preset.levels", None, 2), ("preset.views", 6, 7))
    ]
