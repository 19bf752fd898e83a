"""Keys that change while the peer stays who it is: by the client, and by the wallet's `gesell key`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from gesell import Client, NotAuthorised, Peer, default_policy, key_swap
from gesell.key_notes import read_note as noted
from gesell.key_notes import write_note
from gesell.sync import Client as SyncClient
from tests.e2e.wallet import Wallet
from tests.running import Service


@dataclass(frozen=True)
class Town:
    """A commons that its members see, with ada, its steward, and bob, who has 100 in hand; key files in `folder`."""

    url: str
    commons: str
    ada: Peer
    bob: Peer
    folder: Path

    @property
    def wallet(self) -> Wallet:
        return Wallet(self.folder, self.url, self.commons)


@pytest.fixture
async def town(service: Service, folder: Path) -> Town:
    ada, bob = Peer.new(), Peer.new()
    ada.save(folder / "ada.key", passphrase=None)
    bob.save(folder / "bob.key", passphrase=None)
    async with Client(service.url, peer=ada) as client:
        policy = replace(default_policy(), visibility="members")
        commons = await client.found(name="Town", currency="WRG", policy=policy)
        await client.join("ada")
        await client.admit(ada)
        await client.as_peer(bob).join("bob")
        await client.admit(bob)
        await client.issue(bob, "100")
    return Town(service.url, commons, ada, bob, folder)


async def test_after_a_rotation_the_new_key_pays_and_reads_and_the_old_one_does_not(town: Town) -> None:
    new, newer = Peer.new(), Peer.new()
    async with Client(town.url, commons=town.commons, peer=town.bob) as bob:
        before = bob.as_peer(town.bob)
        await bob.rotate(new)
        await bob.pay("ada", "1")
        me = await bob.member()
        assert (me.peer, me.keys) == (town.bob.did, (new.did,))
        assert str(await bob.balance()) == "99 WRG"
        with pytest.raises(NotAuthorised):
            await before.pay(town.ada, "1")
        await bob.rotate(newer)
        await bob.pay("ada", "1")
        assert town.bob.did in repr(bob)
    async with Client(town.url, commons=town.commons, peer=newer, by=town.bob.did) as later:
        assert str(await later.balance()) == "98 WRG"


def test_the_sync_client_rotates_too(town: Town) -> None:
    with SyncClient(town.url, commons=town.commons, peer=town.bob) as bob:
        bob.rotate(Peer.new())
        assert str(bob.balance()) == "100 WRG"


async def test_a_wallet_goes_on_after_its_key_was_rotated_in_its_place(town: Town) -> None:
    bob = town.wallet.of("bob.key")
    done = await bob("key", "rotate", "--no-passphrase")
    assert "You are still " + town.bob.did in done.out, done.err
    new = Peer.load(town.folder / "bob.key")
    assert new != town.bob
    assert Peer.load(town.folder / "bob.key.old") == town.bob
    assert "--key " + str(town.folder / "bob.key.old") in done.out
    assert "Paid 1 WRG" in (await bob("pay", "ada", "1")).out
    assert json.loads((await bob("balance", "--json")).out)["member"] == town.bob.did
    assert (await town.wallet.of("bob.key.old")("pay", "ada", "1")).status == 1
    assert (await bob("key", "rotate", "--no-passphrase")).status == 0
    assert Peer.load(town.folder / "bob.key.old-2") == new
    assert "Paid 1 WRG" in (await bob("pay", "ada", "1")).out


async def test_a_rotation_goes_on_where_a_failure_left_it(town: Town) -> None:
    async with Client(town.url, commons=town.commons, peer=town.bob) as client:
        new = Peer.new()
        new.save(town.folder / "bob.key.new", passphrase=None)
        await client.rotate(new)  # its answer was lost on the way, say
    bob = town.wallet.of("bob.key")
    done = await bob("key", "rotate", "--no-passphrase")
    assert done.status == 0, done.err
    assert Peer.load(town.folder / "bob.key") == new
    assert "Paid 1 WRG" in (await bob("pay", "ada", "1")).out


async def test_a_rotation_into_a_file_of_its_own(town: Town) -> None:
    assert (await town.wallet.of("bob.key")("key", "rotate", "new.key", "--no-passphrase")).status == 0
    assert Peer.load(town.folder / "bob.key") == town.bob
    assert "Paid 1 WRG" in (await town.wallet.of("new.key")("pay", "ada", "1")).out
    (town.folder / "new.key.by").unlink()  # the note is lost: the command says what to do
    done = await town.wallet.of("new.key")("pay", town.ada.did, "1")
    assert done.status == 1
    done = await town.wallet.of("new.key")("pay", "ada", "1", "--by", town.bob.did)
    assert "Paid 1 WRG" in done.out, done.err
    assert (await town.wallet.of("new.key", GESELL_BY=town.bob.did)("balance")).status == 0


async def test_a_second_device_is_added_and_revoked(town: Town) -> None:
    bob, phone = town.wallet.of("bob.key"), town.wallet.of("phone.key")
    Peer.new().save(town.folder / "phone.key", passphrase=None)
    assert "may sign for you" in (await bob("key", "add", "phone.key")).out
    assert "Paid 1 WRG" in (await phone("pay", "ada", "1")).out
    assert (await phone("key", "revoke", town.bob.did)).status == 1  # an added key revokes none that was before it
    assert "no more" in (await bob("key", "revoke", "phone.key")).out
    assert (await phone("pay", "ada", "1")).status == 1


async def test_key_commands_tell_the_key_that_signs_from_the_key_they_are_about(town: Town) -> None:
    wallet = town.wallet.of("nobody.key")
    Peer.new().save(town.folder / "phone.key", passphrase=None)
    done = await wallet("key", "add", "phone.key", "--key", "bob.key")
    assert done.status == 0, done.err
    assert f"keep phone.key.by beside the key, or say --by {town.bob.did}" in done.out
    done = await wallet("key", "revoke", "phone.key", "--key", "bob.key")
    assert "no more" in done.out, done.err


async def test_a_key_that_does_not_sign_for_its_holder_is_told_so(town: Town) -> None:
    Peer.new().save(town.folder / "phone.key", passphrase=None)
    bob, phone = town.wallet.of("bob.key"), town.wallet.of("phone.key")
    assert (await bob("key", "add", "phone.key")).status == 0
    done = await phone("key", "revoke", "bob.key")  # it is bob's, and may not: its standing, not its being
    assert "keys that were added after it (not-authorised)" in done.err
    assert "does not sign for you" not in done.err
    assert (await bob("key", "revoke", "phone.key")).status == 0
    done = await phone("key", "revoke", town.bob.did)
    assert done.err == (
        "gesell: This key does not sign for you (any more).\n"
        "        Nothing was applied. If you rotated it, say --key NEW; if it was added to another's, --by DID.\n"
    )
    done = await bob("issue", "ada", "1")
    assert "issue takes the signature of a steward" in done.err
    assert "--cosign" in done.err


async def test_a_device_elsewhere_is_added_by_a_file_that_it_cosigns(town: Town) -> None:
    away = town.folder / "away"
    away.mkdir()
    key = Peer.new()
    key.save(away / "phone.key", passphrase=None)
    bob, phone = town.wallet.of("bob.key"), town.wallet.of("away/phone.key")
    assert (await bob("key", "add", key.did)).status == 2
    assert (await bob("key", "add", key.did, "--draft", "add.json")).status == 0
    refused = await phone("cosign", "add.json")
    assert (refused.status, "--yes" in refused.err) == (2, True)
    done = await phone("cosign", "add.json", "--yes")
    assert f"add         {key.did}" in done.out, done.err
    assert (await bob("send", "add.json")).status == 0
    assert noted(away / "phone.key") == {town.commons: town.bob.did}
    assert "Paid 1 WRG" in (await phone("pay", "ada", "1")).out


@pytest.mark.parametrize("words", [("bob.key",), ("copy.key",), ("link.key",), ()], ids=str)
async def test_a_key_does_not_take_its_own_place(town: Town, words: tuple[str, ...]) -> None:
    for name in ("copy.key", "bob.key.new"):
        (town.folder / name).write_bytes((town.folder / "bob.key").read_bytes())
    (town.folder / "link.key").symlink_to("bob.key")
    done = await town.wallet.of("bob.key")("key", "rotate", *words, "--no-passphrase")
    assert (done.status, done.out) == (2, "")
    assert "Nothing was sent" in done.err
    assert Peer.load(town.folder / "bob.key") == town.bob
    assert not (town.folder / "bob.key.by").exists()


async def test_a_rotation_to_a_key_that_was_added_before_revokes_the_old_one(town: Town) -> None:
    Peer.new().save(town.folder / "phone.key", passphrase=None)
    bob = town.wallet.of("bob.key")
    assert (await bob("key", "add", "phone.key")).status == 0
    assert "signs no more" in (await bob("key", "rotate", "phone.key")).out
    assert "Paid 1 WRG" in (await town.wallet.of("phone.key")("pay", "ada", "1")).out
    assert (await bob("pay", "ada", "1")).status == 1


async def test_a_rotation_that_ended_between_the_files_is_finished_by_a_second_call(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = Peer.new()
    new.save(town.folder / "bob.key.new", passphrase=None)
    write_note(town.folder / "bob.key.new", commons=town.commons, by=town.bob.did)
    async with Client(town.url, commons=town.commons, peer=town.bob) as client:
        await client.rotate(new)

    def end(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    old, fresh = town.folder / "bob.key", town.folder / "bob.key.new"
    monkeypatch.setattr(key_swap, "finish", end)
    with pytest.raises(KeyboardInterrupt):
        key_swap.take_place(old, fresh, commons=town.commons, by=town.bob.did)
    bob = town.wallet.of("bob.key")
    assert "Paid 1 WRG" in (await bob("pay", "ada", "1")).out  # it works before
    done = await bob("key", "rotate", "--no-passphrase")
    assert "This finished an earlier rotation" in done.out, done.err
    assert Peer.load(town.folder / "bob.key") == new
    assert Peer.load(town.folder / "bob.key.old") == town.bob
    assert not (town.folder / "bob.key.new.by").exists()
    assert "Paid 1 WRG" in (await bob("pay", "ada", "1")).out
