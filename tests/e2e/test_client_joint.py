"""Stewards who are not in one place: a draft goes from hand to hand until enough have signed."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

from gesell import Client, NotAuthorised, Peer, load_statement, save_statement
from gesell_protocol.names import commons_of
from tests.e2e.wallet import Wallet
from tests.running import Service


async def test_two_of_three_issue_by_a_file(service: Service, folder: Path) -> None:
    ada, bob, eve = Peer.new(), Peer.new(), Peer.new()
    async with Client(service.url, peer=ada) as gesell:
        await gesell.found(name="Three", currency="WRG", stewards=[ada, bob, eve], signers=[bob])
        await gesell.as_peer(bob).join("bob")
        await gesell.admit(bob, signers=[eve])
        draft = await gesell.sign({"type": "issue", "to": "bob", "amount": "100"}, lasts=timedelta(days=7))
        [alone] = await gesell.submit([draft])
        assert isinstance(alone.error, NotAuthorised)
        save_statement(draft, folder / "issue.json")
        signed = await gesell.as_peer(eve).cosign(load_statement(folder / "issue.json"))
        told = await gesell.describe(signed)
        assert f"100 WRG of new money to bob ({bob.did})" in told
        [result] = await gesell.submit([signed])
        assert result.receipt_or_raise().postings[-1].amount == 100_000_000
        [again] = await gesell.submit([signed])
        assert again.status == "replayed"


async def test_the_wallets_of_three_stewards_found_admit_and_issue_by_files(service: Service, folder: Path) -> None:
    names = ("ada", "bob", "eve")
    peers = {name: Peer.new() for name in names}
    for name, peer in peers.items():
        peer.save(folder / f"{name}.key", passphrase=None)
    wallet = Wallet(folder, service.url)
    ada, eve = wallet.of("ada.key"), wallet.of("eve.key")
    stewards = [word for name in names for word in ("--steward", peers[name].did)]
    done = await ada("found", "--name", "Three", "--currency", "WRG", *stewards, "--draft", "found.json")
    assert 'Found the commons "Three"' in done.out, done.err
    assert "2 of 3 sign" in done.out
    assert (await ada("send", "found.json")).status == 1  # one is not enough
    done = await eve("cosign", "found.json", "--yes")
    assert "2 have now; 2 stewards have to" in done.out, done.err
    sent = await wallet.of("nobody.key")("send", "found.json")
    assert "is founded" in sent.out, sent.err
    wallet = Wallet(folder, service.url, commons_of(load_statement(folder / "found.json").body).hex())
    ada, bob, eve = (wallet.of(f"{name}.key") for name in names)
    await bob("join", "bob")
    assert "Admitted" in (await ada("admit", "bob", "--cosign", "eve.key")).out
    words = ("issue", "bob", "100", "--memo", "for the roof", "--draft", "issue.json", "--lasts", "2d", "--json")
    assert json.loads((await ada(*words)).out)["signed_by"] == [peers["ada"].did]
    assert (await eve("cosign", "issue.json", "--yes")).status == 0
    assert "It is applied now" in (await bob("send", "issue.json")).out
    assert "It had been applied" in (await bob("send", "issue.json")).out
    assert json.loads((await bob("balance", "--json")).out)["balance"] == "100"
    for lasts in ("8d", "0m", "soon"):
        assert (await ada("issue", "bob", "1", "--draft", "x.json", "--lasts", lasts)).status == 2


async def test_a_draft_overwrites_nothing_and_a_cosigner_sees_what_it_signs(service: Service, folder: Path) -> None:
    ada, eve = Peer.new(), Peer.new()
    ada.save(folder / "ada.key", passphrase=None)
    eve.save(folder / "eve.key", passphrase=None)
    async with Client(service.url, peer=ada) as client:
        commons = await client.found(name="Two\u202e", currency="WRG", stewards=[ada, eve], threshold=2, signers=[eve])
    wallet = Wallet(folder, service.url, commons)
    draft = ("share", "1", "--draft")
    key = (folder / "ada.key").read_bytes()
    done = await wallet.of("ada.key")(*draft, "ada.key")
    assert (done.status, "no statement file" in done.err) == (1, True)
    assert (folder / "ada.key").read_bytes() == key
    assert (await wallet.of("ada.key")(*draft, "share.json")).status == 0
    there = (folder / "share.json").read_bytes()
    assert (await wallet.of("ada.key")(*draft, "share.json")).status == 1
    assert (folder / "share.json").read_bytes() == there
    status, out, err = await wallet.of("eve.key", typed="y\n")("cosign", "share.json", "--json")
    assert status == 0, err
    assert set(json.loads(out)["signed_by"]) == {ada.did, eve.did}
    assert "Share 1 WRG of the pool" in err
    assert "Sign this? [y/N]" in err
    assert "Two�" in err
    assert "\u202e" not in err
