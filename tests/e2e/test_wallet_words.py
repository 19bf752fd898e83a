"""What the wallet tells people who stumble: in their words, and what to do next."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from gesell import Client, Peer
from gesell_protocol.names import did_of
from tests.e2e.wallet import Wallet
from tests.running import Service


@pytest.fixture
async def town(service: Service, folder: Path) -> Wallet:
    """An open commons with ada, its steward, bob, who has 100, and cyd, who asked to join; eve.key is nobody's."""
    ada, bob, cyd, eve = (Peer.new() for _ in range(4))
    for name, peer in (("ada", ada), ("bob", bob), ("cyd", cyd), ("eve", eve)):
        peer.save(folder / f"{name}.key", passphrase=None)
    async with Client(service.url, peer=ada) as client:
        commons = await client.found(name="Town", currency="WRG")
        for handle, peer in (("bob", bob), ("ada", ada)):
            await client.as_peer(peer).join(handle)
            await client.admit(peer)
        await client.as_peer(cyd).join("cyd")
        await client.issue(bob, "100")
    return Wallet(folder, service.url, commons)


def did(town: Wallet, name: str) -> str:
    return Peer.did_in(town.folder / f"{name}.key")


async def test_paying_and_issuing_to_oneself(town: Wallet) -> None:
    bob, ada = town.of("bob.key"), town.of("ada.key")
    for words in (("bob", "1"), (did(town, "bob"), "all")):
        done = await bob("pay", *words)
        assert (done.status, done.err) == (2, "gesell: You can't pay yourself.\n        Nothing was sent.\n")
    for one, own in ((bob, "bob"), (ada, "ada")):
        assert "Stewards issue to others, nobody to themselves." in (await one("issue", own, "1")).err
    assert "nobody to themselves" in (await ada("grant", "ada", "1")).err


async def test_payees_who_are_no_members(town: Wallet) -> None:
    bob = town.of("bob.key")
    done = await bob("pay", "bbo", "1")
    assert done.err == (
        "gesell: There is no member bbo here.\n        Nothing was sent. See who is there: gesell members.\n"
    )
    for name, known in (("cyd", "sent"), (did(town, "cyd"), "applied")):
        done = await bob("pay", name, "1")
        assert done.status == 1
        assert f"cyd has asked to join and is not admitted yet.\n        Nothing was {known}. " in done.err
    done = await bob("pay", did(town, "eve"), "1")
    assert f"There is no member {did(town, 'eve')} in this commons." in done.err


async def test_who_is_no_member_is_told_so(town: Wallet) -> None:
    eve = town.of("eve.key")
    told = f"gesell: You are not a member of this commons ({did(town, 'eve')})."
    for words in (("pay", "bob", "1"), ("balance",), ("history",), ("request", "1")):
        done = await eve(*words)
        assert (done.status, done.err.splitlines()[0]) == (1, told), words
        assert ("Nothing was applied." in done.err) == (words[0] == "pay"), words
        assert "gesell join HANDLE" in done.err
        assert "--by DID" in done.err


async def test_an_added_key_that_does_not_say_for_whom_is_told_how(town: Wallet) -> None:
    for owner in ("bob", "ada"):
        phone = town.of(f"{owner}s-phone.key")
        Peer.new().save(town.folder / f"{owner}s-phone.key", passphrase=None)
        assert (await town.of(f"{owner}.key")("key", "add", f"{owner}s-phone.key")).status == 0
        (town.folder / f"{owner}s-phone.key.by").unlink()
        done = await phone(*(("pay", "ada", "1") if owner == "bob" else ("issue", "bob", "1")))
        assert done.err == (
            "gesell: This key does not sign for you (any more).\n"
            "        Nothing was applied. If you rotated it, say --key NEW; if it was added to another's, --by DID.\n"
        )


async def test_reads_of_others_say_where_to_look(town: Wallet) -> None:
    done = await town.of("bob.key")("balance", "zzz")
    assert done.err == (
        "gesell: there is no member zzz in this commons (unknown-member)\n        See who is there: gesell members.\n"
    )


async def test_members_are_listed_by_handle(town: Wallet) -> None:
    lines = (await town.of("bob.key")("members")).out.splitlines()
    assert [line.split()[0] for line in lines] == ["Handle", "ada", "bob", "cyd"]


async def test_a_webhook_to_a_private_address_says_what_an_operator_can_do(town: Wallet, service: Service) -> None:
    bob = town.of("bob.key", GESELL_URL="http://127.0.0.1:1")
    done = await bob("webhook", "add", "https://127.0.0.1/hook", "--url", service.url)
    assert done.status == 1
    assert "its operator allows others: serve --webhooks-to-private" in done.err
    assert "--cosign" not in done.err


async def test_a_key_of_openssl_is_a_wallets_key(town: Wallet) -> None:
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"sesame"))
    (town.folder / "openssl.pem").write_bytes(pem)
    one = town.of("openssl.pem", GESELL_PASSPHRASE="sesame")
    assert (await one("key", "show")).out.strip() == did_of(key.public_key().public_bytes_raw())
    assert "You have asked to join as openssl" in (await one("join", "openssl")).out


def test_the_service_tells_at_its_start_whose_it_is_and_where_its_files_are(service: Service) -> None:
    [line] = [line for line in service.read_log().splitlines() if "event=starting" in line]
    for word in ("ledger=did:key:z6Mk", "key_file=/", "data=/"):
        assert word in line
