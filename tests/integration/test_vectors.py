"""The vector files: they are what the generator makes, and they hold when read as a foreign client reads them.

Owns the reading of `protocol/vectors/*.json` from their JSON alone, and the second opinions on them: hashlib,
another Ed25519 library, the law of demurrage said plainly, the plain ledger. `ed25519.json` has its own tests.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gesell_ledger.core.books import Books
from gesell_ledger.core.decide import Accepted, Replay, Submission, decide
from gesell_protocol import amounts, canonical, names
from gesell_protocol.demurrage import Holding, melt, melt_by_the_letter, receive
from gesell_protocol.envelopes import Envelope, Memo, read_envelope, verify_envelope
from gesell_protocol.policy import Policy, Timeline
from gesell_protocol.receipts import check_receipt
from gesell_protocol.refusals import Refusal, Rejected
from gesell_protocol.statements import TYPES, Statement, read_statement, write_body
from tests import plain_model
from vectors import generate, value_cases

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
FILES = (
    "amounts",
    "canonical",
    "demurrage",
    "giving",
    "histories",
    "logfile",
    "names",
    "notes",
    "proofs",
    "statements",
    "tree",
)
Case = dict[str, Any]


def _value(notation: Any) -> Any:
    """Read a value out of the notation of README.md; not the generator's reader, which might share its faults."""
    if isinstance(notation, list):
        return [_value(item) for item in notation]
    if not isinstance(notation, dict):
        return notation
    assert len(notation) == 1, notation
    if "bin" in notation:
        return bytes.fromhex(notation["bin"])
    if "map" in notation:
        return {key: _value(item) for key, item in notation["map"]}
    return int(notation["int"])


def _cases(file: str) -> list[Case]:
    read: dict[str, Any] = json.loads((VECTORS / f"{file}.json").read_text(encoding="ascii"))
    cases: list[Case] = read["cases"]
    return cases


def _each(file: str, *kinds: str) -> pytest.MarkDecorator:
    """Run a test for each case of a file, of these kinds if the file has kinds."""
    cases = [case for case in _cases(file) if not kinds or case["kind"] in kinds]
    assert cases
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


# --- the files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", generate.FILES)
def test_the_file_is_what_the_generator_makes(name: str) -> None:
    assert (VECTORS / name).read_bytes() == generate.contents(name), "run make vectors, and look at the difference"


def test_no_vector_file_is_without_a_generator() -> None:
    assert {path.name for path in VECTORS.glob("*.json")} == set(generate.FILES)


@pytest.mark.parametrize("file", FILES)
def test_each_file_says_what_it_is_about_and_names_each_case_once(file: str) -> None:
    data = (VECTORS / f"{file}.json").read_bytes()
    read = json.loads(data)
    assert list(read) == ["about", "spec", "cases"]
    assert read["about"].endswith(".")
    assert read["spec"].startswith("§")
    assert data.endswith(b"}\n")
    assert len(data) < 400_000
    assert max(Counter(case["name"] for case in read["cases"]).values()) == 1


def test_checking_writes_nothing_and_names_what_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = {"amounts.json": value_cases.amounts_json, "names.json": value_cases.names_json}
    monkeypatch.setattr(generate, "FILES", made)
    monkeypatch.setattr(generate, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0
    (tmp_path / "names.json").write_text("{}")
    assert generate.main() == 1
    assert (tmp_path / "names.json").read_text() == "{}"
    err = capsys.readouterr().err
    assert "names.json" in err
    assert "amounts.json" not in err


def test_the_generator_runs_as_a_script() -> None:
    asked = [sys.executable, str(VECTORS / "generate.py"), "--help"]
    assert "--check" in subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout


# --- canonical.json ---------------------------------------------------------------------------------------


@_each("canonical", "valid")
def test_a_value_has_the_encoding_that_stands_beside_it(case: Case) -> None:
    value, data = _value(case["value"]), bytes.fromhex(case["hex"])
    assert canonical.pack(value) == data
    back = canonical.unpack(data)
    assert back == value
    assert repr(back) == repr(value), "True is not 1"


@_each("canonical", "refused")
def test_a_form_that_is_not_canonical_is_refused(case: Case) -> None:
    with pytest.raises(Rejected) as rejected:
        canonical.unpack(bytes.fromhex(case["hex"]))
    assert rejected.value.refusal.code == case["code"], case["why"]


@_each("canonical", "formless")
def test_a_value_without_a_canonical_form_is_not_encoded(case: Case) -> None:
    with pytest.raises(Rejected) as rejected:
        canonical.pack(_value(case["value"]))
    assert rejected.value.refusal.code == case["code"], case["why"]


def test_every_first_byte_of_messagepack_is_shown() -> None:
    shown = {int(case["hex"][:2], 16) for case in _cases("canonical") if case.get("hex")}
    assert set(range(0xC0, 0xE0)) <= shown


# --- names.json, amounts.json -----------------------------------------------------------------------------


@_each("names", "peer")
def test_a_peer_is_written_as_its_did_and_read_back(case: Case) -> None:
    key = bytes.fromhex(case["key"])
    assert names.did_of(key) == case["did"]
    assert names.peer_of(case["did"]) == key


@_each("names", "commons")
def test_a_commons_is_named_by_the_hash_of_its_founding(case: Case) -> None:
    body = bytes.fromhex(case["found_body"])
    assert names.commons_of(body).hex() == case["commons"]
    assert hashlib.sha256(b"gesell/commons/1\n" + body).hexdigest()[:32] == case["commons"]


@_each("names", "id")
def test_an_id_is_a_uuid_of_version_7(case: Case) -> None:
    made = names.uuid7(case["time_ms"], bytes.fromhex(case["randomness"]))
    assert made.hex() == case["id"]
    assert names.is_uuid7(made)
    assert names.time_of_id(made) == case["time_ms"]
    assert (names.id_text(made), names.id_of(case["text"])) == (case["text"], made)
    standard = uuid.UUID(case["text"])
    assert (standard.version, standard.variant, standard.bytes) == (7, uuid.RFC_4122, made)


@_each("names", "base64url")
def test_base64url_is_written_and_read_without_padding(case: Case) -> None:
    assert names.base64url(bytes.fromhex(case["hex"])) == case["text"]
    assert names.unbase64url(case["text"]).hex() == case["hex"]


@_each("names", "peer refused", "id refused", "id text refused", "base64url refused")
def test_a_text_that_is_no_name_is_refused(case: Case) -> None:
    if case["kind"] == "id refused":
        assert not names.is_uuid7(bytes.fromhex(case["id"])), case["why"]
        return
    readers: dict[str, tuple[Callable[[str], bytes], str]] = {
        "peer refused": (names.peer_of, "did"),
        "id text refused": (names.id_of, "text"),
        "base64url refused": (names.unbase64url, "text"),
    }
    read, field = readers[case["kind"]]
    with pytest.raises(ValueError):
        read(case[field])


@_each("names", "handle", "currency code", "category", "gift kind", "unit")
def test_a_word_is_taken_or_not(case: Case) -> None:
    if case["kind"] == "handle":
        taken = names.is_handle(case["text"])
    else:
        forms = {
            "currency code": names.CURRENCY,
            "category": names.CATEGORY,
            "gift kind": names.KIND,
            "unit": names.UNIT,
        }
        taken = forms[case["kind"]].fullmatch(case["text"]) is not None
    assert taken is case["valid"]


@_each("amounts", "exact", "read only")
def test_an_amount_has_the_grains_that_stand_beside_it(case: Case) -> None:
    grains = _value(case["grains"])
    assert amounts.parse_amount(case["text"], scale=case["scale"]) == grains
    if case["kind"] == "exact":
        assert amounts.format_amount(grains, scale=case["scale"]) == case["text"]


@_each("amounts", "refused")
def test_a_text_that_is_no_amount_is_refused(case: Case) -> None:
    with pytest.raises(ValueError):
        amounts.parse_amount(case["text"], scale=case["scale"])


# --- statements.json --------------------------------------------------------------------------------------


def _open(packed: str) -> tuple[Envelope, Statement]:
    """Do what a ledger does before it looks at the books; raises Rejected."""
    envelope = read_envelope(canonical.unpack(bytes.fromhex(packed)))
    statement = read_statement(envelope)
    verify_envelope(envelope)
    return envelope, statement


@_each("statements", "taken")
def test_a_statement_has_the_body_that_stands_beside_it(case: Case) -> None:
    fields, body = _value(case["fields"]), bytes.fromhex(case["body"])
    assert canonical.unpack(body) == fields
    assert write_body(fields) == body
    envelope, statement = _open(case["envelope"])
    assert envelope.body == body
    assert (statement.type, statement.by, statement.id) == (case["type"], fields["by"], fields["id"])
    if case["type"] == "found":
        assert hashlib.sha256(b"gesell/commons/1\n" + body).hexdigest()[:32] == case["commons"]
        assert statement.commons.hex() == case["commons"]


@_each("statements", "taken")
def test_a_statement_is_signed_as_another_library_signs_it(case: Case) -> None:
    signed = bytes.fromhex(case["signed"])
    assert signed == b"gesell/statement/1\n" + bytes.fromhex(case["body"])
    pairs = []
    for one in case["signatures"]:
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(one["seed"]))
        assert private.public_key().public_bytes_raw().hex() == one["key"]
        assert private.sign(signed).hex() == one["signature"]
        pairs.append((bytes.fromhex(one["key"]), bytes.fromhex(one["signature"])))
    assert pairs == sorted(pairs)
    memo = case.get("memo")
    beside = Memo(bytes.fromhex(memo["salt"]), memo["text"]) if memo else None
    envelope = Envelope(bytes.fromhex(case["body"]), tuple(pairs), beside)
    assert canonical.pack(envelope.wire()).hex() == case["envelope"]


@pytest.mark.parametrize(
    "case", [case for case in _cases("statements") if "memo" in case], ids=lambda case: case["name"]
)
def test_a_memo_is_sealed_by_its_salt(case: Case) -> None:
    memo = case["memo"]
    salt, text = bytes.fromhex(memo["salt"]), memo["text"]
    seal = hashlib.sha256(b"gesell/memo/1\n" + salt + text.encode()).hexdigest()
    assert seal == memo["seal"] == _value(case["fields"])["memo"].hex()
    assert _open(case["envelope"])[0].memo == Memo(salt, text)


@_each("statements", "refused")
def test_an_envelope_is_refused_with_its_code_before_any_book_is_seen(case: Case) -> None:
    with pytest.raises(Rejected) as rejected:
        _open(case["envelope"])
    assert rejected.value.refusal.code == case["code"], case["why"]


def test_every_type_of_statement_is_shown() -> None:
    assert {case["type"] for case in _cases("statements") if case["kind"] == "taken"} == set(TYPES)


# --- demurrage.json ---------------------------------------------------------------------------------------


class Reading(NamedTuple):
    melted: int
    balance: int
    next_fee: int


def _readings(case: Case) -> list[Reading]:
    return [Reading(*(_value(step[name]) for name in Reading._fields)) for step in case["steps"]]


def _adds(step: Case) -> tuple[int, int, int]:
    adds = {name: _value(amount) for name, amount in step["adds"].items()}
    return adds.get("balance", 0), adds.get("escrow", 0), adds.get("inflow", 0)


def _timeline(case: Case) -> Timeline:
    rest = {"tick_seconds": 3600, "melt_to": "pool", "admission": "open", "credit_limit": 0, "vouch_min": 1}
    return Timeline.of(
        (
            one["from_tick"],
            Policy(
                rest_ticks=one["rest_ticks"],
                brackets=tuple((start, ppb) for start, ppb in _value(one["brackets"])),
                visibility="open",
                notice_ticks=0,
                **rest,  # type: ignore[arg-type]
            ),
        )
        for one in case["policies"]
    )


@pytest.mark.parametrize("law", [melt, melt_by_the_letter])
@_each("demurrage")
def test_the_law_of_demurrage_gives_the_numbers_of_the_vector(case: Case, law: Any) -> None:
    timeline = _timeline(case)
    holding, found = Holding(tick=case["steps"][0]["tick"]), []
    for step in case["steps"]:
        balance, escrow, inflow = _adds(step)
        then: Holding = law(holding, timeline, step["tick"])
        after = receive(then, inflow, timeline) if inflow else then
        after = Holding(then.balance + balance, then.escrow + escrow, after.tick, after.inflows)
        fee = after.balance - law(after, timeline, step["tick"] + 1).balance
        found.append(Reading(holding.balance - then.balance, after.balance, fee))
        holding = after
    assert found == _readings(case)


@_each("demurrage")
def test_the_plain_law_gives_the_numbers_of_the_vector(case: Case) -> None:
    account, tick, start = plain_model.PlainAccount(), 0, 0

    def policy(k: int) -> Case:
        announced: list[Case] = case["policies"]
        # Of the policies with from_tick <= k the one with the greatest from_tick; of equals the latest (§5.1).
        return max(enumerate(p for p in announced if p["from_tick"] <= k), key=lambda p: (p[1]["from_tick"], p[0]))[1]

    def end_tick(one: plain_model.PlainAccount, k: int, before: int) -> int:
        window = plain_model.next_window_start(before, k, policy(k)["rest_ticks"])
        one.end_tick(k, window_start=window, brackets=_value(policy(k)["brackets"]))
        return window

    found = []
    for step in case["steps"]:
        due = account.due
        while tick < step["tick"]:
            start = end_tick(account, tick, start)
            tick += 1
        balance, escrow, inflow = _adds(step)
        melted = account.due - due
        account.posted += balance
        account.escrowed += escrow
        account.inflows[tick] = account.inflows.get(tick, 0) + inflow
        ahead = account.copy()
        end_tick(ahead, tick, start)
        found.append(Reading(melted, account.balance, ahead.due - account.due))
    assert found == _readings(case)


# --- histories.json, giving.json --------------------------------------------------------------------------


def _fields_of(refusal: Case) -> dict[str, int]:
    return {name: _value(amount) for name, amount in refusal.items() if name not in ("status", "code")}


def _each_history() -> pytest.MarkDecorator:
    cases = [*_cases("histories"), *_cases("giving")]
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


@_each_history()
def test_the_core_gives_the_history_of_the_vector(case: Case) -> None:
    books: dict[bytes, Books] = {}
    for step in case["steps"]:
        expected, says = step["outcome"], step["says"]
        envelope, statement = _open(step["envelope"])
        here = books.get(statement.commons, Books())
        ledger = bytes.fromhex(case["ledger"])
        outcome = decide(here, Submission(envelope, statement), now_ms=step["clock_ms"], ledger=ledger)
        if isinstance(outcome, Refusal):
            assert (outcome.code, dict(outcome.fields)) == (expected.get("code"), _fields_of(expected)), says
            continue
        entry = outcome.entry
        assert (entry.seq, entry.leaf.hex()) == (expected["seq"], expected["leaf"]), says
        if isinstance(outcome, Replay):
            assert expected["status"] == "replayed", says
            continue
        assert isinstance(outcome, Accepted)
        here.apply(outcome.decision, entry)
        books[statement.commons] = here
        assert here.commons is not None
        receipt = entry.receipt(here.commons.tick_of(entry.at_ms))
        assert (receipt.at_ms, receipt.tick) == (expected["at"], expected["tick"]), says
        assert [list(posting) for posting in receipt.postings] == _value(expected["postings"]), says
        check_receipt(receipt, envelope=envelope, statement=statement, currency="WRG")
    assert set(books) == {bytes.fromhex(case["commons"])}
    _assert_core_ends_so(books[bytes.fromhex(case["commons"])], case["end"])


def _assert_core_ends_so(books: Books, end: Case) -> None:
    assert books.commons is not None
    assert {member["peer"] for member in end["members"]} == {peer.hex() for peer in books.members}
    for expected in end["members"]:
        peer = bytes.fromhex(expected["peer"])
        member, account = books.members[peer], books.account(peer, "WRG")
        assert (member.handle, member.status) == (expected["handle"], expected["status"])
        assert account.balance == _value(expected["posted"])
        assert melt(account, books.commons.timeline, end["tick"]).balance == _value(expected["balance"])
    for holder in ("pool", "issuer", "escrow"):
        assert books.account(holder, "WRG").balance == _value(end[holder])
    gifts = {name: held.balance for name, held in books.accounts.items() if name[1] != "WRG"}
    assert gifts == _gifts_of(end)
    assert books.vouches == _vouches_of(end)


def _gifts_of(end: Case) -> dict[tuple[bytes | str, str], int]:
    return {(_value(one["holder"]), one["kind"]): _value(one["balance"]) for one in end["gifts"]}


def _vouches_of(end: Case) -> dict[tuple[bytes, bytes], int]:
    return {(bytes.fromhex(one["by"]), bytes.fromhex(one["for"])): _value(one["limit"]) for one in end["vouches"]}


@_each_history()
def test_the_plain_ledger_gives_the_history_of_the_vector(case: Case) -> None:
    ledger = plain_model.PlainLedger(bytes.fromhex(case["ledger"]))
    for step in case["steps"]:
        expected, says = step["outcome"], step["says"]
        body, signatures, *_ = msgpack.unpackb(bytes.fromhex(step["envelope"]))
        signers = {key for key, _ in signatures}
        answer = ledger.submit(msgpack.unpackb(body), signers, step["clock_ms"], body_bytes=body)
        if isinstance(answer, plain_model.Refused):
            named = {"available": answer.available, "needed": answer.needed, "limit": answer.limit}
            fields = {name: amount for name, amount in named.items() if amount is not None}
            assert (answer.code, fields) == (expected.get("code"), _fields_of(expected)), says
            continue
        assert answer.replayed is (expected["status"] == "replayed"), says
        assert answer.seq == expected["seq"], says
        if not answer.replayed:
            assert answer.at == expected["at"], says
            assert answer.postings == _value(expected["postings"]), says
    books, end = ledger.commons[bytes.fromhex(case["commons"])], case["end"]
    assert books.tick(end["clock_ms"]) == end["tick"]
    for expected in end["members"]:
        peer = bytes.fromhex(expected["peer"])
        assert (books.handle(peer), books.status(peer)) == (expected["handle"], expected["status"])
        assert books.posted(peer) == _value(expected["posted"])
        assert books.balance(peer, end["clock_ms"]) == _value(expected["balance"])
    assert all(books.posted(holder) == _value(end[holder]) for holder in ("pool", "issuer", "escrow"))
    assert (books.given, books.vouches) == (_gifts_of(end), _vouches_of(end))


@_each_history()
def test_leaves_and_sums_of_a_history_hold_by_msgpack_and_hashlib_alone(case: Case) -> None:
    """Whoever holds the entries can check them with the tools of any language (§6)."""
    posted: Counter[tuple[bytes | str, str]] = Counter()
    entries = [step for step in case["steps"] if step["outcome"]["status"] == "accepted"]
    for number, step in enumerate(entries, 1):
        outcome, leaf_data = step["outcome"], bytes.fromhex(step["outcome"]["leaf_data"])
        assert hashlib.sha256(b"\x00" + leaf_data).hexdigest() == outcome["leaf"]
        assert len(leaf_data) <= 65_535
        postings = _value(outcome["postings"])
        body, signatures, *_ = msgpack.unpackb(bytes.fromhex(step["envelope"]))
        assert msgpack.unpackb(leaf_data) == [number, outcome["at"], [body, signatures], postings]
        assert canonical.pack(canonical.unpack(leaf_data)) == leaf_data
        for asset in {posting[2] for posting in postings}:
            assert sum(amount for _, _, of, amount in postings if of == asset) == 0
        for reason, holder, asset, amount in postings:
            assert (asset != "WRG") == (reason == "gift")
            posted[holder, asset] += amount
    ends: dict[tuple[bytes | str, str], int] = {
        (bytes.fromhex(member["peer"]), "WRG"): _value(member["posted"]) for member in case["end"]["members"]
    }
    ends |= {(holder, "WRG"): _value(case["end"][holder]) for holder in ("pool", "issuer", "escrow")}
    ends |= _gifts_of(case["end"])
    assert {name: amount for name, amount in posted.items() if amount} == {
        name: amount for name, amount in ends.items() if amount
    }


def test_the_histories_show_every_type_of_statement_accepted() -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for case in (*_cases("histories"), *_cases("giving")):
        for step in case["steps"]:
            body = msgpack.unpackb(msgpack.unpackb(bytes.fromhex(step["envelope"]))[0])
            seen[body["type"], step["outcome"]["status"]] += 1
    assert {kind for kind, status in seen if status == "accepted"} == set(TYPES)
