"""Clients and wallets that check a real service: what it shows holds, and what its operator does to it is found out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from gesell import Client, Equivocation, NotFound, Peer, Receipt, Unwitnessed, WrongKey, verifying
from gesell.sync import Client as SyncClient
from gesell_ledger.keyfile import load_or_make_key
from gesell_ledger.storage.embedded import PrivatePostgres
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.reading import Reader
from gesell_protocol.log import leaf_hash, read_leaf
from gesell_protocol.names import did_of, peer_of
from gesell_protocol.notes import WITNESS_KEY, NoteKey, read_checkpoint, read_note
from gesell_protocol.proofs import read_extra, read_proof_file, verify_receipt
from gesell_protocol.tree import Frontier
from tests.e2e.wallet import Wallet
from tests.forked import run_gesell, scripts
from tests.running import Service, lay_cluster
from tests.speaking import signer_of
from tests.witnesses import WitnessProcess

MEMBER_PAGE = Path(__file__).resolve().parents[2] / "docs" / "member.md"


@dataclass(frozen=True)
class Town:
    """A commons with ada, its steward, and bob, who has 1,000 in hand; key files in `folder`."""

    url: str
    commons: str
    ada: Peer
    bob: Peer
    folder: Path

    @property
    def wallet(self) -> Wallet:
        return Wallet(self.folder, self.url, self.commons)

    @asynccontextmanager
    async def client(self, **more: object) -> AsyncIterator[Client]:
        """Bob's client, which remembers in the folder `seen`."""
        more = {"memory": self.folder / "seen", "patience": 10, **more}
        async with Client(self.url, commons=self.commons, peer=self.bob, **more) as client:  # type: ignore[arg-type]
            yield client


async def found(url: str, folder: Path) -> Town:
    ada, bob = Peer.new(), Peer.new()
    ada.save(folder / "ada.key", passphrase=None)
    bob.save(folder / "bob.key", passphrase=None)
    async with Client(url, peer=ada) as client:
        commons = await client.found(name="Town", currency="WRG", scale=2)
        await client.join("ada")
        await client.admit(ada)
        await client.as_peer(bob).join("bob")
        await client.admit(bob)
        await client.issue(bob, "1000")
    return Town(url, commons, ada, bob, folder)


@pytest.fixture
async def town(service: Service, folder: Path) -> Town:
    return await found(service.url, folder)


@contextmanager
def own_service(folder: Path) -> Iterator[Service]:
    lay_cluster(folder / "data")
    service = Service(folder, "--min-tick-seconds", "1")
    try:
        yield service.start()
    finally:
        service.end()


async def pay_many(client: Client, count: int) -> list[Receipt]:
    fields = {"type": "pay", "legs": [("ada", "0.01")]}
    envelopes = [await client.sign(fields) for _ in range(count)]
    return [result.receipt_or_raise() for result in await client.submit(envelopes)]


# ── What holds ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_log_of_a_real_ledger_holds_what_it_gave_receipts_for(town: Town) -> None:
    async with town.client() as client:
        for count in (1, 260, 300):
            receipts = await pay_many(client, count)
            checked = await client.check()
            assert checked.proven == count
            assert checked.size == receipts[-1].seq
        with SyncClient(town.url, commons=town.commons, peer=town.ada) as ada:
            ada.pay(town.bob, "0.01")
            assert ada.check(seen=checked.note).size == checked.size + 1
        early = await client.check()
    assert (early.size, early.since_size) == (checked.size + 1, 6)
    async with town.client() as again:
        assert (await again.check()).since_ms == checked.since_ms


async def test_many_at_once_are_all_proven(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "CHECK_EVERY_SECONDS", 0.05)
    async with town.client() as client:
        await asyncio.gather(*(client.pay("ada", "0.01") for _ in range(60)))
        assert (await client.check()).size == 66
        assert not client._link.checks.has_unproven


async def test_a_proof_holds_without_the_ledger(town: Town) -> None:
    async with town.client() as client:
        receipts = await pay_many(client, 300)
        text = await client.proof(receipts[10])
        ledger = (await client.check()).ledger
        with pytest.raises(NotFound):
            await client.proof("0198c7a0-0000-7000-8000-000000000000")
    proven = verify_receipt(text, ledger=peer_of(ledger))
    assert proven.statement.id == receipts[10].id
    assert proven.leaf.postings == receipts[10].postings


async def test_the_wallet_keeps_receipts_and_reads_them_anywhere(town: Town, folder: Path) -> None:
    bob = town.wallet.of("bob.key")
    done = await bob("pay", "ada", "2.50", "--for", "bread", "--json")
    name = json.loads(done.out)["id"]
    done = await bob("receipt", "get", name, "--to", "rent.receipt")
    assert done.status == 0, done.err
    ledger = done.out.split()[-1]

    elsewhere = Wallet(folder, "http://127.0.0.1:1").of("nobody.key")
    done = await elsewhere("receipt", "verify", "rent.receipt", "--ledger", ledger)
    assert done.status == 0, done.err
    assert f"Pay 2.5 WRG to {town.ada.did}" in done.out
    assert f"-2.5 WRG {town.bob.did} (pay)" in done.out
    assert ", tick " in done.out
    assert "expired" not in done.out
    done = await elsewhere("receipt", "verify", "rent.receipt", "--ledger", ledger, "--json")
    told = json.loads(done.out)
    assert (told["id"], told["by"], told["ledger"], told["cosigned"]) == (name, town.bob.did, ledger, 0)

    for words, why in (
        (("rent.receipt", "--ledger", town.ada.did), "not signed by"),
        (("rent.receipt", "--ledger", ledger, "--witness", "w.example+0fe2b6ee+AQ", "--quorum", "1"), ""),
        (("bob.key", "--ledger", ledger), "begins with"),
        (("gone.receipt", "--ledger", ledger), "can't be read"),
        (("rent.receipt",), "--ledger"),
    ):
        done = await elsewhere("receipt", "verify", *words)
        assert done.status in (1, 2), words
        assert why in done.err
        assert done.out == ""
    spoilt = (folder / "rent.receipt").read_text().replace("index ", "index 1")
    (folder / "spoilt.receipt").write_text(spoilt)
    done = await elsewhere("receipt", "verify", "spoilt.receipt", "--ledger", ledger)
    assert (done.status, "proves nothing" in done.err) == (1, True)


async def test_the_wallet_shows_and_compares_checkpoints(town: Town, folder: Path) -> None:
    bob, ada = town.wallet.of("bob.key"), town.wallet.of("ada.key", XDG_STATE_HOME=str(folder / "hers"))
    done = await bob("checkpoint", "--to", "seen")
    assert done.status == 0, done.err
    assert "has 6 entries" in done.out
    assert (await bob("pay", "ada", "1")).status == 0
    done = await ada("checkpoint", "--seen", "seen", "--json")
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert (told["size"], told["since_size"]) == (7, 7)
    assert read_checkpoint(read_note((folder / "seen").read_text())).size == 6
    kept = folder / ".local/state/gesell/logs" / f"{town.commons}.json"
    assert json.loads(kept.read_text())["since_size"] == 6


async def test_a_wallet_that_demands_witnesses_of_a_ledger_without_any_pays_nothing(town: Town) -> None:

    vkey = str(NoteKey("w.example/w", signer_of("w").public_key, WITNESS_KEY))
    async with town.client(witnesses=[vkey], patience=0.5) as client:
        with pytest.raises(Unwitnessed):
            await client.pay("ada", "1")
        assert (await client.history(page=1).__anext__()).type == "issue"


async def test_receipts_and_checkpoints_of_the_members_page_run_as_they_are_written(town: Town, folder: Path) -> None:
    blocks = [text for text in re.findall(r"```sh\n(.*?)```", MEMBER_PAGE.read_text(), re.DOTALL) if "--to " in text]
    assert len(blocks) == 2
    async with town.client() as client:
        ledger = (await client.service()).ledger
    path = f"{scripts()}:{os.environ['PATH']}"
    told = {"HOME": str(folder), "PATH": path, "GESELL_URL": town.url, "GESELL_COMMONS": town.commons}
    command = ["bash", "-euc", "\n".join(blocks).replace("did:key:z6Mk…", ledger)]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=told, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"Pay 2.5 WRG to {town.ada.did}" in done.stdout
    assert "The other checkpoint is of the same log." in done.stdout


async def test_two_of_three_real_witnesses_are_enough_and_three_are_not_while_one_is_down(folder: Path) -> None:
    ledger = load_or_make_key(folder / "ledger.key", passphrase=None)
    did = did_of(ledger.public_key)
    witnesses = [WitnessProcess(folder, f"witness.example/w{n}", "--ledger", did) for n in range(3)]
    lay_cluster(folder / "data")
    service = Service(folder, "--min-tick-seconds", "1", "--key", str(folder / "ledger.key"))
    try:
        vkeys = [str(one.start().key) for one in witnesses]
        words = [word for vkey in vkeys for word in ("--witness", vkey)]
        witnesses[2].kill()
        service.start(*(word for one in witnesses for word in ("--witness", f"{one.key} {one.url}")))
        town = await found(service.url, folder)
        async with town.client(witnesses=vkeys, quorum=2, patience=60, ledger=did) as client:
            receipts = await pay_many(client, 20)
            checked = await client.check()
            assert checked.proven == 20
            assert set(checked.witnesses) == {str(one.key.name) for one in witnesses[:2]}
            (folder / "rent.receipt").write_text(await client.proof(receipts[0]))
        async with town.client(witnesses=vkeys, patience=2) as client:
            with pytest.raises(Unwitnessed, match="3 must have"):
                await client.pay("ada", "1")
        bob = town.wallet.of("bob.key")
        done = await bob("pay", "ada", "1", *words, "--quorum", "2")
        assert done.status == 0, done.err
        done = await town.wallet.of("bob.key", GESELL_WITNESSES=" ".join(vkeys[:2]))("checkpoint")
        assert "cosigned by   witness.example/w0, witness.example/w1" in done.out, done.err
    finally:
        service.end()
        for one in witnesses:
            one.kill()
    done = await bob("receipt", "verify", "rent.receipt", "--ledger", did, *words, "--quorum", "2")
    assert "2 of the 3 named have cosigned it" in done.out, done.err
    done = await bob("receipt", "verify", "rent.receipt", "--ledger", did, *words)
    assert (done.status, "2 of the witnesses have cosigned" in done.err) == (1, True)


# ── What is found out ────────────────────────────────────────────────────────────────────────────────────────────


async def edit(service: Service, commons: str, seq: int) -> None:
    """Do what an operator could: change when an entry was accepted, and make all hashes anew."""
    async with PrivatePostgres(service.folder / "data") as private:
        dsn = private.dsn(role=private.owner, database="postgres")
        owner = await asyncpg.connect(dsn)
        try:
            key = await owner.fetchval("SELECT commons_id FROM gesell.commons WHERE hash = $1", bytes.fromhex(commons))
            await owner.execute(
                "UPDATE gesell.entry SET at_ms = at_ms + 1 WHERE commons_id = $1 AND seq = $2", key, seq
            )
            async with open_pool(dsn) as pool:
                listed = await Reader(pool).list_entries(bytes.fromhex(commons), after=0, limit=10_000)
            leaves = [leaf_hash(entry.leaf_data) for entry, _ in listed]
            tree, subtrees = Frontier().grown(leaves)
            await owner.executemany(
                "UPDATE gesell.entry SET leaf = $3 WHERE commons_id = $1 AND seq = $2",
                [(key, number, leaf) for number, leaf in enumerate(leaves, 1)],
            )
            await owner.executemany(
                "UPDATE gesell.subtree SET hash = $4 WHERE commons_id = $1 AND level = $2 AND place = $3",
                [(key, *subtree) for subtree in subtrees],
            )
            await owner.execute("UPDATE gesell.commons SET tree = $2 WHERE commons_id = $1", key, tree.pack())
        finally:
            await owner.close()


async def test_a_database_edited_by_hand_is_found_out_by_who_saw_it_before(folder: Path) -> None:
    with own_service(folder) as service:
        town = await found(service.url, folder)
        bob = town.wallet.of("bob.key")
        async with town.client() as client:
            receipts = await pay_many(client, 300)
        assert (await bob("balance")).status == 0
        assert service.stop() == 0
        await edit(service, town.commons, receipts[3].seq)
        service.start()

        async with town.client(check=False) as client:
            with pytest.raises(Equivocation) as caught:
                await client.check()
            assert caught.value.proves
        async with town.client() as client:
            with pytest.raises(Equivocation):
                await client.pay("ada", "1")
            assert (await client.commons()).seq == 306  # it was not sent
        async with town.client(memory=None) as client:
            await pay_many(client, 3)  # who never saw it has nothing to hold against it

        done = await bob("balance")
        assert done.status == 1
        assert "996.97 WRG" in done.out  # what it says is shown, and that it can't be trusted
        [line, advice] = done.err.splitlines()
        assert "another past" in line
        file = Path(advice.partition("others: ")[2].split(". ")[0])
        evidence = json.loads(await asyncio.to_thread(file.read_text))
        assert evidence["proves"] is True
        assert read_checkpoint(read_note(evidence["first"])).size == 306
        assert (await bob("pay", "ada", "1")).status == 1
        async with town.client(memory=None) as client:
            assert (await client.commons()).seq == 309


async def test_a_service_restored_from_an_old_copy_of_its_data_is_found_out(folder: Path) -> None:
    with own_service(folder) as service:
        town = await found(service.url, folder)
        async with town.client() as client:
            await pay_many(client, 5)
        assert service.stop() == 0
        # With its owner: under root a private PostgreSQL belongs to another user.
        await asyncio.to_thread(subprocess.run, ["cp", "-a", str(folder / "data"), str(folder / "copy")], check=True)
        service.start()
        async with town.client() as client:
            await pay_many(client, 5)
        assert service.stop() == 0
        shutil.rmtree(folder / "data")
        (folder / "copy").rename(folder / "data")
        service.start()

        async with town.client(check=False) as client:
            with pytest.raises(Equivocation, match="16 entries, and shows one of 11") as caught:
                await client.check()
            assert not caught.value.proves
            await pay_many(client, 10)
            with pytest.raises(Equivocation, match="another past") as caught:
                await client.check()
            assert caught.value.proves


async def test_a_rekey_is_followed_and_another_key_is_not(folder: Path) -> None:
    with own_service(folder) as service:
        town = await found(service.url, folder)
        async with town.client() as client:
            await pay_many(client, 5)
            before = await client.check()
        assert service.stop() == 0
        words = ["--data", str(folder / "data"), "--new-key", str(folder / "new.key")]
        done = await asyncio.to_thread(run_gesell, "rekey", *words, timeout=120)
        assert done.returncode == 0, done.stderr
        service.start("--key", str(folder / "new.key"))
        async with town.client() as client:
            [receipt] = await pay_many(client, 1)
            after = await client.check(seen=before.note)
            text = await client.proof(receipt)
        assert after.ledger != before.ledger
        for ledger in (before.ledger, after.ledger):
            proven = verify_receipt(text, ledger=peer_of(ledger))
            assert read_leaf(leaf_data_of(text)).seq == proven.leaf.seq == receipt.seq
            async with town.client(memory=None, ledger=ledger) as client:
                assert (await client.check()).ledger == after.ledger
        async with town.client(memory=None, ledger=town.ada.did) as client:
            with pytest.raises(WrongKey):
                await client.pay("ada", "1")


def leaf_data_of(text: str) -> bytes:
    return read_extra(read_proof_file(text).extra).leaf
