"""Offline receipts and hand-overs: they hold with nothing but a key, and nothing in them can be changed unnoticed."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Final

import pytest

from gesell_protocol.canonical import pack
from gesell_protocol.ed25519 import Signer
from gesell_protocol.envelopes import Envelope, Memo
from gesell_protocol.log import Leaf, Posting, leaf_data, leaf_hash, read_leaf
from gesell_protocol.notes import (
    WITNESS_KEY,
    BadNote,
    Note,
    NoteKey,
    cosign,
    origin_of,
    sign_checkpoint,
    sign_note,
)
from gesell_protocol.proofs import (
    FILE_MAX_BYTES,
    BadReceipt,
    ProofFile,
    follow,
    read_extra,
    read_handover,
    read_proof_file,
    verify_followed,
    verify_receipt,
    write_receipt,
)
from gesell_protocol.statements import Pay
from gesell_protocol.tree import Frontier, hash_of, inclusion_spans, tiles_for
from tests.speaking import name_of, sign_body, signer_of, write_envelope, write_found

NOW_MS: Final = 1_767_225_600_000
FIRST: Final = signer_of("the ledger's first key")
SECOND: Final = signer_of("the ledger's second key")
THIRD: Final = signer_of("the ledger's third key")
ANNA: Final = signer_of("anna")
BEN: Final = signer_of("ben")
FOUND: Final = write_found([ANNA], ledger=FIRST.public_key, now_ms=NOW_MS)
COMMONS: Final = name_of(FOUND)
WITNESS: Final = NoteKey("witness.example/w1", signer_of("a witness").public_key, WITNESS_KEY)
SEQ: Final = 5


def rekey(old: Signer, new: Signer, *, commons: bytes = COMMONS, signers: Sequence[Signer] | None = None) -> Envelope:
    """The hand-over from one key to another."""
    signed = [old, new] if signers is None else signers
    return write_envelope("rekey", old.public_key, signed, now_ms=NOW_MS, commons=commons, ledger=new.public_key)


@cache
def entries() -> tuple[bytes, ...]:
    """The leaf data of a small log: what founds it, joins, payments."""
    said = [FOUND]
    said += [
        write_envelope("join", who.public_key, [who], now_ms=NOW_MS, commons=COMMONS, handle=handle)
        for who, handle in ((ANNA, "anna"), (BEN, "ben"))
    ]
    said += [_payment(ANNA, BEN, amount) for amount in range(1, 9)]
    return tuple(
        leaf_data(
            seq=seq,
            at_ms=NOW_MS + seq,
            body=one.body,
            signatures=one.signatures,
            postings=_posted(seq - 3) if seq > 3 else [],
        )
        for seq, one in enumerate(said, 1)
    )


def _posted(amount: int) -> list[Posting]:
    return [Posting("pay", ANNA.public_key, "WRG", -amount), Posting("pay", BEN.public_key, "WRG", amount)]


def _payment(by: Signer, to: Signer, amount: int) -> Envelope:
    legs = [[to.public_key, amount]]
    return write_envelope("pay", by.public_key, [by], now_ms=NOW_MS, commons=COMMONS, legs=legs)


def checkpoint(log: Sequence[bytes], signer: Signer = FIRST, *, commons: bytes = COMMONS) -> Note:
    """The checkpoint of a log."""
    tree, _ = Frontier().grown([leaf_hash(data) for data in log])
    return sign_checkpoint(commons=commons, size=tree.size, root=tree.root, signer=signer)


def path_of(log: Sequence[bytes], index: int) -> list[bytes]:
    """The hashes from leaf `index` up."""
    spans, size = inclusion_spans(index, len(log)), len(log)
    tiles = {tile: b"".join(leaf_hash(data) for data in log) for tile in tiles_for(spans, size)}
    return [hash_of(start, end, size, tiles) for start, end in spans]


def receipt(
    seq: int = SEQ,
    *,
    log: Sequence[bytes] | None = None,
    signer: Signer = FIRST,
    handovers: Sequence[Envelope] = (),
    note: Note | None = None,
    founding: bytes | None = None,
) -> str:
    """The offline receipt of an entry."""
    log = entries() if log is None else log
    return write_receipt(
        log[seq - 1],
        index=seq - 1,
        hashes=path_of(log, seq - 1),
        note=checkpoint(log, signer) if note is None else note,
        handovers=handovers,
        founding=founding,
    )


# ── Receipts that hold ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seq", range(1, 12))
def test_a_receipt_proves_its_entry_with_nothing_but_the_ledgers_key(seq: int) -> None:
    proven = verify_receipt(receipt(seq), ledger=FIRST.public_key)
    assert proven.commons == COMMONS
    assert proven.leaf == read_leaf(entries()[seq - 1])
    assert proven.leaf.seq == seq
    assert proven.checkpoint.size == 11
    assert (proven.ledger, proven.cosigned) == (FIRST.public_key, 0)


def test_a_receipt_tells_what_was_signed() -> None:
    statement = verify_receipt(receipt(), ledger=FIRST.public_key).statement
    assert isinstance(statement, Pay)
    assert (statement.by, statement.legs[0].to) == (ANNA.public_key, BEN.public_key)


def test_a_receipt_of_the_only_entry_has_no_hashes() -> None:
    text = receipt(1, log=entries()[:1])
    assert read_proof_file(text).hashes == ()
    assert verify_receipt(text, ledger=FIRST.public_key).checkpoint.size == 1


def test_a_receipt_is_read_from_bytes_as_from_text_and_written_as_it_was() -> None:
    text = receipt()
    assert verify_receipt(text.encode(), ledger=FIRST.public_key) == verify_receipt(text, ledger=FIRST.public_key)
    assert str(read_proof_file(text)) == text


def test_the_file_has_the_form_of_tlog_proof() -> None:
    lines = receipt().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1].startswith("extra ")
    assert lines[2] == "index 4"
    hashes = [base64.b64decode(line, validate=True) for line in lines[3 : lines.index("")]]
    assert hashes == path_of(entries(), SEQ - 1)
    assert "\n".join(lines[lines.index("") + 1 :]) == str(checkpoint(entries()))


def test_a_receipt_of_a_short_tick_is_a_receipt() -> None:
    policy = {
        "tick_seconds": 1, "rest_ticks": 0, "brackets": [[0, 1]], "melt_to": "pool", "admission": "open",
        "credit_limit": 0, "vouch_min": 1, "visibility": "open", "notice_ticks": 0,
    }  # fmt: skip
    found = write_found([ANNA], ledger=FIRST.public_key, now_ms=NOW_MS, policy=policy)
    log = [leaf_data(seq=1, at_ms=NOW_MS, body=found.body, signatures=found.signatures, postings=[])]
    note = checkpoint(log, commons=name_of(found))
    assert verify_receipt(receipt(1, log=log, note=note), ledger=FIRST.public_key).commons == name_of(found)


# ── Receipts that do not ─────────────────────────────────────────────────────────────────────────────────────────


def with_leaf(change: Callable[[Leaf], Leaf]) -> str:
    """The receipt with another entry in it, all else as it was."""
    proof = read_proof_file(receipt())
    leaf = change(read_leaf(entries()[SEQ - 1]))
    return str(replace(proof, extra=pack([leaf_data(**leaf._asdict()), []])))


def with_proof(**changed: Any) -> str:
    """The receipt with something else around the entry."""
    return str(replace(read_proof_file(receipt()), **changed))


def _path() -> tuple[bytes, ...]:
    return read_proof_file(receipt()).hashes


LIES: Final[dict[str, Callable[[], str]]] = {
    "another number": lambda: with_leaf(lambda leaf: leaf._replace(seq=6)),
    "an earlier time": lambda: with_leaf(lambda leaf: leaf._replace(at_ms=leaf.at_ms - 1)),
    "another statement of the same author": lambda: with_leaf(
        lambda leaf: leaf._replace(body=_payment(ANNA, BEN, 999).body, signatures=_payment(ANNA, BEN, 999).signatures)
    ),
    "another body under the signature": lambda: with_leaf(
        lambda leaf: leaf._replace(body=_payment(ANNA, BEN, 999).body)
    ),
    "a signature that does not hold": lambda: with_leaf(
        lambda leaf: leaf._replace(signatures=((leaf.signatures[0][0], bytes(64)),))
    ),
    "somebody else's signature": lambda: with_leaf(
        lambda leaf: leaf._replace(signatures=sign_body(leaf.body, [BEN]).signatures)
    ),
    "a signature more": lambda: with_leaf(
        lambda leaf: leaf._replace(signatures=sign_body(leaf.body, [ANNA, BEN]).signatures)
    ),
    "an amount one grain larger": lambda: with_leaf(
        lambda leaf: leaf._replace(postings=(leaf.postings[0], leaf.postings[1]._replace(amount=6)))
    ),
    "another payee": lambda: with_leaf(
        lambda leaf: leaf._replace(postings=(leaf.postings[0], leaf.postings[1]._replace(holder="pool")))
    ),
    "a posting less": lambda: with_leaf(lambda leaf: leaf._replace(postings=leaf.postings[:1])),
    "postings turned round": lambda: with_leaf(lambda leaf: leaf._replace(postings=leaf.postings[::-1])),
    "the index of another entry": lambda: with_proof(index=SEQ),
    "an index beyond the log": lambda: with_proof(index=11),
    "an index beyond all logs": lambda: with_proof(index=10**18),
    "no hashes": lambda: with_proof(hashes=()),
    "a hash less": lambda: with_proof(hashes=_path()[:-1]),
    "a hash more": lambda: with_proof(hashes=(*_path(), bytes(32))),
    "a hash changed": lambda: with_proof(hashes=(bytes(32), *_path()[1:])),
    "hashes turned round": lambda: with_proof(hashes=_path()[::-1]),
    "no entry": lambda: with_proof(extra=None),
    "an entry that is none": lambda: with_proof(extra=pack([b"nothing", []])),
    "something else beside the hashes": lambda: with_proof(extra=b"hello"),
    "a checkpoint that does not hold the entry": lambda: with_proof(note=checkpoint(entries()[: SEQ - 1])),
    "a checkpoint of fewer entries that does": lambda: with_proof(note=checkpoint(entries()[:SEQ])),
    "a checkpoint of more entries": lambda: with_proof(note=checkpoint([*entries(), *entries()])),
    "a checkpoint of a forked log": lambda: with_proof(note=checkpoint([*entries()[:-1], b"forged"])),
    "a checkpoint of another commons": lambda: with_proof(note=checkpoint(entries(), commons=bytes(16))),
    "a checkpoint by another ledger": lambda: with_proof(note=checkpoint(entries(), SECOND)),
    "a checkpoint that nobody signed": lambda: with_proof(
        note=replace(checkpoint(entries()), signatures=sign_note("x\n", name="x", signer=FIRST).signatures)
    ),
    "a checkpoint that is another note": lambda: with_proof(
        note=sign_note("hello\n", name=origin_of(COMMONS), signer=FIRST)
    ),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_receipt_of_which_one_thing_was_changed_is_refused(lie: Callable[[], str]) -> None:
    verify_receipt(receipt(), ledger=FIRST.public_key)
    with pytest.raises(BadReceipt):
        verify_receipt(lie(), ledger=FIRST.public_key)


def test_every_changed_character_of_the_file_is_caught() -> None:
    text = receipt()
    for place, char in enumerate(text):
        for other in {"A" if char != "A" else "B", ""}:
            with pytest.raises(BadReceipt):
                verify_receipt(text[:place] + other + text[place + 1 :], ledger=FIRST.public_key)


def test_every_cut_of_the_file_is_caught() -> None:
    text = receipt()
    for end in range(len(text)):
        with pytest.raises(BadReceipt):
            verify_receipt(text[:end], ledger=FIRST.public_key)


def test_an_entry_of_another_commons_in_a_log_is_not_taken_for_one_of_this() -> None:
    # The ledger may have put it there, but what it says is of another commons, whose log this is not.
    alien = write_envelope("leave", BEN.public_key, [BEN], now_ms=NOW_MS, commons=bytes(16))
    data = leaf_data(seq=1, at_ms=NOW_MS, body=alien.body, signatures=alien.signatures, postings=[])
    with pytest.raises(BadReceipt, match="another log"):
        verify_receipt(receipt(1, log=[data]), ledger=FIRST.public_key)


def test_an_entry_whose_number_is_not_its_place_is_refused_though_the_tree_holds_it() -> None:
    leaf = read_leaf(entries()[1])
    log = [entries()[0], leaf_data(**leaf._replace(seq=7)._asdict())]
    with pytest.raises(BadReceipt, match="number"):
        verify_receipt(receipt(2, log=log), ledger=FIRST.public_key)


def test_an_entry_that_its_author_did_not_sign_well_is_refused_though_the_tree_holds_it() -> None:
    leaf = read_leaf(entries()[1])
    log = [entries()[0], leaf_data(**leaf._replace(signatures=((ANNA.public_key, bytes(64)),))._asdict())]
    with pytest.raises(BadReceipt, match="does not verify"):
        verify_receipt(receipt(2, log=log), ledger=FIRST.public_key)


# ── The form of the file ─────────────────────────────────────────────────────────────────────────────────────────

_NOTE: Final = str(sign_note("a\n", name="b", signer=FIRST))
_HASH: Final = base64.b64encode(bytes(32)).decode()
_SHORT, _LONG = (base64.b64encode(bytes(size)).decode() for size in (31, 33))
FORMS: Final = {
    "nothing": ("", "begins with"),
    "another first line": (f"c2sp.org/tlog-proof@v2\nindex 0\n\n{_NOTE}", "begins with"),
    "a space after it": (f"c2sp.org/tlog-proof@v1 \nindex 0\n\n{_NOTE}", "begins with"),
    "an empty line before it": (f"\nc2sp.org/tlog-proof@v1\nindex 0\n\n{_NOTE}", "begins with"),
    "carriage returns": (f"c2sp.org/tlog-proof@v1\r\nindex 0\r\n\r\n{_NOTE}", "begins with"),
    "the first line alone": ("c2sp.org/tlog-proof@v1", "index"),
    "no index": (f"c2sp.org/tlog-proof@v1\n{_HASH}\n\n{_NOTE}", "index"),
    "an index of nothing": (f"c2sp.org/tlog-proof@v1\nindex \n\n{_NOTE}", "index"),
    "an index in hex": (f"c2sp.org/tlog-proof@v1\nindex 0x1\n\n{_NOTE}", "index"),
    "an index with a zero before it": (f"c2sp.org/tlog-proof@v1\nindex 01\n\n{_NOTE}", "index"),
    "an index with a sign": (f"c2sp.org/tlog-proof@v1\nindex +1\n\n{_NOTE}", "index"),
    "an index below 0": (f"c2sp.org/tlog-proof@v1\nindex -1\n\n{_NOTE}", "index"),
    "an index in other digits": (f"c2sp.org/tlog-proof@v1\nindex ٣\n\n{_NOTE}", "index"),
    "an index that is a digit to look at": (f"c2sp.org/tlog-proof@v1\nindex ²\n\n{_NOTE}", "index"),
    "an index without its word": (f"c2sp.org/tlog-proof@v1\n0\n\n{_NOTE}", "index"),
    "an index with a space": (f"c2sp.org/tlog-proof@v1\nindex  1\n\n{_NOTE}", "index"),
    "an index without end": (f"c2sp.org/tlog-proof@v1\nindex {'9' * 5_000}\n\n{_NOTE}", "index"),
    "an index twice": (f"c2sp.org/tlog-proof@v1\nindex 0\nindex 0\n\n{_NOTE}", "base64"),
    "extra after the index": (f"c2sp.org/tlog-proof@v1\nindex 0\nextra AAAA\n\n{_NOTE}", "base64"),
    "extra twice": (f"c2sp.org/tlog-proof@v1\nextra AAAA\nextra AAAA\nindex 0\n\n{_NOTE}", "index"),
    "extra that is no base64": (f"c2sp.org/tlog-proof@v1\nextra ????\nindex 0\n\n{_NOTE}", "base64"),
    "extra without padding": (f"c2sp.org/tlog-proof@v1\nextra AAA\nindex 0\n\n{_NOTE}", "base64"),
    "a hash of 31 bytes": (f"c2sp.org/tlog-proof@v1\nindex 0\n{_SHORT}\n\n{_NOTE}", "hashes"),
    "a hash of 33 bytes": (f"c2sp.org/tlog-proof@v1\nindex 0\n{_LONG}\n\n{_NOTE}", "hashes"),
    "a hash that is no base64": (f"c2sp.org/tlog-proof@v1\nindex 0\n{_HASH[:-1]}\n\n{_NOTE}", "base64"),
    "64 hashes": ("c2sp.org/tlog-proof@v1\nindex 0\n" + f"{_HASH}\n" * 64 + f"\n{_NOTE}", "at most 63"),
    "no checkpoint": ("c2sp.org/tlog-proof@v1\nindex 0\n\n", "checkpoint"),
    "a checkpoint that is no note": ("c2sp.org/tlog-proof@v1\nindex 0\n\nhello\n", "checkpoint"),
    "no UTF-8": (b"c2sp.org/tlog-proof@v1\nindex 0\n\n\xff", "UTF-8"),
    "a file without end": ("c2sp.org/tlog-proof@v1\n" + "x" * FILE_MAX_BYTES, "at most"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "why"), FORMS.values(), ids=FORMS)
def test_a_file_that_is_no_proof_is_refused_and_told_why(text: str | bytes, why: str) -> None:
    with pytest.raises(BadReceipt, match=why):
        read_proof_file(text)
    with pytest.raises(BadReceipt):
        verify_receipt(text, ledger=FIRST.public_key)


def test_a_proof_without_extra_is_a_proof_of_tlog_proof_but_no_receipt() -> None:
    text = f"c2sp.org/tlog-proof@v1\nindex 0\n\n{_NOTE}"
    assert read_proof_file(text) == ProofFile(
        index=0, hashes=(), note=sign_note("a\n", name="b", signer=FIRST), extra=None
    )
    with pytest.raises(BadReceipt, match="does not carry the entry"):
        verify_receipt(text, ledger=FIRST.public_key)


@pytest.mark.parametrize(
    "extra",
    [
        None,
        b"",
        b"\x00",
        b"\xc1",
        pack([]),
        pack([b"leaf"]),
        pack([b"leaf", [], []]),
        pack([b"leaf", [], b"founding", b"more"]),
        pack([b"leaf", [], None]),
        pack(["leaf", []]),
        pack([b"leaf", b""]),
        pack([b"leaf", {"a": 1}]),
        pack([b"leaf", [b"envelope"]]),
        pack([b"leaf", [[b"body", []]]]),
        pack({"leaf": b""}),
        pack([b"leaf", []]) + b"\x00",
    ],
)
def test_an_extra_of_another_form_is_refused(extra: bytes | None) -> None:
    with pytest.raises(BadReceipt):
        read_extra(extra)


@pytest.mark.parametrize(
    ("at_ms", "postings"),
    [
        (NOW_MS, [("pay", ANNA.public_key, "WRG", -3), ("pay", BEN.public_key, "WRG", 3)]),
        (NOW_MS, [("pay", ANNA.public_key, "WRG", -2)]),
        (NOW_MS, [("pay", BEN.public_key, "WRG", -2), ("pay", ANNA.public_key, "WRG", 2)]),
        (NOW_MS, []),
        (NOW_MS + 3_600_001, [("pay", ANNA.public_key, "WRG", -2), ("pay", BEN.public_key, "WRG", 2)]),
    ],
    ids=["more than was signed", "no sum of zero", "the other way", "nothing", "after it expired"],
)
def test_a_ledger_can_not_prove_what_was_not_signed(at_ms: int, postings: list[tuple[str, bytes, str, int]]) -> None:
    log = list(entries())
    leaf = read_leaf(log[4])
    log[4] = leaf_data(
        seq=5, at_ms=at_ms, body=leaf.body, signatures=leaf.signatures, postings=[Posting(*one) for one in postings]
    )
    with pytest.raises(BadReceipt):
        verify_receipt(receipt(5, log=log), ledger=FIRST.public_key)


def test_a_receipt_tells_what_the_commons_was_founded_with() -> None:
    proven = verify_receipt(receipt(founding=FOUND.body), ledger=FIRST.public_key)
    assert proven.founding is not None
    assert (proven.founding.name, proven.founding.currency.code) == ("Wörgl", "WRG")
    assert verify_receipt(receipt(), ledger=FIRST.public_key).founding is None
    assert verify_receipt(receipt(1), ledger=FIRST.public_key).founding is not None, "it is the entry itself"


def test_a_founding_that_is_not_its_commons_is_refused() -> None:
    other = write_found([ANNA], ledger=FIRST.public_key, now_ms=NOW_MS + 1).body
    joined = read_leaf(entries()[1]).body
    for body in (other, joined, b"", FOUND.body + b"\x00"):
        with pytest.raises(BadReceipt):
            verify_receipt(receipt(founding=body), ledger=FIRST.public_key)


# ── Witnesses ────────────────────────────────────────────────────────────────────────────────────────────────────


def _cosigned(note: Note) -> Note:
    return note.with_signatures([cosign(note, name=WITNESS.name, signer=signer_of("a witness"), time_s=7)])


def test_witnesses_are_counted_and_a_quorum_can_be_demanded() -> None:
    note = checkpoint(entries())
    text = receipt(note=_cosigned(note))
    assert verify_receipt(text, ledger=FIRST.public_key).cosigned == 0, "nobody asked for it"
    assert verify_receipt(text, ledger=FIRST.public_key, witnesses=[WITNESS], quorum=1).cosigned == 1
    for other, quorum in ((text, 2), (receipt(note=note), 1)):
        with pytest.raises(BadReceipt, match="witnesses"):
            verify_receipt(other, ledger=FIRST.public_key, witnesses=[WITNESS], quorum=quorum)


def test_a_cosignature_of_another_checkpoint_is_refused() -> None:
    other = _cosigned(checkpoint(entries()[:4])).signatures[1]
    text = receipt(note=checkpoint(entries()).with_signatures([other]))
    with pytest.raises(BadReceipt, match="cosignature"):
        verify_receipt(text, ledger=FIRST.public_key, witnesses=[WITNESS])


# ── Hand-overs ───────────────────────────────────────────────────────────────────────────────────────────────────

CHAIN: Final = (rekey(FIRST, SECOND), rekey(SECOND, THIRD))


def test_a_receipt_holds_with_the_key_of_any_day_before() -> None:
    text = receipt(signer=THIRD, handovers=CHAIN)
    for trusted in (FIRST, SECOND, THIRD):
        assert verify_receipt(text, ledger=trusted.public_key).ledger == THIRD.public_key
    with pytest.raises(BadReceipt, match="not signed by"):
        verify_receipt(text, ledger=BEN.public_key)


def test_a_receipt_of_the_old_keys_day_still_holds_with_the_old_key() -> None:
    assert verify_receipt(receipt(signer=FIRST, handovers=CHAIN), ledger=FIRST.public_key).ledger == FIRST.public_key
    assert verify_receipt(receipt(signer=SECOND, handovers=CHAIN), ledger=FIRST.public_key).ledger == SECOND.public_key


def test_who_trusts_the_new_key_does_not_trust_the_old_one_for_it() -> None:
    with pytest.raises(BadReceipt, match="not signed by"):
        verify_receipt(receipt(signer=FIRST, handovers=CHAIN), ledger=SECOND.public_key)


def test_keys_are_followed_in_the_order_of_the_log() -> None:
    keys = [one.public_key for one in (FIRST, SECOND, THIRD)]
    assert follow(keys[0], CHAIN, commons=COMMONS) == tuple(keys)
    assert follow(keys[1], CHAIN, commons=COMMONS) == tuple(keys[1:])
    assert follow(keys[2], CHAIN, commons=COMMONS) == (keys[2],)
    assert follow(keys[0], [], commons=COMMONS) == (keys[0],)


def test_a_key_that_comes_back_is_followed_back() -> None:
    chain = (rekey(FIRST, SECOND), rekey(SECOND, FIRST), rekey(FIRST, THIRD))
    assert follow(FIRST.public_key, chain, commons=COMMONS)[-1] == THIRD.public_key
    assert verify_receipt(receipt(signer=THIRD, handovers=chain), ledger=SECOND.public_key).ledger == THIRD.public_key


def _broken(envelope: Envelope, place: int) -> Envelope:
    signatures = list(envelope.signatures)
    signatures[place] = (signatures[place][0], bytes(64))
    return Envelope(envelope.body, tuple(signatures))


FORGED: Final[dict[str, Sequence[Envelope]]] = {
    "out of order": CHAIN[::-1],
    "a link missing": CHAIN[1:],
    "none": (),
    "signed by the old key alone": (rekey(FIRST, SECOND, signers=[FIRST]), CHAIN[1]),
    "signed by the new key alone": (rekey(FIRST, SECOND, signers=[SECOND]), CHAIN[1]),
    "signed by strangers": (rekey(FIRST, SECOND, signers=[ANNA, BEN]), CHAIN[1]),
    "the old key's signature broken": (_broken(CHAIN[0], 0), CHAIN[1]),
    "the new key's signature broken": (_broken(CHAIN[0], 1), CHAIN[1]),
    "of another commons": (rekey(FIRST, SECOND, commons=bytes(16)), CHAIN[1]),
    "another statement": (_payment(ANNA, BEN, 1), *CHAIN),
    "a body that is none": (sign_body(b"\x80", [FIRST, SECOND]), *CHAIN),
    "the new key's own word": (rekey(THIRD, SECOND),),
    "a forged one after the true ones": (*CHAIN, rekey(THIRD, BEN, signers=[BEN])),
}


@pytest.mark.parametrize("chain", FORGED.values(), ids=FORGED)
def test_a_chain_of_hand_overs_that_does_not_hold_is_refused(chain: Sequence[Envelope]) -> None:
    with pytest.raises(BadReceipt):
        verify_receipt(receipt(signer=THIRD, handovers=chain), ledger=FIRST.public_key)


def test_a_third_partys_signature_beside_both_does_no_harm() -> None:
    chain = (rekey(FIRST, SECOND, signers=[FIRST, SECOND, ANNA]),)
    assert verify_receipt(receipt(signer=SECOND, handovers=chain), ledger=FIRST.public_key).ledger == SECOND.public_key


def test_a_hand_over_is_told_by_its_statement() -> None:
    statement = read_handover(CHAIN[0], commons=COMMONS)
    assert (statement.by, statement.ledger) == (FIRST.public_key, SECOND.public_key)
    with pytest.raises(BadReceipt):
        read_handover(CHAIN[0], commons=bytes(16))


def test_a_memo_beside_a_hand_over_does_not_go_into_the_file() -> None:
    plain = write_envelope(
        "rekey", FIRST.public_key, [FIRST, SECOND], now_ms=NOW_MS,
        commons=COMMONS, ledger=SECOND.public_key, memo=Memo(bytes(16), "a new machine"),
    )  # fmt: skip
    text = receipt(signer=SECOND, handovers=[plain])
    handovers = read_extra(read_proof_file(text).extra).handovers
    assert handovers == (Envelope(plain.body, plain.signatures),)
    assert verify_receipt(text, ledger=FIRST.public_key).ledger == SECOND.public_key


def test_a_checkpoint_is_verified_by_the_key_that_signed_it_of_those_that_follow() -> None:
    keys = {"commons": COMMONS, "handovers": CHAIN}
    for signer in (FIRST, SECOND, THIRD):
        note = checkpoint(entries(), signer)
        told, key = verify_followed(note, ledger=FIRST.public_key, **keys)  # type: ignore[arg-type]
        assert (told.size, key) == (11, signer.public_key)
    with pytest.raises(BadNote):
        verify_followed(checkpoint(entries(), BEN), ledger=FIRST.public_key, **keys)  # type: ignore[arg-type]
    spoilt = checkpoint(entries(), THIRD)
    spoilt = replace(spoilt, signatures=(spoilt.signatures[0]._replace(signature=bytes(64)),))
    with pytest.raises(BadNote):
        verify_followed(spoilt, ledger=FIRST.public_key, **keys)  # type: ignore[arg-type]
