"""Bank log and checkpoints: whole, of this run, and each checkpoint the replay of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mint_stream.bank import checkpoint
from mint_stream.bank.checkpoint import KEPT, Checkpoint
from mint_stream.bank.exchange import banks_digest, differing_entries
from mint_stream.bank.files import LogName, bank_width, read_bank
from mint_stream.bank.log import RestoreError, each, read_log
from mint_stream.method.bank_state import Banks, BankUpdateError, Update, initial_state, replay
from mint_stream.output.names import labels_name
from mint_stream.output.settings import Settings, differences
from mint_stream.upkeep.listing import UNIT, Listing
from mint_stream.upkeep.verify.findings import AGAIN, BRING_BACK, Findings, some
from mint_stream.upkeep.verify.rows import Rows

_FALLS_BACK = f"{BRING_BACK}, or delete it: {AGAIN}, and the bank is restored without it"
_MOVED = (
    "the bank is not the one that the labels taught: keep the labels, and go on in a new output"
)


@dataclass(frozen=True)
class Kept:
    """A checkpoint on the store that is what it says."""

    about: Checkpoint
    banks: Banks


def check_bank(
    listing: Listing, settings: Settings | None, rows: Rows, findings: Findings
) -> list[Kept]:
    """Check the bank of an output; gives its sound checkpoints, the oldest first."""
    store = listing.store
    found = checkpoint.find(store)
    for name in found.damaged:
        findings.add(f"{name}.json", "its content does not match its hash", _FALLS_BACK)
    for name in found.unfinished:
        findings.note(f"{name}.parquet has no JSON: writing it was cut off, which does no harm")
    updates = _read_log(listing, rows, findings)
    sound = checkpoint.sound(
        store,
        lambda about, data: _load(about, data, settings, findings),
        found=found,
        damaged=lambda about, why: findings.add(f"{about.name}.parquet", why, _FALLS_BACK),
    )
    kept = [Kept(about, banks) for about, banks in sound if banks is not None][::-1]
    complete = _check_log_is_complete(listing, rows, found.sound, findings)
    taught = {name for k in kept for name in k.about.covered if not _of_a_unit(name)}
    if taught:
        findings.note(
            "requests of a service taught this bank, which leaves no log: its checkpoints were "
            "not held against a replay"
        )
    elif settings is not None and kept:
        final = _check_replay(kept, updates, rows, findings)
        rolled_back = any(k.about.rolled_back_to is not None for k in kept)
        if final is not None and complete and not rolled_back:
            _check_usage(kept[-1].about.name, final, rows, settings, findings)
    return kept


def _read_log(listing: Listing, rows: Rows, findings: Findings) -> dict[str, Update]:
    """The updates in log objects that labels refer to, by name; the others are counted."""
    referred: dict[str, str] = {}
    for unit, name in sorted(rows.log_names.items()):
        if not name:
            continue
        if not _of_a_unit(name) or LogName.parse(name).unit != unit:
            findings.add(
                labels_name(unit),
                f"refers to {name}, which is not a log object of its unit",
                f"{BRING_BACK}, or delete it and {AGAIN}",
            )
        else:
            referred[name] = unit
    names = sorted(listing.logs & set(referred))

    def read(name: str) -> Update | RestoreError | None:
        try:
            return read_log(listing.store, name)
        except RestoreError as error:
            return error

    updates = {}
    for name, update in zip(names, each(read, names), strict=True):
        if isinstance(update, RestoreError):
            findings.add(
                name,
                f"is damaged ({update.why})",
                f"{BRING_BACK}, or delete it: the run then goes on without this one update",
            )
        elif update is not None:
            updates[name] = update
    others = listing.logs - set(referred)
    if others:
        findings.note(
            f"{len(others)} log objects belong to no committed labels: attempts that were cut off"
        )
    return updates


def _load(
    about: Checkpoint, data: bytes, settings: Settings | None, findings: Findings
) -> Banks | None:
    """The banks in a checkpoint's Parquet; None, with a finding, if they are not this output's."""
    name = f"{about.name}.parquet"
    if not about.name.endswith(about.parquet_sha256[:12]):
        findings.add(name, "its content does not match the hash in its name", _FALLS_BACK)
        return None
    if settings is None:
        return None
    theirs = {key: about.identity.get(key) for key in settings.identity}  # "start" is below
    differing = [name for name, _, _ in differences(settings.identity, theirs)]
    if differing:
        findings.add(
            f"{about.name}.json",
            f"belongs to another run than run.json says: {some(differing)} differ",
            "bring back the right run.json or the right bank; a run refuses to mix them",
        )
        return None
    try:
        banks = banks_in(data, settings)
    except (ValueError, KeyError) as error:
        findings.add(name, f"is not a bank of this output ({error})", _FALLS_BACK)
        return None
    if about.identity.get("start") != checkpoint.start_digest(banks.initial):
        findings.add(
            f"{about.name}.json",
            "its bank did not start from the one that run.json describes",
            "bring back the right run.json; a run refuses to mix them",
        )
    decay = {scope: state.decay for scope, state in banks.states.items()}
    if banks.seq != about.seq or decay != about.decay:
        findings.add(
            f"{about.name}.json", "says another seq or decay than its bank has", _FALLS_BACK
        )
    return banks


def banks_in(data: bytes, settings: Settings) -> Banks:
    """The banks in a checkpoint's Parquet. Raises `ValueError` or `KeyError` if they do not fit."""
    method = settings.method
    initial = initial_state(
        entries=method.bank_size,
        prompt_rows=method.prompt_rows,
        width=bank_width(data),
        seed=method.bank_seed(settings.values["seed"]),
    )
    return read_bank(data, initial)


def _check_log_is_complete(
    listing: Listing, rows: Rows, sound: list[Checkpoint], findings: Findings
) -> bool:
    """Whether each update that labels refer to is in the log, or was removed for good reason."""
    for about in sound:
        for name in about.covered:
            if _of_a_unit(name) and LogName.parse(name).unit not in listing.labels:
                findings.add(
                    labels_name(LogName.parse(name).unit),
                    f"is missing, and the bank checkpoint {about.name} holds its unit's update",
                    f"{BRING_BACK}; or {AGAIN}: its frames are labelled anew, by a bank that has "
                    "seen them",
                )
    complete = True
    for unit, name in sorted(rows.log_names.items()):
        if name and name not in listing.logs and _of_a_unit(name) and not _may_be_gone(name, sound):
            complete = False
            findings.add(
                name,
                f"is missing, and {labels_name(unit)} refers to it",
                f"{BRING_BACK}; else the bank goes on without what that unit taught it",
            )
    return complete


def _may_be_gone(name: str, sound: list[Checkpoint]) -> bool:
    """Log objects are removed once `KEPT` checkpoints hold them; later ones do not name them."""
    if not sound or sound[0].number < KEPT:
        return False
    oldest = sound[-1]
    if any(name in about.covered for about in sound):
        return name in oldest.covered
    return LogName.parse(name).seq <= oldest.seq


def _check_replay(
    kept: list[Kept], updates: Mapping[str, Update], rows: Rows, findings: Findings
) -> Banks | None:
    """From each checkpoint to the next one; gives the bank with the log since the newest."""
    counted = {name for name in rows.log_names.values() if name}
    before, held = None, frozenset[str]()
    if kept[0].about.number == 1:
        before = Banks(kept[0].banks.initial)
    for k in kept:
        covered = frozenset(k.about.covered) & counted
        if k.about.rolled_back_to is not None:
            findings.note(f"{k.about.name} brought the bank of {k.about.rolled_back_to} back")
        elif (held - covered) & updates.keys():
            # Two bank servers at once, each with checkpoints of its own: neither follows the other.
            findings.note(f"{k.about.name} does not follow the one before: it was not replayed")
        elif before is not None:
            _check_step(before, k, sorted(covered - held), updates, findings)
        before, held = k.banks, covered
    since = sorted(set(updates) - held)
    try:
        return replay(kept[-1].banks, _merges(since, updates))
    except BankUpdateError as error:
        findings.add(since[0], f"the log from here on does not fit the bank ({error})", BRING_BACK)
        return None


def _check_step(
    before: Banks, k: Kept, names: list[str], updates: Mapping[str, Update], findings: Findings
) -> None:
    if any(name not in updates for name in names):
        findings.note(f"{k.about.name} was not replayed: not all of its log is there")
        return
    try:
        replayed = replay(before, _merges(names, updates))
    except BankUpdateError as error:
        findings.add(f"{k.about.name}.parquet", f"its log does not fit the bank ({error})", _MOVED)
        return
    if banks_digest(replayed) == banks_digest(k.banks):
        return
    where = [
        f"{len(entries)} entries of {scope}"
        for scope in sorted({*replayed.states, *k.banks.states})
        if len(entries := differing_entries(replayed.state(scope), k.banks.state(scope)))
    ]
    findings.add(
        f"{k.about.name}.parquet",
        f"is not the replay of its {len(names)} committed updates: "
        + (f"{some(where)} differ" if where else f"seq is {k.banks.seq}, not {replayed.seq}"),
        _MOVED,
    )


def _check_usage(
    name: str, final: Banks, rows: Rows, settings: Settings, findings: Findings
) -> None:
    """Each adapted frame retrieved S * V * Q * R entries: no update lost, none applied twice.

    Not said where a guard watches or the preset keeps no bank.
    """
    each_frame = settings.method.retrievals
    if rows.guarded or each_frame is None:
        return
    for scope in sorted({*final.states, *rows.adapted}):
        counted = int(final.state(scope).usage_K.sum())
        expected = rows.adapted[scope] * each_frame
        if counted != expected:
            how = "an update is in it twice" if counted > expected else "an update is lost"
            findings.add(
                f"{name}.parquet",
                f"bank {scope} counts {counted:,} retrievals with the log since, labels account "
                f"for {expected:,}: {how}, or labels are gone",
                _MOVED,
            )


def _merges(names: list[str], updates: Mapping[str, Update]) -> list[tuple[int, Update]]:
    ordered = sorted(LogName.parse(name) for name in names)
    return [(name.seq, updates[str(name)]) for name in ordered]


def _of_a_unit(name: str) -> bool:
    """Whether a log object's name is that of a unit of the stream (not of a service's requests)."""
    try:
        return bool(UNIT.fullmatch(LogName.parse(name).unit))
    except ValueError:
        return False
