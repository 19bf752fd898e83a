"""A database edited by hand, hashes and all, and served with the ledger's real key, is audited over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gesell_ledger import ground
from gesell_ledger.importing import check_log, import_log
from gesell_ledger.storage.migrate import migrate
from gesell_ledger.storage.postgres import open_pool
from gesell_ledger.storage.reading import Reader
from gesell_protocol.canonical import unpack
from gesell_protocol.log import leaf_hash
from gesell_protocol.statements import write_body
from gesell_protocol.tree import Frontier
from tests.forgeries import BEN, CARL, honest
from tests.forked import run_gesell
from tests.histories import CODE
from tests.integration.test_import import NEW_KEY, write_key
from tests.own_postgres import OwnPostgres
from tests.running import Service, open_folder


@pytest.fixture(scope="module")
def template(postgres: OwnPostgres) -> str:
    """A database that holds the story as it is."""
    name = postgres.make_database()
    asyncio.run(migrate(postgres.owner_dsn(name)))
    with open_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ground, "SILENCE_SECONDS", 0.0)
        path = honest().write(folder / "log")
        verdict = check_log(path, ledger=NEW_KEY.public_key)
        asyncio.run(import_log(postgres.service_dsn(name), path, verdict, key=NEW_KEY, demo=False))
    return name


def hash_anew(postgres: OwnPostgres, database: str) -> None:
    """Bring all hashes in line with what stands in the tables now. The tree is too small for whole tiles."""

    async def read() -> list[bytes]:
        async with open_pool(postgres.owner_dsn(database)) as pool:
            listed = await Reader(pool).list_entries(honest().commons, after=0, limit=1_000)
            return [leaf_hash(entry.leaf_data) for entry, _ in listed]

    leaves = asyncio.run(read())
    tree, _ = Frontier().grown(leaves)
    postgres.execute(
        database,
        *(f"UPDATE gesell.entry SET leaf = '\\x{leaf.hex()}' WHERE seq = {seq}" for seq, leaf in enumerate(leaves, 1)),
        f"UPDATE gesell.commons SET tree = '\\x{tree.pack().hex()}'",
    )


@contextmanager
def served(postgres: OwnPostgres, database: str) -> Iterator[tuple[Service, Path]]:
    with open_folder() as folder:
        secret = write_key(folder / "key", NEW_KEY)
        words = ("--database", postgres.service_dsn(database), "--key", str(secret), "--unsafe-durability")
        service = Service(folder, *words, "--accept-clock")
        try:
            yield service.start(), folder
        finally:
            service.end()


def audited(service: Service, *words: str | Path) -> dict[str, Any]:
    ended = run_gesell("audit", service.url, "--json", *words, timeout=120)
    assert ended.stderr == ""
    verdict = json.loads(ended.stdout)
    assert isinstance(verdict, dict)
    assert ended.returncode == (0 if verdict["holds"] else 1)
    return verdict


def test_an_amount_edited_in_the_postings_is_caught(postgres: OwnPostgres, template: str) -> None:
    database, seq = postgres.make_database(template=template), honest().place("pay ben")
    for holder, more in ((BEN, -1), (CARL, 1)):
        postgres.execute(
            database,
            f"UPDATE gesell.posting p SET amount = p.amount + {more}, balance = p.balance + {more}"
            f" FROM gesell.account a WHERE p.seq = {seq} AND a.commons_id = p.commons_id AND a.number = p.account"
            f" AND a.holder = '\\x{holder.hex()}' AND a.asset = '{CODE}'",
        )
    hash_anew(postgres, database)
    with served(postgres, database) as (service, _):
        finding = audited(service)["finding"]
    assert (finding["code"], finding["entry"]) == ("posting", seq)


def test_a_body_edited_is_caught(postgres: OwnPostgres, template: str) -> None:
    database, seq = postgres.make_database(template=template), honest().place("pay ben")
    body = unpack(honest().leaf("pay ben").body)
    assert isinstance(body, dict)
    edited = write_body({**body, "category": "rent"})
    postgres.execute(database, f"UPDATE gesell.entry SET body = '\\x{edited.hex()}' WHERE seq = {seq}")
    hash_anew(postgres, database)
    with served(postgres, database) as (service, _):
        finding = audited(service)["finding"]
    assert (finding["code"], finding["entry"]) == ("signature", seq)


def test_a_time_edited_within_its_bounds_is_caught_by_who_holds_an_earlier_checkpoint(
    postgres: OwnPostgres, template: str
) -> None:
    # No signature covers the time at which the ledger accepted, so only what it signed before tells.
    database, seq = postgres.make_database(template=template), honest().size
    postgres.execute(
        database,
        f"UPDATE gesell.entry SET at_ms = at_ms + 1 WHERE seq = {seq}",
        "UPDATE gesell.commons SET at_ms = at_ms + 1",
    )
    hash_anew(postgres, database)
    with served(postgres, database) as (service, folder):
        held, receipt = folder / "checkpoint", folder / "receipt"
        held.write_text(str(honest().note()))
        receipt.write_text(honest().receipt(seq))
        assert audited(service)["holds"]
        assert audited(service, "--checkpoint", held)["finding"]["code"] == "equivocation"
        assert audited(service, "--receipt", receipt)["finding"]["code"] == "receipt"
        earlier = folder / "earlier"
        earlier.write_text(str(honest().note(size=seq - 1)))
        assert audited(service, "--checkpoint", earlier)["holds"]


def test_a_database_that_nobody_edited_holds(postgres: OwnPostgres, template: str) -> None:
    database = postgres.make_database(template=template)
    hash_anew(postgres, database)
    with served(postgres, database) as (service, folder):
        receipt = folder / "receipt"
        receipt.write_text(honest().receipt(honest().place("pay ben"), size=20))
        verdict = audited(service, "--receipt", receipt)
    assert verdict["holds"]
