"""The realtime preset's bank: domains found, shifts learned, updates merged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mint_stream.config import PRESETS, MethodConfig
from mint_stream.method import bank_state, guard
from mint_stream.method.domains import ClassSpace, DomainBank, Standing, adapted_logits, answer

REALTIME = PRESETS["realtime"]
WIDTH, CLASSES, UNIT = 24, 5, 16


@dataclasses.dataclass
class World:
    """Features of a made-up CLIP: class direction, shift of the domain, noise."""

    rng: np.random.Generator
    space: ClassSpace
    shifts: np.ndarray
    looks: np.ndarray

    def frames(self, domain: int, classes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Queries, activations and frozen answers of frames."""
        noise = self.rng.normal(0, 0.3, (len(classes), WIDTH))
        activation = 3 * self.space.text_CE[classes] + self.shifts[domain] + noise
        query = self.looks[domain] + self.rng.normal(0, 0.15, (len(classes), WIDTH))
        frozen = (activation @ self.space.text_CE.T).argmax(-1)
        return query, activation, frozen

    def adapted(self, activation: np.ndarray, shift: np.ndarray, share: float = 0.3) -> np.ndarray:
        feature = activation / np.linalg.norm(activation, axis=-1, keepdims=True)
        frozen = self.space.scale * feature @ self.space.text_CE.T
        return adapted_logits(frozen, activation, shift, self.space, share)

    def mixed(self, domain: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.frames(domain, self.rng.integers(0, CLASSES, UNIT))


@pytest.fixture
def world() -> World:
    rng = np.random.default_rng(5)
    text, _ = np.linalg.qr(rng.normal(size=(WIDTH, CLASSES)))
    space = ClassSpace(projection_DE=np.eye(WIDTH), text_CE=text.T, scale=10.0)
    shifts = np.stack([np.zeros(WIDTH), 3 * text.T[2], 3 * text.T[0] + 2 * text.T[1]])
    return World(rng, space, shifts, looks=rng.normal(0, 1, (3, WIDTH)))


def empty(method: MethodConfig = REALTIME, labelers: int = 1) -> DomainBank:
    state = bank_state.initial_state(
        entries=method.bank_size, prompt_rows=method.prompt_rows, width=WIDTH, seed=None
    )
    return DomainBank(*bank_state.effective(state), state.usage_K, method, labelers)


def feed(bank: DomainBank, world: World, domain: int, units: int) -> int:
    entry = -1
    for _ in range(units):
        entry = bank.observe(*world.mixed(domain), world.space)
    return entry


def test_each_domain_gets_an_entry_and_is_known_again(world: World) -> None:
    bank = empty()
    entries = [feed(bank, world, domain, units=6) for domain in (0, 1, 2)]
    assert len(set(entries)) == 3
    assert [feed(bank, world, domain, units=2) for domain in (0, 1, 2)] == entries
    assert bank.usage_K.sum() == 3 * 8 * UNIT
    assert [bank.nearest(world.mixed(domain)[0]) for domain in (0, 1, 2)] == entries


def test_an_empty_bank_knows_no_domain(world: World) -> None:
    assert empty().nearest(world.mixed(0)[0]) is None


def test_the_shift_brings_back_what_drift_took(world: World) -> None:
    bank = empty()
    feed(bank, world, 0, units=12)
    entry = feed(bank, world, 1, units=12)
    assert bank.verdict(entry, CLASSES) == guard.ADAPTING
    truth = world.rng.integers(0, CLASSES, 500)
    _, activation, frozen = world.frames(1, truth)
    adapted = world.adapted(activation, bank.shift(entry)).argmax(-1)
    assert (frozen == truth).mean() < 0.75
    assert (adapted == truth).mean() > 0.95


def test_one_class_for_a_long_time_is_not_taken_for_a_domain(world: World) -> None:
    bank = empty()
    feed(bank, world, 0, units=12)
    verdicts = []
    for _ in range(20):
        entry = bank.observe(*world.frames(0, np.full(UNIT, 3)), world.space)
        verdicts.append(bank.verdict(entry, CLASSES))
    # A bank that goes on takes the class for the domain and answers anything else.
    truth = np.full(200, 3)
    _, activation, frozen = world.frames(0, truth)
    unguarded = world.adapted(activation, bank.shift(entry)).argmax(-1)
    assert (frozen == truth).mean() > 0.95
    assert (unguarded == truth).mean() < 0.75
    assert guard.ADAPTING not in verdicts[4:]
    # And it comes back when the view is mixed again.
    entry = feed(bank, world, 0, units=20)
    assert bank.verdict(entry, CLASSES) == guard.ADAPTING


def test_runs_of_classes_are_not_adapted_to(world: World) -> None:
    bank = empty()
    classes = np.repeat(world.rng.permutation(np.tile(np.arange(CLASSES), 4)), 2 * UNIT)
    said = []
    for start in range(0, len(classes), UNIT):
        frames = world.frames(1, classes[start : start + UNIT])
        said.append(bank.verdict(bank.observe(*frames, world.space), CLASSES))
    assert guard.ADAPTING not in said
    assert "correlated" in said


def test_without_the_guard_everything_is_adapted_to(world: World) -> None:
    bank = empty(dataclasses.replace(REALTIME, guard=False))
    entry = bank.observe(*world.frames(0, np.full(UNIT, 3)), world.space)
    assert bank.verdict(entry, CLASSES) == guard.ADAPTING


def test_a_labeler_that_hands_its_bank_around_computes_what_one_that_keeps_it_does(
    world: World,
) -> None:
    """Through deltas and float32 after every unit, as the bank server has it."""
    units = [world.mixed(domain) for domain in (0, 0, 1, 0, 2, 1) for _ in range(4)]
    kept = empty()
    state = bank_state.initial_state(
        entries=REALTIME.bank_size, prompt_rows=2, width=WIDTH, seed=None
    )
    for seq, frames in enumerate(units, 1):
        kept.observe(*frames, world.space)
        bank = DomainBank(*bank_state.effective(state), state.usage_K, REALTIME)
        bank.observe(*frames, world.space)
        change = bank_state.delta(state, *bank.arrays(), bank.decay)
        assert len(change.entries_E) == 1
        state = bank_state.merge(state, change, seq)
    keys_KD, prompts_KPD = bank_state.effective(state)
    np.testing.assert_allclose(keys_KD, kept.arrays()[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(prompts_KPD, kept.arrays()[1], rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(state.usage_K, kept.usage_K)


@pytest.mark.parametrize("labelers", [2, 8, 32])
def test_crossing_updates_of_many_labelers_keep_every_sum_positive(
    world: World, labelers: int
) -> None:
    state = bank_state.initial_state(
        entries=REALTIME.bank_size, prompt_rows=2, width=WIDTH, seed=None
    )
    seq = 0
    for _ in range(30):
        deltas = []
        for _ in range(labelers):
            bank = DomainBank(*bank_state.effective(state), state.usage_K, REALTIME, labelers)
            bank.observe(*world.mixed(1), world.space)
            deltas.append(bank_state.delta(state, *bank.arrays(), bank.decay))
        for change in deltas:
            seq += 1
            state = bank_state.merge(state, change, seq)
    bank = DomainBank(*bank_state.effective(state), state.usage_K, REALTIME, labelers)
    assert (bank.sums_KS >= 0).all()
    entry = bank.nearest(world.mixed(1)[0])
    assert entry is not None
    mean = world.shifts[1] + 3 * world.space.text_CE.mean(0)
    assert np.linalg.norm(bank.shift(entry) - mean) < 0.5


def test_without_a_shift_all_of_the_answer_may_be_the_frozen_one(world: World) -> None:
    _, activation, frozen = world.mixed(0)
    whole = world.adapted(activation, np.zeros(WIDTH), share=1.0)
    assert (whole.argmax(-1) == frozen).all()
    feature = activation / np.linalg.norm(activation, axis=-1, keepdims=True)
    np.testing.assert_allclose(whole, world.space.scale * feature @ world.space.text_CE.T)


def test_adapted_answers_are_not_surer_than_they_are_right(world: World) -> None:
    noisy = dataclasses.replace(world, space=dataclasses.replace(world.space, scale=6.0))
    truth = world.rng.integers(0, CLASSES, 4000)
    _, activation, _ = noisy.frames(1, truth)
    activation = activation + world.rng.normal(0, 1.2, activation.shape)
    logits = noisy.adapted(activation, world.shifts[1] + 3 * world.space.text_CE.mean(0))
    sure = np.exp(logits - logits.max(-1, keepdims=True))
    sure = (sure / sure.sum(-1, keepdims=True)).max(-1).mean()
    assert sure < (logits.argmax(-1) == truth).mean() + 0.1


def answered(
    world: World, bank: DomainBank | None, domain: int, cameras: list[object], learn: bool = True
) -> tuple[np.ndarray, np.ndarray, list[Standing]]:
    """Frozen logits, logits and standings of a unit."""
    query, activation, _ = world.mixed(domain)
    feature = activation / np.linalg.norm(activation, axis=-1, keepdims=True)
    frozen = world.space.scale * feature @ world.space.text_CE.T
    banks = [bank] * len(query)
    return frozen, *answer(frozen, query, activation, banks, cameras, world.space, learn=learn)


def test_there_is_an_answer_from_the_first_unit_on_and_the_guard_says_when_to_trust_it(
    world: World,
) -> None:
    bank, said = empty(), []
    for _ in range(12):
        frozen, logits, standings = answered(world, bank, 0, ["north"] * UNIT)
        assert len(set(standings)) == 1
        said.append(standings[0].verdict)
        assert np.isfinite(logits).all()
        assert (logits != frozen).all()
    assert said[0] == guard.LEARNING
    assert said[-1] == guard.ADAPTING


def test_drift_is_the_distance_to_where_the_stream_began(world: World) -> None:
    bank = empty()
    days = [answered(world, bank, 0, ["north"] * UNIT)[2][0] for _ in range(8)]
    assert days[0] == Standing(guard.LEARNING, 0, 0.0), "nothing to lie far from"
    nights = [answered(world, bank, 1, ["north"] * UNIT)[2][0] for _ in range(40)]
    again = [answered(world, bank, 0, ["north"] * UNIT)[2][0] for _ in range(8)]
    for standing in (*days, *again):
        assert standing.entry == 0
        assert 0 <= standing.drift < REALTIME.new_domain
    assert {standing.entry for standing in nights} == {1}
    # What the shift of all queries is in units of their own spread.
    shift, spread = np.sum((world.looks[1] - world.looks[0]) ** 2), WIDTH * 0.15**2
    scale = np.mean(np.linalg.norm(world.looks[:2], axis=-1) ** 2)
    for standing in nights:
        assert standing.drift == pytest.approx(shift / scale / (spread / scale), rel=0.5)


def test_drift_needs_no_more_than_one_frame(world: World) -> None:
    bank = empty()
    feed(bank, world, 0, units=8)
    day, night = ([bank.drift(world.mixed(d)[0][:1]) for _ in range(50)] for d in (0, 1))
    assert np.mean(day) < REALTIME.new_domain < np.min(night)


def test_each_camera_s_frames_are_taken_together(world: World) -> None:
    bank = empty()
    feed(bank, world, 0, units=6)
    query = np.concatenate([world.mixed(0)[0][:8], world.mixed(2)[0][:8]])
    order = world.rng.permutation(UNIT)  # as a shard has them: mixed
    cameras = np.array(["north"] * 8 + ["south"] * 8)[order]
    frozen = np.zeros((UNIT, CLASSES))
    activation = world.rng.normal(size=(UNIT, WIDTH))
    answer(frozen, query[order], activation, [bank] * UNIT, list(cameras), world.space, learn=True)
    assert sorted(bank.usage_K[bank.usage_K > 0]) == [8, 6 * UNIT + 8]


def test_a_bank_that_is_only_read_stays_as_it_is(world: World) -> None:
    bank = empty()
    feed(bank, world, 0, units=10)
    feed(bank, world, 1, units=10)
    before = [array.copy() for array in bank.arrays()]
    frozen, logits, standings = answered(world, bank, 1, list(range(UNIT)), learn=False)
    assert {s.verdict for s in standings} == {guard.ADAPTING}
    assert (logits != frozen).all()
    for array, kept in zip(bank.arrays(), before, strict=True):
        np.testing.assert_array_equal(array, kept)


def test_without_a_bank_and_with_broken_numbers_there_is_no_answer(world: World) -> None:
    frozen, logits, standings = answered(world, None, 1, [None] * UNIT, learn=False)
    assert np.isnan(logits).all()
    assert set(standings) == {Standing()}
    bank = empty()
    feed(bank, world, 0, units=12)
    query, activation, _ = world.mixed(0)
    activation[3] = np.nan
    logits, standings = answer(
        frozen, query, activation, [bank] * UNIT, [None] * UNIT, world.space, learn=True
    )
    assert np.isfinite(bank.totals_KD).all()
    assert standings[3] == Standing(guard.LEARNING, None, None)
    assert standings[4].verdict == guard.ADAPTING
    assert np.isnan(logits[3]).all()
    assert np.isfinite(np.delete(logits, 3, 0)).all()
