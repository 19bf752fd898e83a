"""Statements that several sign in turns: their file, what is checked before signing, and what a signer is told."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from wire_ledger import BOB, STEWARD, WireLedger, founding

from gesell import (
    BadSignature,
    Client,
    Envelope,
    Expired,
    Malformed,
    Peer,
    StatementFileError,
    default_policy,
    load_statement,
    save_statement,
)
from gesell.answers import HOUR
from gesell.gifts import Gift
from gesell.joint import FILE_MAX_BYTES, check, cosign
from gesell.wording import describe
from gesell_protocol.envelopes import STATEMENT_PREFIX, Memo, verify_envelope
from gesell_protocol.names import did_of, id_text, uuid7
from gesell_protocol.statements import LEDGER_TYPES, TYPES, Found, read_statement, write_body

ADA, EVE = Peer(b"\x01" * 32), Peer(b"\x05" * 32)
NOW_MS = 1_800_000_000_000
COMMONS = bytes(range(16))


def drafted(by: Peer = ADA, **fields: Any) -> Envelope:
    """A statement signed by one."""
    everywhere = {"by": by.key, "id": uuid7(NOW_MS, bytes(10)), "expires": NOW_MS + 3_600_000}
    body = write_body({"commons": COMMONS, **everywhere, **fields})
    return Envelope(body, ((by.key, by.sign(STATEMENT_PREFIX + body)),))


ISSUE: dict[str, Any] = {"type": "issue", "to": BOB.key, "amount": 1_250_000}


def test_another_signature_is_added_in_order_and_once() -> None:
    signed = cosign(cosign(drafted(**ISSUE), EVE, now_ms=NOW_MS), BOB, now_ms=NOW_MS)
    assert signed.signers == tuple(sorted([ADA.key, BOB.key, EVE.key]))
    verify_envelope(signed)
    assert cosign(signed, EVE, now_ms=NOW_MS) == signed


def test_what_has_expired_is_not_signed() -> None:
    envelope = drafted(**ISSUE)
    cosign(envelope, EVE, now_ms=NOW_MS + 3_600_000)
    with pytest.raises(Expired, match="nothing was sent"):
        cosign(envelope, EVE, now_ms=NOW_MS + 3_600_001)


def test_what_no_ledger_would_take_is_not_signed() -> None:
    with pytest.raises(Malformed):
        cosign(drafted(**{**ISSUE, "amount": 0}), EVE, now_ms=NOW_MS)
    envelope = drafted(**ISSUE)
    other = envelope._replace(signatures=((ADA.key, bytes(64)),))
    with pytest.raises(BadSignature):
        cosign(other, EVE, now_ms=NOW_MS)
    full = envelope
    for number in range(15):
        full = cosign(full, Peer(bytes([100 + number]) * 32), now_ms=NOW_MS)
    with pytest.raises(Malformed, match="16 signatures"):
        cosign(full, EVE, now_ms=NOW_MS)


async def test_a_client_signs_for_days_keeps_the_file_and_sends_what_others_have_cosigned(
    ledger: WireLedger, gesell: Client, tmp_path: Path
) -> None:
    path = tmp_path / "issue.json"
    fields = {"type": "issue", "to": "bob", "amount": "1.25", "memo": "for the roof"}
    draft = await gesell.sign(fields, lasts=timedelta(days=7))
    save_statement(draft, path)
    assert load_statement(path) == draft
    assert ledger.posts == []
    signed = await gesell.as_peer(EVE).cosign(load_statement(path), signers=[STEWARD])
    assert len(signed.signatures) == 3
    [result] = await gesell.submit([signed])
    assert result.receipt_or_raise().postings[-1].amount == 1_250_000
    told = await gesell.describe(signed)
    assert told.startswith(f"Issue 1.25 WRG of new money to bob ({BOB.did})")
    assert "'for the roof'" in told
    assert told.count("signed by") == 3


def test_the_file_has_the_form_of_the_protocol(tmp_path: Path) -> None:
    path = tmp_path / "issue.json"
    save_statement(drafted(**ISSUE), path)
    fields = json.loads(path.read_text())
    assert set(fields) == {"body", "signatures"}
    assert fields["signatures"][0]["key"] == ADA.did


def _cut(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def _swell(path: Path) -> None:
    path.write_text(path.read_text() + " " * FILE_MAX_BYTES)


def _list(path: Path) -> None:
    path.write_text("[]")


def _other_key(path: Path) -> None:
    path.write_text(path.read_text().replace(ADA.did, "did:key:zzz"))


def _gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("spoil", [_cut, _swell, _list, _other_key, _gone])
def test_a_file_that_is_none_is_told_so(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    path = tmp_path / "issue.json"
    save_statement(drafted(**ISSUE), path)
    spoil(path)
    with pytest.raises(StatementFileError):
        load_statement(path)


def test_a_file_whose_statement_was_changed_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "issue.json"
    signatures = drafted(**ISSUE).signatures
    save_statement(
        drafted(
            **{**ISSUE, "amount": 9},
        )._replace(signatures=signatures),
        path,
    )
    with pytest.raises(BadSignature):
        load_statement(path)


def test_a_file_that_can_not_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    with pytest.raises(StatementFileError):
        save_statement(drafted(**ISSUE), tmp_path / "nowhere" / "issue.json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_holds_anything_else_is_never_touched(tmp_path: Path) -> None:
    path = tmp_path / "bob.key"
    BOB.save(path, passphrase=None)
    key = path.read_bytes()
    with pytest.raises(StatementFileError, match="no statement file"):
        save_statement(drafted(**ISSUE), path)
    assert path.read_bytes() == key
    other = tmp_path / "other.json"
    save_statement(drafted(**ISSUE), other)
    there = other.read_bytes()
    with pytest.raises(StatementFileError, match="another statement"):
        save_statement(drafted(**{**ISSUE, "amount": 9}), other)
    assert other.read_bytes() == there
    (tmp_path / "nothing").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StatementFileError):
        save_statement(drafted(**ISSUE), tmp_path / "nothing")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bob.key", "nothing", "other.json"]


def test_those_who_sign_at_the_same_time_all_stand_in_the_file(tmp_path: Path) -> None:
    path, draft = tmp_path / "issue.json", drafted(**ISSUE)
    save_statement(draft, path)
    signers = [Peer(bytes([100 + number]) * 32) for number in range(10)]
    with ThreadPoolExecutor(10) as threads:
        # Each has read the draft as it was when nobody else had signed.
        list(threads.map(lambda peer: save_statement(cosign(draft, peer, now_ms=NOW_MS), path), signers))
    assert set(load_statement(path).signers) == {ADA.key, *(peer.key for peer in signers)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_replacement_that_fails_leaves_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, draft = tmp_path / "issue.json", drafted(**ISSUE)
    save_statement(draft, path)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StatementFileError, match="No space"):
        save_statement(cosign(draft, EVE, now_ms=NOW_MS), path)
    assert load_statement(path) == draft
    assert list(tmp_path.iterdir()) == [path]


# ── In plain words ───────────────────────────────────────────────────────────────────────────────────────────────

POLICY = default_policy(scale=6)
GIFT = uuid7(5, bytes(10))
SAID: list[tuple[dict[str, Any], list[str]]] = [
    (ISSUE, ["Issue 1.25 WRG", BOB.did]),
    ({"type": "retire", "amount": 5_000_000, "balancing": True}, ["Retire all there is, but at most 5 WRG"]),
    (
        {"type": "pay", "legs": [[BOB.key, 1], [EVE.key, 2_000_000]], "category": "lift", "ref": bytes(15) + b"\x07"},
        ["Pay 2.000001 WRG to 2", f"{BOB.did}: 0.000001 WRG", f"({EVE.did}): 2 WRG", "lift", "-000000000007"],
    ),
    ({"type": "pay", "legs": [[BOB.key, 7]], "balancing": True}, ["Pay all there is, but at most 0.000007 WRG"]),
    ({"type": "grant", "legs": [[BOB.key, 1_000_000]]}, ["Grant from the pool 1 WRG", BOB.did]),
    ({"type": "share", "amount": 3_000_000}, ["Share 3 WRG of the pool"]),
    (
        {"type": "hold", "to": EVE.key, "amount": 5_000_000, "until": 1_900_000_000_000, "category": "deposit"},
        ["Hold 5 WRG for eve", EVE.did, "2030-03-17 17:46:40 UTC", "deposit"],
    ),
    ({"type": "capture", "hold": uuid7(5, bytes(10)), "amount": 0}, ["Capture 0 WRG of hold 00000000-0005-7000"]),
    ({"type": "void", "hold": uuid7(5, bytes(10))}, ["Void hold 00000000-0005-7000-8000-000000000000"]),
    (
        {"type": "kind", "code": "bread", "name": "Loaves", "unit": "1", "scale": 0},
        ['Make the kind of gift bread, "Loaves", counted in pieces (unit 1) with 0 decimals'],
    ),
    (
        {
            "type": "gift",
            "to": EVE.key,
            "kind": "hour",
            "quantity": 150,
            "after": [uuid7(5, bytes(10))],
            "category": "lift",
        },
        ["Give 1.5 h (hour) to eve", EVE.did, "lift", "moved by    gift 00000000-0005-7000-8000-000000000000"],
    ),
    (
        {"type": "gift", "to": "pool", "kind": "wood", "quantity": 7},
        ["Give 7 grains of wood to the pool, for the whole"],
    ),
    ({"type": "thank", "gift": GIFT}, ["Thank for gift 00000000-0005-7000-8000-000000000000"]),
    ({"type": "decline", "gift": GIFT}, ["Decline gift 00000000-0005-7000-8000-000000000000"]),
    ({"type": "withdraw", "gift": GIFT}, ["Withdraw the offer of gift 00000000-0005-7000-8000"]),
    ({"type": "vouch", "for": EVE.key, "limit": 2_000_000}, ["Vouch for eve", EVE.did, "with 2 WRG of one's own"]),
    ({"type": "vouch", "for": EVE.key, "limit": 0}, ["Take back all that one vouches for eve", EVE.did]),
    ({"type": "writeoff", "peer": EVE.key}, ["Write off what eve", EVE.did, "those who vouched", "is suspended"]),
    ({"type": "admit", "peer": EVE.key}, ["Admit eve", EVE.did]),
    ({"type": "suspend", "peer": BOB.key}, ["Suspend", BOB.did]),
    ({"type": "join", "handle": "ada"}, ["Join the commons as ada"]),
    ({"type": "leave"}, ["Leave"]),
    ({"type": "keys", "add": [BOB.key], "revoke": [EVE.key]}, [f"add         {BOB.did}", f"revoke      {EVE.did}"]),
    ({"type": "stewards", "stewards": sorted([BOB.key, EVE.key]), "threshold": 2}, ["2 of these 2", BOB.did, EVE.did]),
    ({"type": "erase", "statement": uuid7(5, bytes(10))}, ["Erase the memo", "00000000-0005-7000-8000-000000000000"]),
    (
        {"type": "policy", "policy": {**POLICY.fields(), "credit_limit": 7_000_000}, "from_tick": 4242},
        ["tick 4242", "673197 ppb", "86400 seconds", "steward", "credit limit    7 WRG", "open", "30 ticks", "pool"],
    ),
]


@pytest.mark.parametrize(("fields", "says"), SAID, ids=[fields["type"] for fields, _ in SAID])
def test_a_signer_is_told_all_that_is_signed(fields: dict[str, Any], says: list[str]) -> None:
    envelope = drafted(**fields)
    known = read_statement(founding(), min_tick_seconds=1)
    assert isinstance(known, Found)
    statement = check(envelope)
    told = describe(envelope, statement, founding=known, handles={EVE.key: "eve"}, now_ms=NOW_MS, kinds={"hour": HOUR})
    assert all(part in told for part in [*says, ADA.did, COMMONS.hex()]), told
    assert "expired" not in told


def test_a_signer_is_told_what_a_founding_fixes_and_whose_ledger_it_is_for() -> None:
    envelope = founding()
    statement = check(envelope)
    assert isinstance(statement, Found)
    told = describe(envelope, statement, founding=statement, handles={}, now_ms=NOW_MS)
    assert all(part in told for part in ["Test", "WRG, 6 decimals", did_of(statement.ledger), "1 of 1", STEWARD.did])
    assert "it has expired" in told


def test_every_type_that_peers_sign_has_its_words() -> None:
    assert {fields["type"] for fields, _ in SAID} | {"found"} == set(TYPES) - LEDGER_TYPES


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("thank", f"Thank for 1.5 h (hour) for lift from {BOB.did} to eve ({EVE.did}), gift 00000000-0005-7000-8000"),
        ("decline", f"Decline 1.5 h (hour) for lift from {BOB.did} to eve ({EVE.did}), gift 00000000-0005"),
        ("withdraw", f"Withdraw the offer of 1.5 h (hour) for lift from {BOB.did} to eve ({EVE.did}), gift 0000"),
    ],
)
def test_who_answers_a_gift_is_told_which(kind: str, says: str) -> None:
    gift = Gift(
        id=id_text(GIFT), seq=3, at_ms=5, giver=BOB.did, to=EVE.did, kind="hour", quantity=HOUR.amount(150),
        state="offered", settled_ms=None, category="lift", memo=None,
    )  # fmt: skip
    envelope = drafted(type=kind, gift=GIFT)
    statement = check(envelope)
    told = describe(envelope, statement, founding=None, handles={EVE.key: "eve"}, now_ms=NOW_MS, gift=gift)
    assert told.startswith(says), told


def test_amounts_are_told_in_grains_where_the_currency_is_not_known_and_a_memo_can_not_pass_for_a_line_of_ours() -> (
    None
):

    memo = Memo(bytes(16), "thanks\n  signed by  nobody")
    envelope = drafted(**ISSUE, memo=memo.seal())
    statement = check(envelope)
    told = describe(envelope, statement, founding=None, handles={}, now_ms=NOW_MS)
    assert "1250000 grains" in told
    assert memo.seal().hex() in told
    told = describe(envelope._replace(memo=memo), statement, founding=None, handles={}, now_ms=NOW_MS)
    assert r"'thanks\n  signed by  nobody'" in told
