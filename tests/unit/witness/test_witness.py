"""A witness without HTTP: every refusal in its order, what is kept as evidence, and that it never cosigns a fork."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gesell_ledger.keyfile import load_or_make_key
from gesell_ledger.witness import records as records_module
from gesell_ledger.witness.cosigning import FILE, Witness, open_witness
from gesell_ledger.witness.records import CONFLICTS_MAX, Records, RecordsFault, hash_of_origin
from gesell_ledger.witness.submissions import Latest, Rejected
from gesell_ledger.witness.trusted import Trusted
from gesell_protocol.names import did_of
from gesell_protocol.notes import NoteKey, Signature, origin_of, read_note, read_signatures
from gesell_protocol.tree import EMPTY_ROOT, check_consistency
from tests.growing import GrowingLog, write_submission
from tests.speaking import signer_of

NAME = "witness.example/w1"
SIGNER = signer_of("witness")
LEDGER, SUCCESSOR, OTHER, STRANGER = (signer_of(name) for name in ("ledger", "successor", "other ledger", "stranger"))
COMMONS = origin_of(bytes.fromhex("ab" * 16))
PLAIN = "example.com/behind-the-sofa"
NOW_S = 1_800_000_000

TRUSTED = Trusted.parse(
    ledgers=[f"{did_of(LEDGER.public_key)},{did_of(SUCCESSOR.public_key)}", did_of(OTHER.public_key)],
    logs=[str(NoteKey(PLAIN, LEDGER.public_key))],
)


def make(folder: Path) -> Witness:
    return Witness(Records.open(folder / FILE), TRUSTED, name=NAME, signer=SIGNER, now_s=lambda: NOW_S)


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Witness]:
    with closing(make(tmp_path)) as made:
        yield made


def submit(witness: Witness, body: bytes) -> Signature:
    (signature,) = read_signatures(witness.cosign(witness.read(body)))
    return signature


def refused(witness: Witness, body: bytes) -> Rejected:
    with pytest.raises(Rejected) as rejected:
        submit(witness, body)
    return rejected.value


def log_of(origin: str = COMMONS, signer: Any = LEDGER) -> GrowingLog:
    return GrowingLog(origin, signer)


# ── What is cosigned ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_that_grows_is_cosigned_step_by_step(witness: Witness) -> None:
    log, old = log_of(), 0
    for more in (1, 0, 1, 5, 0, 250, 13, 256):
        note = log.grow(more).checkpoint()
        signature = submit(witness, log.submission(old))
        assert note.with_signatures([signature]).cosigned(witness.key) == NOW_S
        assert witness.load_note(hash_of_origin(COMMONS)) == str(note.with_signatures([signature]))
        old = len(log.leaves)
    assert witness.count() == (1, 0)


def test_an_empty_log_is_cosigned_before_its_first_entry(witness: Witness) -> None:
    log = log_of()
    assert log.root(0) == EMPTY_ROOT
    submit(witness, log.submission(0))
    submit(witness, log.grow(3).submission(0))


def test_only_signatures_of_the_log_and_the_witness_are_given_out(witness: Witness) -> None:
    log = log_of().grow(2)
    note = log.checkpoint()
    strange = Signature("somebody.example", b"1234", b"not ours to judge")
    signature = submit(witness, write_submission(0, [], note.with_signatures([strange])))
    given_out = witness.load_note(hash_of_origin(COMMONS))
    assert given_out == str(note.with_signatures([signature]))


def test_extension_lines_are_cosigned_too(witness: Witness) -> None:
    log = log_of(PLAIN).grow(2)
    note = log.checkpoint(extension="in beta")
    assert note.with_signatures([submit(witness, write_submission(0, [], note))]).cosigned(witness.key) == NOW_S


def test_what_is_not_cosigned_yet_is_not_given_out(witness: Witness) -> None:
    assert witness.load_note(hash_of_origin(COMMONS)) is None


# ── What is refused ──────────────────────────────────────────────────────────────────────────────────────────────

GOOD = log_of().grow(9)
FORK = GOOD.forked(5).grow(4, salt="fork")
NEWER = GOOD.forked(9).grow(4)


def spoiled(change: Callable[[str], str], old: int = 9, size: int = 13) -> bytes:
    return change(NEWER.submission(old, size).decode()).encode()


def with_signature(signature: bytes) -> bytes:
    line = NEWER.checkpoint(13).signatures[0]
    note = NEWER.checkpoint(13)
    return write_submission(0, [bytes(32)], type(note)(note.text, (line._replace(signature=signature),)))


BY_STRANGER = GrowingLog(COMMONS, STRANGER, NEWER.leaves)
UNKNOWN = GrowingLog("example.com/nobody", STRANGER, NEWER.leaves)
UPPER = GrowingLog(COMMONS.upper().replace("GESELL", "gesell"), LEDGER, NEWER.leaves)

#: In the order in which they are found; each has faults of the later ones too, as far as that can be.
REFUSALS: list[tuple[str, bytes, int]] = [
    ("nothing", b"", 400),
    ("no old size", spoiled(lambda text: text.removeprefix("old 9\n")), 400),
    ("a leading zero", spoiled(lambda text: text.replace("old 9", "old 09")), 400),
    ("a sign", spoiled(lambda text: text.replace("old 9", "old +9")), 400),
    ("two spaces", spoiled(lambda text: text.replace("old 9", "old  9")), 400),
    ("another digit", spoiled(lambda text: text.replace("old 9", "old ٩")), 400),
    ("an old size past any tree", spoiled(lambda text: text.replace("old 9", f"old {2**63}")), 400),
    ("a carriage return", spoiled(lambda text: text.replace("old 9\n", "old 9\r\n")), 400),
    ("64 proof lines", write_submission(9, [bytes(32)] * 64, NEWER.checkpoint()), 400),
    ("a short hash", write_submission(9, [bytes(31)], NEWER.checkpoint()), 400),
    ("no base64", spoiled(lambda text: text.replace("old 9\n", "old 9\n*\n")), 400),
    (
        "base64url",
        write_submission(9, [], NEWER.checkpoint()).replace(b"old 9\n", b"old 9\n" + b"_" * 43 + b"=\n"),
        400,
    ),
    ("no empty line", spoiled(lambda text: text.replace("\n\n", "\n", 1)), 400),
    ("two empty lines", spoiled(lambda text: text.replace("\n\n", "\n\n\n", 1)), 400),
    ("no checkpoint", b"old 9\n\n", 400),
    ("no signature", spoiled(lambda text: text[: text.index("—")]), 400),
    ("a cut signature line", spoiled(lambda text: text[:-1]), 400),
    ("no size", spoiled(lambda text: text.replace("\n13\n", "\n013\n")), 400),
    ("a negative size", spoiled(lambda text: text.replace("\n13\n", "\n-13\n")), 400),
    ("a short root", write_submission(9, [], f"{COMMONS}\n13\nAAAA\n\n{NEWER.checkpoint().signatures[0].line()}"), 400),
    ("a control character", spoiled(lambda text: text.replace("gesell/", "gesell\x00/")), 400),
    ("no UTF-8", NEWER.submission(9).replace(b"gesell/", b"gesell\xff/", 1), 400),
    ("another log", UNKNOWN.submission(1, 13), 404),
    ("a commons in capitals", UPPER.submission(1, 13), 404),
    ("another key", BY_STRANGER.submission(1, 13), 403),
    ("another text", spoiled(lambda text: text.replace("\n13\n", "\n14\n"), old=1), 403),
    ("a signature of the right length", with_signature(bytes(64)), 403),
    ("a signature of no length", with_signature(bytes(1)), 403),
    ("an old size above the new one", write_submission(14, [bytes(32)], NEWER.checkpoint(13)), 400),
    ("an old size above one that is old itself", write_submission(9, [], NEWER.checkpoint(8)), 400),
    ("an old size below the latest", NEWER.submission(8, 13), 409),
    ("no old size although there is one", NEWER.submission(0, 13), 409),
    ("an old size above the latest", NEWER.submission(10, 13), 409),
    ("an old checkpoint", NEWER.submission(0, 7), 409),
    ("a fork from before", FORK.submission(5, 9), 409),
    ("a wrong proof", write_submission(9, [bytes(32)] * 3, NEWER.checkpoint()), 422),
    ("no proof", write_submission(9, [], NEWER.checkpoint()), 422),
    ("a proof too many", write_submission(9, [*NEWER.prove(9, 13), bytes(32)], NEWER.checkpoint()), 422),
    ("a proof of the same", write_submission(9, [bytes(32)], GOOD.checkpoint()), 422),
    ("another tree of this size", FORK.submission(9, 9), 422),
    ("a tree that grew from another", FORK.forked(9).grow(4).submission(9, 13), 422),
]


@pytest.mark.parametrize(("body", "status"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_what_is_wrong_is_refused_and_changes_nothing(witness: Witness, body: bytes, status: int) -> None:
    submit(witness, GOOD.submission(0))
    before = witness.load_note(hash_of_origin(COMMONS))
    rejected = refused(witness, body)
    assert (rejected.status, rejected.size) == (status, 9 if status == 409 else 0), rejected
    assert witness.load_note(hash_of_origin(COMMONS)) == before
    submit(witness, NEWER.submission(9, 13))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (write_submission(0, [bytes(32)], NEWER.checkpoint()), 422),
        (write_submission(0, [], GrowingLog(COMMONS, LEDGER).checkpoint()).replace(b"47DEQ", b"48DEQ"), 403),
        (NEWER.submission(1, 13), 409),
        (BY_STRANGER.submission(0, 13), 403),
    ],
    ids=[
        "a proof of nothing",
        "an empty tree with another root, not signed",
        "an old size although there is none",
        "another key",
    ],
)
def test_what_is_wrong_the_first_time_is_refused(witness: Witness, body: bytes, status: int) -> None:
    rejected = refused(witness, body)
    assert (rejected.status, rejected.size) == (status, 0)
    assert witness.load_note(hash_of_origin(COMMONS)) is None


def test_an_empty_tree_has_the_root_of_nothing(witness: Witness) -> None:
    log = GOOD.forked(0)
    log.root = lambda size: bytes(32)  # type: ignore[method-assign]
    assert refused(witness, log.submission(0)).status == 422


def test_signatures_of_strangers_are_passed_over_even_with_a_known_name_or_id(witness: Witness) -> None:
    note, (line,) = GOOD.checkpoint(), GOOD.checkpoint().signatures
    others = [line._replace(key_id=b"abcd"), line._replace(name="somebody.example"), Signature("x", b"wxyz", b"?")]
    submit(witness, write_submission(0, [], note.with_signatures(others)))


def test_one_line_that_does_not_hold_spoils_the_others(witness: Witness) -> None:
    note, (line,) = GOOD.checkpoint(), GOOD.checkpoint().signatures
    both = note.with_signatures([line._replace(signature=bytes(64))])
    assert refused(witness, write_submission(0, [], both)).status == 403


# ── Whose log it is ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_ledger_goes_on_with_the_key_that_followed_and_never_another_ledger(witness: Witness) -> None:
    log = log_of().grow(3)
    submit(witness, log.submission(0))
    log.grow(2).signer = OTHER
    assert refused(witness, log.submission(3)).status == 403
    log.signer = SUCCESSOR
    submit(witness, log.submission(3))
    # From there on, the old one may be a thief's.
    log.grow(2).signer = LEDGER
    assert refused(witness, log.submission(5)).status == 403
    log.signer = SUCCESSOR
    submit(witness, log.submission(5))


def test_keys_of_one_log_follow_in_no_order(tmp_path: Path) -> None:
    trusted = Trusted.parse(ledgers=[], logs=[str(NoteKey(PLAIN, key.public_key)) for key in (LEDGER, SUCCESSOR)])
    with closing(Witness(Records.open(tmp_path / FILE), trusted, name=NAME, signer=SIGNER)) as witness:
        log = log_of(PLAIN)
        for old, signer in enumerate((SUCCESSOR, LEDGER, SUCCESSOR)):
            log.grow(1).signer = signer
            submit(witness, log.submission(old))
        log.grow(1).signer = OTHER
        assert refused(witness, log.submission(3)).status == 403


def test_another_ledger_can_not_have_its_own_tree_cosigned_for_an_origin(witness: Witness) -> None:
    submit(witness, GOOD.submission(0))
    squatting = GrowingLog(COMMONS, OTHER, FORK.leaves)
    assert refused(witness, squatting.submission(0)).status == 403
    assert witness.list_conflicts(hash_of_origin(COMMONS)) == []


# ── Evidence ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (FORK.submission(9, 9), "fork"),
        (FORK.submission(5, 9), "fork"),
        (FORK.forked(9).grow(4).submission(9, 13), "fork"),
        (write_submission(9, [bytes(32)] * 4, NEWER.checkpoint()), "unproven"),
        (write_submission(9, [], NEWER.checkpoint()), "unproven"),
        (NEWER.submission(8, 13), None),
        (FORK.submission(5, 7), None),
        (GOOD.submission(2, 9), None),
        (write_submission(9, [bytes(32)], GOOD.checkpoint()), None),
        (BY_STRANGER.submission(9, 13), None),
    ],
)
def test_what_tells_of_a_fork_is_kept_with_what_it_contradicts(witness: Witness, body: bytes, kind: str | None) -> None:
    submit(witness, GOOD.submission(0))
    cosigned = witness.load_note(hash_of_origin(COMMONS))
    for _ in range(3):
        refused(witness, body)
    kept = witness.list_conflicts(hash_of_origin(COMMONS))
    assert [one.kind for one in kept] == ([kind] if kind else [])
    for one in kept:
        assert one.cosigned == cosigned
        assert (
            write_submission(one.old, [one.proof[n : n + 32] for n in range(0, len(one.proof), 32)], one.note) == body
        )
        read_note(one.note).verify(NoteKey(COMMONS, LEDGER.public_key))
    assert witness.count() == (1, 1 if kind == "fork" else 0)


def test_evidence_is_bounded_and_no_stranger_pushes_forks_out(witness: Witness) -> None:
    submit(witness, GOOD.submission(0))
    forks = [GOOD.forked(5).grow(4, salt=str(n)) for n in range(CONFLICTS_MAX + 4)]
    for fork in forks:
        refused(witness, fork.submission(9, 9))
    later = [GOOD.forked(9).grow(n + 1) for n in range(CONFLICTS_MAX + 4)]
    for log in later:
        refused(witness, write_submission(9, [bytes(32)] * 7, log.checkpoint()))
    kept = witness.list_conflicts(hash_of_origin(COMMONS))
    assert [one.note for one in kept if one.kind == "fork"] == [str(one.checkpoint()) for one in forks[:CONFLICTS_MAX]]
    assert [one.note for one in kept if one.kind == "unproven"] == [str(one.checkpoint()) for one in later[4:]]


# ── Whatever comes ───────────────────────────────────────────────────────────────────────────────────────────────

STEP = st.tuples(st.integers(0, 2), st.integers(0, 40), st.integers(0, 40), st.booleans())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(forks=st.tuples(st.integers(0, 40), st.integers(0, 40)), steps=st.lists(STEP, max_size=12), again=st.data())
def test_two_cosigned_checkpoints_are_always_consistent(
    tmp_path_factory: pytest.TempPathFactory, forks: tuple[int, int], steps: list[Any], again: st.DataObject
) -> None:
    """Submissions of three logs that fork anywhere, in any order, by right and wrong old sizes, over restarts."""
    folder = tmp_path_factory.mktemp("witness")
    whole = log_of().grow(40)
    logs = [whole, *(whole.forked(at).grow(40 - at, salt=str(n)) for n, at in enumerate(forks))]
    cosigned: list[tuple[int, bytes, GrowingLog]] = []
    witness, latest = make(folder), 0
    for which, old, size, honest in steps:
        log, old = logs[which], latest if honest else old
        try:
            submit(witness, log.submission(old, size))
        except Rejected:
            assert not (old == latest <= size and all(earlier is log for _, _, earlier in cosigned))
        else:
            cosigned.append((size, log.root(size), log))
            latest = size
        if again.draw(st.booleans()):
            witness.close()
            witness = make(folder)
    witness.close()
    assert [one[0] for one in cosigned] == sorted(one[0] for one in cosigned)
    for n, (old, root, _) in enumerate(cosigned):
        for size, later, log in cosigned[n:]:
            check_consistency(old=old, old_root=root, new=size, new_root=later, proof=log.prove(old, size))


def test_who_judges_has_seen_what_another_process_was_just_storing(witness: Witness, tmp_path: Path) -> None:
    with closing(Records.open(tmp_path / FILE)) as other, ThreadPoolExecutor(1) as thread:
        with other.transaction():
            answer = thread.submit(refused, witness, FORK.submission(0, 9))
            # Long enough for it to come as far as it can; however long that takes, it must not be cosigned.
            time.sleep(0.5)
            other.store(COMMONS, Latest(9, GOOD.root(9), LEDGER.public_key, str(GOOD.checkpoint())))
        assert answer.result(60).status == 409


# ── Its memory ───────────────────────────────────────────────────────────────────────────────────────────────────


def opened(folder: Path, *, name: str = NAME, key: str = "witness.key") -> Witness:
    return open_witness(folder, name=name, key_file=folder / key, passphrase=None, trusted=TRUSTED)


def test_it_remembers_over_a_restart(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as first:
        submit(first, GOOD.submission(0))
    with closing(opened(tmp_path)) as second:
        assert second.key == first.key
        assert refused(second, FORK.submission(0, 9)).size == 9
        submit(second, NEWER.submission(9, 13))


def test_a_key_whose_memory_is_gone_is_not_taken_up(tmp_path: Path) -> None:
    opened(tmp_path).close()
    for file in tmp_path.glob(f"{FILE}*"):
        file.unlink()
    with pytest.raises(RecordsFault, match="A witness that forgot could cosign a fork"):
        opened(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_a_memory_without_its_key_gets_no_other(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "witness.key").unlink()
    with pytest.raises(RecordsFault, match=r"its key .* is not there"):
        opened(tmp_path)
    assert not (tmp_path / "witness.key").exists()


def test_a_memory_belongs_to_one_name_and_one_key(tmp_path: Path) -> None:
    opened(tmp_path).close()
    load_or_make_key(tmp_path / "other.key", passphrase=None)
    for other in ({"name": "witness.example/w2"}, {"key": "other.key"}):
        with pytest.raises(RecordsFault, match="with another key or name"):
            opened(tmp_path, **other)


def test_a_memory_that_was_emptied_is_refused_while_its_key_is_there(tmp_path: Path) -> None:
    opened(tmp_path).close()
    for file in tmp_path.glob(f"{FILE}*"):
        file.write_bytes(b"")
    with pytest.raises(RecordsFault, match="remembers nothing"):
        opened(tmp_path)


def test_a_start_that_broke_off_before_there_was_a_key_is_made_good(tmp_path: Path) -> None:
    Records.open(tmp_path / FILE).close()
    with closing(opened(tmp_path)) as first:
        submit(first, GOOD.submission(0))
    with closing(opened(tmp_path)) as second:
        assert second.key == first.key


@pytest.mark.parametrize("content", [b"no database at all, but long enough for a header" * 9, b""])
def test_a_file_that_is_no_memory_is_refused_and_an_empty_one_filled(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    if content:
        with pytest.raises(RecordsFault, match="can't be opened"):
            opened(tmp_path)
    else:
        opened(tmp_path).close()


def test_a_memory_of_a_later_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(tmp_path).close()
    monkeypatch.setattr(records_module, "_VERSION", 2)
    with pytest.raises(RecordsFault, match="of version 1"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("ledgers", "logs"),
    [(["z6Mk"], []), (["did:key:z6Mk"], []), ([], ["log+1+x"]), ([], [str(NoteKey("w", bytes(32), 4))])],
)
def test_what_names_no_log_is_refused(ledgers: list[str], logs: list[str]) -> None:
    with pytest.raises(ValueError):
        Trusted.parse(ledgers=ledgers, logs=logs)
