"""Names and their texts (SPEC §2): each comes back from its text, and every other text is refused."""

from __future__ import annotations

import hashlib
import string
import uuid

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gesell_protocol import names

peers = st.binary(min_size=32, max_size=32)
ids = st.binary(min_size=16, max_size=16)
#: A well-known pair: the key of RFC 8032's first test vector.
RFC_KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
RFC_DID = "did:key:z6MktwupdmLXVVqTzCw4i46r4uGyosGXRnR3XjN4Zq7oMMsw"


def test_did_of_a_published_key_is_the_one_that_others_compute() -> None:
    assert names.did_of(RFC_KEY) == RFC_DID
    assert names.peer_of(RFC_DID) == RFC_KEY


@given(peers)
@example(bytes(32))
@example(b"\xff" * 32)
def test_peer_comes_back_from_its_did(peer: bytes) -> None:
    did = names.did_of(peer)
    assert did.startswith("did:key:z6Mk")
    assert names.peer_of(did) == peer


@given(peers, st.integers(0, 55), st.sampled_from(string.printable + "0OIl"))
def test_did_with_a_character_changed_is_refused_or_another_peers(peer: bytes, place: int, char: str) -> None:
    did = names.did_of(peer)
    changed = did[:place] + char + did[place + 1 :]
    assume(changed != did)
    try:
        other = names.peer_of(changed)
    except ValueError:
        return
    assert other != peer
    assert names.did_of(other) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did:key:z",
        "did:key:" + RFC_DID[9:],
        RFC_DID[:-1],
        RFC_DID + "1",
        "did:key:z1" + RFC_DID[9:],
        RFC_DID.replace("did:key", "did:web"),
        RFC_DID.upper(),
        " " + RFC_DID,
        RFC_DID + "\n",
        # secp256k1 and X25519 keys, as other programs write them
        "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
        "did:key:z6LSbysY2xFMRpGMhb7tFTLMpeuPRaqaWM1yECx2AtzE3KCc",
        "did:key:z" + "z" * 47,
        "did:key:z" + "1" * 47,
        RFC_DID[:-1] + "0",
        RFC_DID[:-1] + "é",
    ],
)
def test_text_that_is_no_ed25519_did_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        names.peer_of(text)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_key_of_another_length_has_no_did(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        names.did_of(bytes(length))


# ── Ids ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10))
def test_uuid7_carries_its_time_version_and_variant(time_ms: int, randomness: bytes) -> None:
    name = names.uuid7(time_ms, randomness)
    assert names.is_uuid7(name)
    assert names.time_of_id(name) == time_ms
    parsed = uuid.UUID(bytes=name)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)


@given(ids)
@example(uuid.uuid4().bytes)
def test_only_version_7_of_the_usual_variant_is_a_uuid7(name: bytes) -> None:
    parsed = uuid.UUID(bytes=name)
    assert names.is_uuid7(name) == (parsed.version == 7 and parsed.variant == uuid.RFC_4122)


@pytest.mark.parametrize(
    ("time_ms", "randomness"), [(-1, bytes(10)), (2**48, bytes(10)), (0, bytes(9)), (0, bytes(11))]
)
def test_uuid7_of_impossible_parts_is_refused(time_ms: int, randomness: bytes) -> None:
    with pytest.raises(ValueError, match="UUIDv7"):
        names.uuid7(time_ms, randomness)


@given(ids)
def test_id_comes_back_from_its_text_in_either_case(name: bytes) -> None:
    text = names.id_text(name)
    assert text == str(uuid.UUID(bytes=name))
    assert names.id_of(text) == names.id_of(text.upper()) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0189c3e0-5d2a-7000-8000-00000000000",
        "0189c3e05d2a70008000000000000001",
        "{0189c3e0-5d2a-7000-8000-000000000001}",
        "urn:uuid:0189c3e0-5d2a-7000-8000-000000000001",
        "0189c3e0-5d2a-7000-8000-000000000001 ",
        "0189c3e0-5d2a-7000-8000-00000000000g",
        "0189c3e05-d2a-7000-8000-000000000001",
        "０189c3e0-5d2a-7000-8000-000000000001",
    ],
)
def test_id_in_any_but_its_usual_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="UUID"):
        names.id_of(text)


# ── The rest ─────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.binary(max_size=100))
def test_bytes_come_back_from_base64url(data: bytes) -> None:
    text = names.base64url(data)
    assert not set(text) & set("+/=")
    assert names.unbase64url(text) == data


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA==", "A+", "A/", "AA\n", " AA", "é", "AAA=", "A A"])
def test_text_that_is_no_base64url_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        names.unbase64url(text)


@given(st.binary(max_size=200))
def test_commons_is_named_by_the_first_half_of_the_hash_of_its_founding(body: bytes) -> None:
    assert names.commons_of(body) == hashlib.sha256(b"gesell/commons/1\n" + body).digest()[:16]


@pytest.mark.parametrize("text", ["ab", "a1", "anna", "a_-9", "a" * 31, "issuers", "pools"])
def test_handle_of_the_right_letters_is_one(text: str) -> None:
    assert names.is_handle(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a" * 32,
        "1a",
        "_a",
        "-a",
        "Anna",
        "änna",
        "an na",
        "anna\n",
        "an.na",
        "аnna",
        "issuer",
        "pool",
        "escrow",
    ],
)
def test_handle_of_other_letters_or_of_a_reserved_holder_is_none(text: str) -> None:
    assert not names.is_handle(text)
