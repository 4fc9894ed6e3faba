"""Merging as arithmetic: sums and products that no crash, order or repetition can bend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from bank_work import START, work
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_stream.bank.exchange import adopt, banks_digest, differing_entries, patch, update_digest
from mint_stream.method.bank_state import (
    Banks,
    BankState,
    BankUpdateError,
    Delta,
    delta,
    effective,
    initial_state,
    merge,
    merge_all,
    replay,
)

SEEDS = st.integers(0, 2**32 - 1)
DECAYS = st.one_of(st.just(1.0), st.floats(0.9, 1.0), st.floats(1e-9, 1.0))


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def same(a: BankState, b: BankState) -> bool:
    return len(differing_entries(a, b)) == 0 and (a.decay, a.rescales) == (b.decay, b.rescales)


def moved(state: BankState, seed: int, decay: float, rows: int = 2) -> Delta:
    """A random unit's delta on `state`, of which `rows` entries move by about 1."""
    random = np.random.default_rng(seed)
    keys_KD, prompts_KPD = (array * np.float32(decay) for array in effective(state))
    chosen = random.choice(len(keys_KD), size=rows, replace=False)
    keys_KD[chosen] += random.normal(size=keys_KD[chosen].shape).astype(np.float32)
    prompts_KPD[chosen] += random.normal(size=prompts_KPD[chosen].shape).astype(np.float32)
    usage_K = state.usage_K.copy()
    usage_K[chosen] += 1 + random.integers(0, 9, size=rows)
    return delta(state, keys_KD, prompts_KPD, usage_K, decay)


def grown(seeds: list[int], decay: float = 0.99) -> BankState:
    state = START
    for seq, seed in enumerate(seeds, 1):
        state = merge(state, moved(state, seed, decay), seq)
    return state


def test_the_start_is_a_function_of_seed_and_shape():
    one = initial_state(entries=5, prompt_rows=2, width=4, seed=3)
    again = initial_state(entries=5, prompt_rows=2, width=4, seed=3)
    other = initial_state(entries=5, prompt_rows=2, width=4, seed=4)
    assert same(one, again)
    assert len(differing_entries(one, other)) == 5
    assert one.keys_KD.dtype == np.float32
    assert one.shape == (5, 2, 4)
    assert [bits(a) for a in effective(one)] == [bits(one.keys_KD), bits(one.prompts_KPD)]


def test_the_start_looks_standard_normal():
    state = initial_state(entries=400, prompt_rows=2, width=50, seed=0)
    for array in (state.keys_KD, state.prompts_KPD):
        assert abs(array.mean()) < 0.02
        assert abs(array.std() - 1) < 0.02


@given(st.lists(SEEDS, max_size=4), SEEDS, DECAYS)
def test_a_merge_gives_the_effective_values_that_the_unit_ended_with(seeds, seed, decay):
    before = grown(seeds)
    change = moved(before, seed, decay)
    after = merge(before, change, 9)
    keys_before, prompts_before = (a.astype(np.float64) for a in effective(before))
    keys_after, prompts_after = effective(after)
    rows = change.entries_E
    np.testing.assert_allclose(
        keys_after[rows], decay * keys_before[rows] + change.keys_ED, rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(
        prompts_after[rows], decay * prompts_before[rows] + change.prompts_EPD, rtol=1e-6, atol=1e-6
    )
    untouched = np.setdiff1d(np.arange(len(keys_after)), rows)
    np.testing.assert_allclose(keys_after[untouched], decay * keys_before[untouched], rtol=1e-6)


@given(st.lists(SEEDS, max_size=4), SEEDS, st.floats(0.5, 1.0))
def test_decay_is_one_factor_and_untouched_rows_keep_their_bits(seeds, seed, decay):
    before = grown(seeds)
    change = moved(before, seed, decay)
    after = merge(before, change, 9)
    assert after.decay == before.decay * decay
    assert after.rescales == before.rescales
    assert np.isin(differing_entries(before, after), change.entries_E).all()
    assert (after.last_seq_K[change.entries_E] == 9).all()


def test_a_negative_zero_in_an_untouched_row_stays_one():
    keys_KD = START.keys_KD.copy()
    keys_KD[0, 0] = -0.0
    before = replace(START, keys_KD=keys_KD)
    change = replace(moved(before, 1, 0.5), entries_E=np.array([1, 2], np.int32))
    after = merge(before, change, 1)
    assert np.signbit(after.keys_KD[0, 0])


@given(st.lists(SEEDS, min_size=2, max_size=6, unique=True), st.randoms(), st.floats(0.3, 1.0))
def test_the_order_of_merges_matters_only_by_rounding(seeds, shuffler, decay):
    """Also with strong decay: deltas are sums in stored units, not of decayed rows."""
    base = grown([5, 6])
    changes = [moved(base, seed, decay) for seed in seeds]
    shuffled = list(changes)
    shuffler.shuffle(shuffled)
    one, other = base, base
    for seq, (a, b) in enumerate(zip(changes, shuffled, strict=True), 3):
        one, other = merge(one, a, seq), merge(other, b, seq)
    assert bits(one.usage_K) == bits(other.usage_K)
    assert one.decay == pytest.approx(other.decay, rel=1e-12)
    for a, b in zip(effective(one), effective(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * one.decay)


@given(st.lists(SEEDS, min_size=1, max_size=6))
def test_usage_is_conserved_exactly(seeds):
    changes = [moved(START, seed, 0.9) for seed in seeds]
    banks = replay(Banks(START), [(i, {"shared": c}) for i, c in enumerate(changes, 1)])
    expected = sum(int(change.usage_E.sum()) for change in changes)
    assert int(banks.state("shared").usage_K.sum()) == expected


@settings(deadline=None)
@given(st.lists(st.tuples(SEEDS, st.floats(1e-7, 1e-3)), min_size=4, max_size=12))
def test_the_factor_stays_in_range_and_rescaling_rounds_nothing(units):
    """Against a model that has one unbounded factor and float64 rows."""
    state = START
    keys_KD, factor = START.keys_KD.astype(np.float64), 1.0
    for seq, (seed, decay) in enumerate(units, 1):
        change = moved(state, seed, decay)
        state = merge(state, change, seq)
        factor *= decay
        keys_KD[change.entries_E] += change.keys_ED.astype(np.float64) / factor
        assert 2.0**-20 <= state.decay <= 1.0
        np.testing.assert_allclose(effective(state)[0], keys_KD * factor, rtol=1e-5, atol=1e-30)
    assert state.rescales > 0


def test_rescaling_keeps_every_effective_bit():
    change = replace(moved(START, 1, 1.0), decay=2.0**-19, scale=2.0**-19)
    just_above = merge(START, change, 1)
    empty = _no_rows(just_above, decay=0.25)
    below = merge(just_above, empty, 2)
    assert (just_above.rescales, below.rescales) == (0, 1)
    for a, b in zip(effective(just_above), effective(below), strict=True):
        assert bits(a * np.float32(0.25)) == bits(b)


@given(SEEDS, st.floats(1e-4, 1.0), st.floats(1e-4, 1.0))
def test_a_delta_measured_before_a_rescale_is_the_same_after_it(seed, late, early):
    """The labeler saw another power of two than the server has by now."""
    change = moved(START, seed, late)
    shrink = _no_rows(START, decay=early)
    alone = effective(merge(START, change, 1))[0].astype(np.float64) * early
    through = START
    for _ in range(6):
        through = merge(through, shrink, 1)
    after = effective(merge(through, change, 2))[0].astype(np.float64)
    np.testing.assert_allclose(after, alone * early**5, rtol=1e-5, atol=1e-35)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["keys_ED", "prompts_EPD"])
def test_numbers_that_are_not_finite_are_refused(bad, where):
    change = moved(START, 1, 0.9)
    values = getattr(change, where).copy()
    values.flat[-1] = bad
    untouched = banks_digest(Banks(START, {"": START}))
    with pytest.raises(BankUpdateError, match=rf"entry {change.entries_E[-1]} infinite or not"):
        merge(START, replace(change, **{where: values}), 1)
    assert banks_digest(Banks(START, {"": START})) == untouched


def test_an_update_that_would_overflow_is_refused():
    change = moved(START, 1, 0.9)
    huge = replace(change, keys_ED=np.full_like(change.keys_ED, 3e38), scale=1e-6)
    with pytest.raises(BankUpdateError, match="bank is unchanged"):
        merge(START, huge, 1)


def test_one_bad_scope_keeps_the_others_out_too():
    good = moved(START, 1, 0.9)
    bad = replace(good, keys_ED=good.keys_ED * np.float32(np.nan))
    banks = Banks(START)
    with pytest.raises(BankUpdateError):
        merge_all(banks, {"a": good, "b": bad}, 1)
    assert banks.states == {}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ({"entries_E": np.array([1, 1], np.int32)}, "must ascend"),
        ({"entries_E": np.array([2, 1], np.int32)}, "must ascend"),
        ({"entries_E": np.array([-1, 1], np.int32)}, "must ascend"),
        ({"entries_E": np.array([1, 6], np.int32)}, r"within 0..5"),
        ({"entries_E": np.array([1, 2], np.int64)}, "entries of the update are int64"),
        ({"keys_ED": np.zeros((2, 4), np.float32)}, r"keys of the update are float32\(2, 4\)"),
        ({"prompts_EPD": np.zeros((2, 2, 3))}, "prompts of the update are float64"),
        ({"usage_E": np.array([1, -1])}, "takes usage counts away"),
        ({"decay": 0.0}, r"decay 0.0 .* must be in \(0, 1\]"),
        ({"decay": 1.5}, r"must be in \(0, 1\]"),
        ({"decay": float("nan")}, r"must be in \(0, 1\]"),
        ({"scale": 0.0}, r"must be in \(0, 1\]"),
        ({"rescales": -1}, "must be 0 or more"),
    ],
)
def test_an_update_that_does_not_fit_is_refused(broken, message):
    change = moved(START, 1, 0.9)
    with pytest.raises(BankUpdateError, match=message):
        merge(START, replace(change, **broken), 1)


def test_a_delta_against_the_wrong_state_is_refused():
    later = merge(START, moved(START, 1, 0.9), 1)
    keys_KD, prompts_KPD = effective(START)
    with pytest.raises(BankUpdateError, match="fell from"):
        delta(later, keys_KD, prompts_KPD, START.usage_K, 0.9)
    with pytest.raises(BankUpdateError, match="keys have shape"):
        delta(START, keys_KD[:2], prompts_KPD, START.usage_K, 0.9)


def test_a_unit_that_changed_nothing_has_an_empty_delta():
    keys_KD, prompts_KPD = effective(START)
    nothing = delta(START, keys_KD, prompts_KPD, START.usage_K, 1.0)
    assert nothing.is_empty
    assert not _no_rows(START, decay=0.9).is_empty
    assert update_digest({"a": nothing}) == update_digest({})


def test_merging_leaves_its_inputs_alone_and_states_are_read_only():
    before = banks_digest(Banks(START, {"": START}))
    after = merge(START, moved(START, 1, 0.9), 1)
    assert banks_digest(Banks(START, {"": START})) == before
    for array in (after.keys_KD, after.prompts_KPD, after.usage_K, after.last_seq_K):
        with pytest.raises(ValueError, match="read-only"):
            array.flat[0] = 1
    assert all(array.flags.writeable for array in effective(after))


@given(st.lists(SEEDS, max_size=3), st.lists(st.tuples(SEEDS, DECAYS), max_size=4), SEEDS, DECAYS)
def test_a_replica_that_adds_its_own_delta_gets_the_servers_bits(seeds, others, own_seed, decay):
    """Whatever others merged in between, rescales included: only their rows are sent."""
    replica = server = grown(seeds)
    own = moved(replica, own_seed, decay)
    rows: set[int] = set()
    for seq, (seed, others_decay) in enumerate(others, 10):
        change = moved(server, seed, others_decay)
        rows.update(change.entries_E.tolist())
        server = merge(server, change, seq)
    server = merge(server, own, 99)
    changed = patch(server, np.array(sorted(rows), np.int64))
    assert same(adopt(replica, changed, own, 99), server)


def test_digests_tell_every_field_apart_and_scopes_may_come_in_any_order():
    change, other = moved(START, 1, 0.9), moved(START, 2, 0.9)
    assert update_digest({"a": change, "b": other}) == update_digest({"b": other, "a": change})
    variants = [
        {"a": change},
        {"b": change},
        {"a": other},
        {"a": replace(change, decay=0.8)},
        {"a": replace(change, scale=0.8)},
        {"a": replace(change, rescales=1)},
        {"a": replace(change, usage_E=change.usage_E + 1)},
        {"a": replace(change, keys_ED=-change.keys_ED)},
        {"a": replace(change, prompts_EPD=-change.prompts_EPD)},
        {"a": change, "b": change},
    ]
    assert len({update_digest(variant) for variant in variants}) == len(variants)


def test_work_is_a_function_of_unit_and_bank():
    assert update_digest({"": work(START, "u")}) == update_digest({"": work(START, "u")})
    assert update_digest({"": work(START, "u")}) != update_digest({"": work(START, "v")})


def _no_rows(state: BankState, decay: float) -> Delta:
    keys_KD, prompts_KPD = effective(state)
    return delta(state, keys_KD, prompts_KPD, state.usage_K, decay)
