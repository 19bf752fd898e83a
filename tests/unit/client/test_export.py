"""Exports: every format tells the books to the grain, nothing that people wrote breaks one, and no half file stays.

A history is lived through core beside the plain model, written as a log file, exported, and read back by what reads
such files: csv, json, pyarrow, hledger, beancount. The commands of the last two are not the project's; where they are
missing those tests say so.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gesell.export_books import Asset, Books, padded
from gesell.export_commands import Export
from gesell.export_draft import draft_of
from gesell.export_source import BadLog, Source, file_source
from gesell.export_tables import COLUMNS
from gesell.journal_names import beancount_names, hledger_names
from gesell_protocol.envelopes import Memo
from gesell_protocol.log import Posting, leaf_data, read_leaf
from gesell_protocol.names import did_of, peer_of
from gesell_protocol.notes import Note, read_checkpoint
from gesell_protocol.statements import write_body
from tests.histories import CODE, LEDGER, Twin, key
from tests.lives import Life
from tests.log_files import LEDGER_SIGNER, checkpoint_over, entry_of, log_file
from tests.speaking import HOUR_MS, name_of, sign_body, signer_of, write_envelope, write_found
from tests.speaking import fields_of as fields_in

NOW_MS: Final = 1_767_225_600_000
FORMATS: Final = ("log", "hledger", "beancount", "csv", "jsonl", "parquet")
Sums = dict[tuple[str, str], int]
MISSING: Final = "is not installed here"

needs_hledger = pytest.mark.skipif(shutil.which("hledger") is None, reason=f"hledger {MISSING}")
needs_beancount = pytest.mark.skipif(shutil.which("bean-check") is None, reason=f"bean-check {MISSING}")


# ── Histories ────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def town() -> Twin:
    """A short history with all that journals have names for: melt, categories, kinds of gifts, escrow, odd handles."""
    twin = Twin(admission="steward", credit_limit=5_000_000)
    steward = twin.stewards[0]
    people = {"a_b": key("anna"), "a-b": key("ben"), "zoe": key("zoe")}
    for handle, peer in people.items():
        twin.done("join", peer, handle=handle)
        twin.done("admit", steward, peer=peer)
    anna, ben, zoe = people.values()
    twin.done(
        "kind", steward, code="bread-", name='Bread & "roses"; \\ date:2020-01-01 [2020-02-02]', unit="1", scale=0
    )
    twin.done("issue", steward, to=anna, amount=900_000_000)
    twin.pass_ticks(3)
    secret = Memo(b"s" * 16, "A secret between two")
    twin.done("pay", anna, legs=[[ben, 123_456_789], [zoe, 1]], category="lift", memo=secret)
    held = twin.fields("hold", ben, to=zoe, amount=5_000_000, until=twin.now_ms + 5 * HOUR_MS, category="listening")
    twin.submit(held, [ben])
    twin.pass_ticks(1)
    twin.done("capture", zoe, hold=held["id"], amount=2_000_000)
    for kind, quantity in (("bread-", 3), ("hour", 150)):
        gift = twin.fields("gift", anna, to=ben, kind=kind, quantity=quantity, category="answer")
        twin.submit(gift, [anna])
        twin.done("thank", ben, gift=gift["id"])
    twin.done("share", steward, amount=1_000)
    twin.pass_ticks(2)
    twin.done("sweep", LEDGER, accounts=sorted([anna, ben, zoe]))
    return twin


@cache
def life() -> Twin:
    """A long history in which everything happens that can."""
    made = Life(random.Random(5))
    for _ in range(1_200):
        made.step()
    return made.twin


HISTORIES: Final = pytest.mark.parametrize("history", [town, life])


def leaves(twin: Twin) -> list[bytes]:
    return [entry.leaf_data for entry in twin.entries]


def sums_of(twin: Twin) -> Sums:
    """The balances as the books have them, by holder as text and asset; those of 0 left out."""
    return {
        (_text(holder), asset): held.balance
        for (holder, asset), held in twin.books.accounts.items()
        if held.balance != 0
    }


def _text(holder: bytes | str) -> str:
    return holder if isinstance(holder, str) else did_of(holder)


def exported(data: bytes, format: str, folder: Path, *, name: str = "out") -> Path:
    """A log file exported into a folder."""
    (folder / "log").write_bytes(data)
    to = folder / name
    with file_source(folder / "log") as source, draft_of(str(to)) as file:
        export = Export(source, file, format=format)
        for piece in source.pieces:
            export.take(piece)
        export.finish()
    return to


def run(*command: str | Path) -> str:
    """What a command says; fails with all it said if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def fails(*command: str | Path) -> bool:
    return subprocess.run(command, capture_output=True, timeout=120, check=False).returncode != 0


# ── Tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


@HISTORIES
def test_a_csv_file_sums_to_the_books(history: Callable[[], Twin], tmp_path: Path) -> None:
    twin = history()
    with (exported(log_file(leaves(twin)), "csv", tmp_path)).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert len(rows) == sum(len(entry.postings) for entry in twin.entries)
    scales = _scales(twin)
    sums = Counter[tuple[str, str]]()
    for row in rows:
        sums[row["holder"], row["asset"]] += int(Decimal(row["amount"]).scaleb(scales[row["asset"]]))
    assert {name: grains for name, grains in sums.items() if grains} == sums_of(twin)


def _scales(twin: Twin) -> dict[str, int]:
    assert twin.books.commons is not None
    return {CODE: 6, **{code: kind.scale for code, kind in twin.books.commons.kinds.items()}}


@HISTORIES
def test_json_lines_sum_to_the_books(history: Callable[[], Twin], tmp_path: Path) -> None:
    twin = history()
    lines = (exported(log_file(leaves(twin)), "jsonl", tmp_path)).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    sums = Counter[tuple[str, str]]()
    for row in rows:
        assert type(row["amount"]) is str, "a number of JSON is a float in many languages"
        sums[row["holder"], row["asset"]] += int(row["amount"])
    assert {name: grains for name, grains in sums.items() if grains} == sums_of(twin)
    told = [(row["seq"], row["at"], row["reason"], row["holder"], row["amount"]) for row in rows]
    assert told == [
        (entry.seq, entry.at_ms, posting.reason, _text(posting.holder), str(posting.amount))
        for entry in twin.entries
        for posting in entry.postings
    ]
    assert {row["asset"]: row["scale"] for row in rows}.items() <= _scales(twin).items()


@HISTORIES
def test_a_parquet_file_sums_to_the_books(history: Callable[[], Twin], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason=f"pyarrow {MISSING}")
    twin = history()
    path = exported(log_file(leaves(twin)), "parquet", tmp_path)
    table = parquet.read_table(path)
    scales, sums = _scales(twin), Counter[tuple[str, str]]()
    for row in table.to_pylist():
        sums[row["holder"], row["asset"]] += row["grains"]
        assert row["amount"] == Decimal(row["grains"]).scaleb(-scales[row["asset"]])
    assert {name: grains for name, grains in sums.items() if grains} == sums_of(twin)
    first = table.slice(0, 1).to_pylist()[0]
    entry = next(entry for entry in twin.entries if entry.postings)
    assert (first["seq"], first["at"].timestamp() * 1000) == (entry.seq, entry.at_ms)
    assert str(first["at"].tzinfo) == "UTC"
    assert table.schema.metadata[b"gesell.checkpoint"].decode() == str(checkpoint_over(leaves(twin)))


def test_a_parquet_file_is_written_in_groups_and_may_have_no_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason=f"pyarrow {MISSING}")
    monkeypatch.setattr("gesell.export_tables.GROUP_ROWS", 4)
    path = exported(log_file(leaves(town())), "parquet", tmp_path)
    written = parquet.ParquetFile(path).metadata
    assert written.num_row_groups > 2
    assert written.num_rows == sum(len(entry.postings) for entry in town().entries)
    none = exported(log_file(leaves(town())[:3]), "parquet", tmp_path)
    assert parquet.read_table(none).num_rows == 0


def test_what_answers_a_hold_or_a_gift_bears_its_category(tmp_path: Path) -> None:
    with (exported(log_file(leaves(town())), "csv", tmp_path)).open(newline="") as file:
        rows = list(csv.DictReader(file))
    told = {(row["type"], row["category"]) for row in rows if row["reason"] != "melt"}
    assert {row["category"] for row in rows if row["reason"] == "melt"} == {""}, "nobody valued the melt"
    assert told >= {
        ("pay", "lift"),
        ("hold", "listening"),
        ("capture", "listening"),
        ("thank", "answer"),
        ("issue", ""),
    }


def test_no_format_tells_a_memo(tmp_path: Path) -> None:
    data = log_file(leaves(town()))
    for format in FORMATS[:-1]:
        assert b"secret" not in exported(data, format, tmp_path).read_bytes()


# ── Journals ─────────────────────────────────────────────────────────────────────────────────────────────────────


@needs_hledger
@HISTORIES
def test_hledger_takes_the_journal_strictly_and_has_the_books_balances(
    history: Callable[[], Twin], tmp_path: Path
) -> None:
    twin = history()
    path = exported(log_file(leaves(twin)), "hledger", tmp_path, name="books.journal")
    run("hledger", "-f", path, "check", "--strict")
    run("hledger", "-f", path, "check", "ordereddates")
    assert _hledger_sums(path, twin) == sums_of(twin)
    assert "assets:members:" in run("hledger", "-f", path, "balance", "--flat", "tag:reason=melt")


def _hledger_sums(path: Path, twin: Twin) -> Sums:
    """What `hledger balance` says, by holder as text and asset in grains."""
    dids = dict(re.findall(r"^account (\S+)  ; peer:(\S+)$", path.read_text(), re.MULTILINE))
    told = run("hledger", "-f", path, "balance", "--flat", "--no-total", "-O", "csv")
    sums, scales = Sums(), _scales(twin)
    for account, balance in list(csv.reader(io.StringIO(told)))[1:]:
        for amount in balance.split(", "):
            number, _, symbol = amount.partition(" ")
            code = symbol.strip('"')
            holder = dids.get(account, account.rsplit(":", 1)[-1])
            if Decimal(number):
                sums[holder, code] = int(Decimal(number).scaleb(scales[code]))
    return sums


@needs_beancount
@HISTORIES
def test_beancount_takes_the_journal_and_has_the_books_balances(history: Callable[[], Twin], tmp_path: Path) -> None:
    twin = history()
    path = exported(log_file(leaves(twin)), "beancount", tmp_path, name="books.beancount")
    run("bean-check", path)
    assert _beancount_sums(path, twin) == sums_of(twin)


def _beancount_sums(path: Path, twin: Twin) -> Sums:
    """What `bean-query` says, by holder as text and asset in grains."""
    text = path.read_text()
    dids = dict(re.findall(r'^\S+ open (\S+)\n  did: "(\S+)"$', text, re.MULTILINE))
    codes = dict(re.findall(r'commodity (\S+)\n  name: "gifts, ([a-z0-9-]+):', text))
    asked = "SELECT account, currency, sum(number) GROUP BY account, currency"
    sums, scales = Sums(), _scales(twin)
    for account, commodity, number in list(csv.reader(io.StringIO(run("bean-query", "-f", "csv", path, asked))))[1:]:
        code = codes.get(commodity.strip(), CODE)
        holder = dids.get(account.strip(), account.strip().rsplit(":", 1)[-1].lower())
        if Decimal(number.strip()):
            sums[holder, code] = int(Decimal(number.strip()).scaleb(scales[code]))
    return sums


def _one_grain_more(text: str, pattern: str) -> str:
    """The text with the number that a pattern's group finds one grain larger."""
    match = re.search(pattern, text, re.MULTILINE)
    assert match is not None
    number = Decimal(match[1])
    return text[: match.start(1)] + str(number + Decimal((0, (1,), number.as_tuple().exponent))) + text[match.end(1) :]  # type: ignore[arg-type]


@needs_hledger
@pytest.mark.parametrize(
    "pattern", [r"assets:members:a_b  0\.000000 WRG = (\S+)", r"assets:members:a-b  (\S+) WRG  ; reason:pay"]
)
def test_hledger_sees_a_grain_that_is_wrong(pattern: str, tmp_path: Path) -> None:
    path = exported(log_file(leaves(town())), "hledger", tmp_path)
    path.write_text(_one_grain_more(path.read_text(), pattern))
    assert fails("hledger", "-f", path, "check", "--strict")


@needs_beancount
@pytest.mark.parametrize("pattern", [r"balance Assets:Members:A-b  (\S+) ~", r"Assets:Members:A-b  (\S+) WRG"])
def test_beancount_sees_a_grain_that_is_wrong(pattern: str, tmp_path: Path) -> None:
    path = exported(log_file(leaves(town())), "beancount", tmp_path)
    path.write_text(_one_grain_more(path.read_text(), pattern))
    assert fails("bean-check", path)


def test_melt_stands_in_a_journal_as_postings_of_its_own(tmp_path: Path) -> None:
    text = (exported(log_file(leaves(town())), "hledger", tmp_path)).read_text()
    paid = re.search(r"^\S+ \* \(\d+\) a_b \| pay[^\n]*\n(?:    .*\n)+", text, re.MULTILINE)
    assert paid is not None
    lines = paid[0].splitlines()
    told = [line.rsplit("reason:", 1)[1] for line in lines[2:]]
    assert told == ["melt", "melt", *["pay, category:lift"] * 3]
    assert lines[2].startswith("    assets:members:a_b  -")
    assert lines[3].startswith("    assets:pool  ")


def test_a_journal_has_a_transaction_for_each_entry_that_posts(tmp_path: Path) -> None:
    for twin in (town(), life()):
        text = (exported(log_file(leaves(twin)), "hledger", tmp_path)).read_text()
        seqs = [int(seq) for seq in re.findall(r"^\S+ \* \((\d+)\) ", text, re.MULTILINE)]
        assert seqs == [entry.seq for entry in twin.entries if entry.postings]


# ── Names ────────────────────────────────────────────────────────────────────────────────────────────────────────

HOSTILE: Final = (
    '"; \\',
    'x" \n\n2020-01-01 open Assets:Mine'.replace("\n", "\u2028"),
    "; comment ; [2020-01-01] date:2020-02-02",
    "{{}} ${x} `x` $(x) <script>",
    "=cmd|' /C calc'!A0",
    "\u202eegrul\u202c \u200b",
    "end comment",
    "\\",
    '\\"',
    "'" * 64,
    "𝔘😀é́",
)


def hostile_log(name: str) -> list[bytes]:
    """A log whose commons and kind are called so, with some money and a gift."""
    anna, ben, steward = (signer_of(who) for who in ("anna", "ben", "steward"))
    found = write_found([steward], ledger=LEDGER, now_ms=NOW_MS)
    fields = {**fields_in(found), "name": name, "currency": {"code": "W2R", "scale": 3}}
    found = sign_body(write_body(fields), [steward])
    commons = name_of(found)

    def said(type_: str, by: Any, /, **fields: Any) -> Any:
        return write_envelope(type_, by.public_key, [by], now_ms=NOW_MS, commons=commons, **fields)

    gift = said("gift", anna, to=ben.public_key, kind="x-", quantity=7)
    gift_id = fields_in(gift)["id"]
    story: list[tuple[Any, list[Posting]]] = [
        (found, []),
        (said("join", anna, handle="anna"), []),
        (said("join", ben, handle="ben"), []),
        (said("kind", steward, code="x-", name=name, unit='";', scale=3), []),
        (said("issue", steward, to=anna.public_key, amount=1_234), [
            Posting("issue", "issuer", "W2R", -1_234), Posting("issue", anna.public_key, "W2R", 1_234),
        ]),
        (gift, []),
        (said("thank", ben, gift=gift_id), [
            Posting("gift", anna.public_key, "x-", -7), Posting("gift", ben.public_key, "x-", 7),
        ]),
    ]  # fmt: skip
    return [
        leaf_data(seq=seq, at_ms=NOW_MS, body=one.body, signatures=one.signatures, postings=postings)
        for seq, (one, postings) in enumerate(story, 1)
    ]


@needs_hledger
@needs_beancount
@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_breaks_a_journal(name: str, tmp_path: Path) -> None:
    data = log_file(hostile_log(name))
    hledger = exported(data, "hledger", tmp_path, name="a.journal")
    run("hledger", "-f", hledger, "check", "--strict")
    told = run("hledger", "-f", hledger, "balance", "--flat", "--no-total", "-O", "csv")
    assert dict(list(csv.reader(io.StringIO(told)))[1:]) == {
        "assets:members:anna": '1.234 "W2R"',
        "equity:gifts:anna": '-0.007 "x-"',
        "equity:gifts:ben": '0.007 "x-"',
        "equity:issuer": '-1.234 "W2R"',
    }
    beancount = exported(data, "beancount", tmp_path, name="a.beancount")
    run("bean-check", beancount)
    assert len(re.findall(r"^\d{4}-\d\d-\d\d open ", beancount.read_text(), re.MULTILINE)) == 4
    for path in (hledger, beancount):
        assert not re.search("[\u2028\u202e\u200b]", path.read_text()), "what can't be seen is in no line"


def _books(handles: dict[bytes, str], kinds: Sequence[str] = ()) -> Books:
    books = Books(handles=handles)
    books.assets["WRG"] = Asset("WRG", "town", "WRG", 2, is_gift=False)
    for kind in kinds:
        books.assets[kind] = Asset(kind, kind, "1", 0, is_gift=True)
    return books


ACCOUNT: Final = re.compile(r"(Assets|Liabilities|Equity|Income|Expenses)(:[A-Z0-9][A-Za-z0-9-]*)+")
COMMODITY: Final = re.compile(r"[A-Z][A-Z0-9'._-]{0,22}[A-Z0-9]")


@given(st.lists(st.from_regex(r"\A[a-z][ab_-]{1,30}\Z"), max_size=30))
def test_every_member_has_an_account_of_its_own_that_beancount_takes(handles: list[str]) -> None:
    peers = [number.to_bytes(32, "big") for number in range(1, len(handles) + 3)]
    books = _books(dict(zip(peers, handles, strict=False)), ["hour"])
    for names in (beancount_names(books), hledger_names(books)):
        places = [(holder, code) for holder in (*peers, "pool", "issuer", "escrow") for code in ("WRG", "hour")]
        accounts = [names.account_of(*place)[0] for place in places]
        assert len(set(accounts)) == len(places)
        assert [names.account_of(*place) for place in places] == [(account, False) for account in accounts]
    assert all(ACCOUNT.fullmatch(account) for account in (beancount_names(books).account_of(*p)[0] for p in places))


@given(st.lists(st.from_regex(r"\A[a-z][a-z0-9-]{1,31}\Z"), unique=True, max_size=20))
def test_every_kind_has_a_commodity_of_its_own_that_beancount_takes(kinds: list[str]) -> None:
    names = beancount_names(_books({}, kinds))
    commodities = [names.commodity_of(code)[0] for code in ("WRG", *kinds)]
    assert len(set(commodities)) == len(commodities)
    assert all(COMMODITY.fullmatch(name) for name in commodities), commodities


def test_names_are_the_plain_ones_where_nothing_is_in_the_way() -> None:
    anna, ben = key("anna"), key("ben")
    books = _books({anna: "anna", ben: "a_n"}, ["hour", "a-very-long-kind-of-gift-indeed", "end-"])
    names = beancount_names(books)
    assert names.account_of(anna, "WRG") == ("Assets:Members:Anna", True)
    assert names.account_of(ben, "hour")[0] == "Equity:Gifts:A-n"
    assert names.account_of("pool", "WRG")[0] == "Assets:Pool"
    assert names.account_of("issuer", "WRG")[0] == "Equity:Issuer"
    assert names.commodity_of("hour")[0] == "GIFT-HOUR"
    assert re.fullmatch("GIFT-A-VERY-LON-[0-9A-F]{8}", names.commodity_of("a-very-long-kind-of-gift-indeed")[0])
    assert re.fullmatch("GIFT-END-[0-9A-F]{8}", names.commodity_of("end-")[0])
    plain = hledger_names(books)
    assert plain.account_of(anna, "WRG")[0] == "assets:members:anna"
    assert plain.commodity_of("end-")[0] == '"end-"'
    assert plain.commodity_of("hour")[0] == "hour"


def test_of_names_that_fall_together_the_later_is_told_apart() -> None:
    anna, ben = key("anna"), key("ben")
    long = "a-very-long-kind-of-gift-indeed"
    books = _books({anna: "a_n", ben: "a-n"}, [long])
    names = beancount_names(books)
    assert names.account_of(anna, "WRG")[0] == "Assets:Members:A-n"
    assert names.account_of(ben, "WRG")[0] == f"Assets:Members:A-n-{did_of(ben)[-8:]}"
    taken = names.commodity_of(long)[0]
    made_so = taken.removeprefix("GIFT-").lower()
    books.assets[made_so] = Asset(made_so, "?", "1", 0, is_gift=True)
    other = names.commodity_of(made_so)[0]
    assert other == taken[:20] + "_2"
    assert COMMODITY.fullmatch(other)


def test_who_only_asked_for_a_handle_is_not_called_by_it() -> None:
    twin = Twin(admission="steward")
    steward, true, false = twin.stewards[0], key("anna"), key("ben")
    twin.done("join", false, handle="anna")
    twin.done("join", true, handle="anna")
    twin.done("admit", steward, peer=true)
    books = Books()
    for data in leaves(twin):
        books.take(data)
    assert books.handles == {true: "anna"}
    assert books.who(false) == did_of(false)


def test_who_joins_an_open_commons_is_called_by_its_handle_at_once() -> None:
    twin = Twin()
    twin.done("join", key("anna"), handle="anna")
    books = Books()
    for data in leaves(twin):
        books.take(data)
    assert books.who(key("anna")) == "anna"
    assert peer_of(books.who(key("ben"))) == key("ben")


def test_who_has_money_is_called_by_its_handle_though_nobody_admitted_it() -> None:
    twin = Twin()
    steward, anna = twin.stewards[0], key("anna")
    twin.done("policy", steward, policy={**twin.policy, "admission": "steward"}, from_tick=twin.tick + 9)
    twin.done("join", anna, handle="anna")
    twin.done("issue", steward, to=anna, amount=5)
    books = Books()
    for data in leaves(twin)[:-1]:
        books.take(data)
    assert books.handles == {}, "what the log tells so far does not say that it is active"
    books.take(leaves(twin)[-1])
    assert books.handles == {anna: "anna"}


@pytest.mark.parametrize(
    ("grains", "scale", "text"),
    [(0, 0, "0"), (0, 2, "0.00"), (-5, 2, "-0.05"), (50, 3, "0.050"), (-1_234_567, 3, "-1234.567"), (7, 0, "7"),
     (10**18, 9, "1000000000.000000000"), (-(10**18), 0, "-1000000000000000000")],
)  # fmt: skip
def test_amounts_are_written_with_all_their_decimals(grains: int, scale: int, text: str) -> None:
    assert padded(grains, scale=scale) == text
    assert int(Decimal(text).scaleb(scale)) == grains


# ── Logs that do not hold ────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_exported_as_a_log_is_the_same_bytes_compressed_or_not(tmp_path: Path) -> None:
    data = log_file(leaves(life()))
    assert exported(data, "log", tmp_path).read_bytes() == data
    assert exported(gzip.compress(data), "log", tmp_path).read_bytes() == data
    packed = exported(data, "log", tmp_path, name="x.gz").read_bytes()
    assert gzip.decompress(packed) == data
    assert exported(data, "log", tmp_path, name="y.gz").read_bytes() == packed, "no name in it"
    assert packed[4:8] == bytes(4), "no time in it"


def _with(place: int, **changed: Any) -> bytes:
    """The log with one entry changed, under the checkpoint of the true one."""
    entries = leaves(town())
    note = checkpoint_over(entries)
    entries[place] = leaf_data(**{**read_leaf(entries[place])._asdict(), **changed})
    return log_file(entries, note=note)


def _of(entries: Sequence[bytes]) -> bytes:
    """Other entries under the checkpoint of the true log."""
    return log_file(entries, note=checkpoint_over(leaves(town())))


def _length() -> int:
    return len(town().entries)


def _posted() -> int:
    return next(place for place, entry in enumerate(town().entries) if entry.postings)


def _grain_more() -> bytes:
    place = _posted()
    first, second, *more = town().entries[place].postings
    lie = [first._replace(amount=first.amount - 1), second._replace(amount=second.amount + 1), *more]
    return _with(place, postings=lie)


OTHER: Final = checkpoint_over(hostile_log("other"))
LIES: Final[dict[str, Callable[[], bytes]]] = {
    "a grain more moved": _grain_more,
    "an entry a millisecond later": lambda: _with(-1, at_ms=town().entries[-1].at_ms + 1),
    "an entry dropped at the end": lambda: _of(leaves(town())[:-1]),
    "an entry dropped before": lambda: _of([*leaves(town())[:4], *leaves(town())[5:]]),
    "two entries swapped": lambda: _of([leaves(town())[place] for place in (0, 1, 2, 4, 3, *range(5, _length()))]),
    "an entry twice": lambda: _of([*leaves(town()), leaves(town())[-1]]),
    "no founding": lambda: log_file(leaves(town())[1:]),
    "no entry": lambda: _of([]),
    "the file cut": lambda: _of(leaves(town()))[:-3],
    "compressed and cut": lambda: gzip.compress(_of(leaves(town())))[:-9],
    "signed by another ledger": lambda: log_file(leaves(town()), signer=signer_of("another ledger")),
    "under another log's checkpoint": lambda: log_file(leaves(town()), note=OTHER),
    "under a checkpoint that nobody signed": lambda: log_file(
        leaves(town()), note=Note(checkpoint_over(leaves(town())).text, OTHER.signatures)
    ),
    "no log": lambda: b"seq,at\n1,2\n",
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
@pytest.mark.parametrize("format", ["log", "hledger", "csv"])
def test_a_log_that_is_not_what_its_checkpoint_says_is_not_exported(
    lie: Callable[[], bytes], format: str, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("what was there before")
    with pytest.raises(BadLog):
        exported(lie(), format, tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["log", "out"]
    assert (tmp_path / "out").read_text() == "what was there before"


def test_no_more_is_read_than_the_checkpoint_covers(tmp_path: Path) -> None:
    with pytest.raises(BadLog, match="more entries than the"):
        exported(_of([*leaves(town()), *leaves(town())]), "log", tmp_path)


def _forged(place: int, **changed: Any) -> list[bytes]:
    """A log with one entry changed, which the ledger has signed like that."""
    entries = hostile_log("forged")
    entries[place] = leaf_data(**{**read_leaf(entries[place])._asdict(), **changed})
    return entries


def _founded_twice() -> list[bytes]:
    first = hostile_log("forged")[0]
    return [first, leaf_data(**read_leaf(first)._replace(seq=2)._asdict())]


_PEER: Final = signer_of("anna").public_key


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        (_forged(4, postings=[Posting("pay", _PEER, "EUR", 1)]), "nobody knows"),
        (_forged(4, postings=[Posting("pay", _PEER, "W2R\n2020-01-01 open X", 0)]), "nobody knows"),
        (_forged(4, postings=[Posting("pay", _PEER, "bread", 0)]), "nobody knows"),
        (_forged(4, postings=[Posting("bonus", _PEER, "W2R", 0)]), "nobody knows"),
        (_forged(4, postings=[Posting("pay\n    assets:mine", _PEER, "W2R", 0)]), "nobody knows"),
        (_forged(4, postings=[Posting("pay", _PEER, "W2R", 1)]), "sum to zero"),
        (_forged(4, postings=[Posting("pay", _PEER, "W2R", 1), Posting("pay", _PEER, "x-", -1)]), "sum to zero"),
        (_forged(4, postings=[Posting("pay", _PEER, "W2R", n) for n in (2**62, -(2**62))]), "more than any balance"),
        (_forged(4, seq=6), "stands where entry 5"),
        (_forged(4, at_ms=NOW_MS - 1), "before that of the last"),
        (_forged(6, at_ms=2**60), "beyond all calendars"),
        (_forged(4, body=b"\x80"), "can't be read"),
        (hostile_log("forged")[:1] * 2, "stands where"),
        (_founded_twice(), "no other such entry"),
        ([*hostile_log("forged")[:1], *hostile_log("another")[1:]], "another commons"),
    ],
)
def test_a_ledger_that_lies_breaks_no_journal(entries: list[bytes], why: str, tmp_path: Path) -> None:
    with pytest.raises(BadLog, match=why):
        exported(log_file(entries), "hledger", tmp_path)
    assert os.listdir(tmp_path) == ["log"]


def test_a_ledgers_new_key_is_followed_in_the_log_itself(tmp_path: Path) -> None:
    entries = hostile_log("rekeyed")
    new = signer_of("the ledger's new key")
    commons = name_of(entry_of(entries[0]))
    handed = write_envelope(
        "rekey", LEDGER, [LEDGER_SIGNER, new], now_ms=NOW_MS, commons=commons, ledger=new.public_key
    )
    entries.append(
        leaf_data(seq=len(entries) + 1, at_ms=NOW_MS, body=handed.body, signatures=handed.signatures, postings=[])
    )
    exported(log_file(entries, signer=new), "log", tmp_path)
    with pytest.raises(BadLog, match="not signed"):
        exported(log_file(entries), "log", tmp_path, name="old key")
    with pytest.raises(BadLog, match="not signed"):
        exported(log_file(entries[:-1], signer=new), "log", tmp_path, name="too early")


# ── Files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_interrupted_export_leaves_no_file_and_no_draft(tmp_path: Path) -> None:
    entries = leaves(town())
    note = checkpoint_over(entries)

    source = Source(note=note, checkpoint=read_checkpoint(note), pieces=())
    with pytest.raises(KeyboardInterrupt):
        _interrupted(source, entries[:5], tmp_path)
    assert os.listdir(tmp_path) == []


def _interrupted(source: Source[tuple[()]], entries: Sequence[bytes], folder: Path) -> None:
    with draft_of(str(folder / "out")) as file:
        Export(source, file, format="csv").take(entries)
        assert [name.endswith(".draft") for name in os.listdir(folder)] == [True]
        raise KeyboardInterrupt


def test_a_file_is_replaced_where_a_link_points_and_only_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "books").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "books")
    with draft_of(str(tmp_path / "link")) as file:
        file.write(b"new")
        assert (tmp_path / "link").read_text() == "old"
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "books").read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["books"]


@pytest.mark.parametrize("name", [".", "/dev/null", "/dev/full"])
def test_what_is_no_file_is_not_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no file"), draft_of(name):
        pass


def test_a_place_that_is_not_there_is_an_error_of_the_world(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), draft_of(str(tmp_path / "nowhere" / "books")):
        pass


@pytest.mark.parametrize("format", FORMATS)
def test_what_goes_to_the_standard_output_is_what_a_file_would_hold(
    format: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow.parquet", reason=f"pyarrow {MISSING}")
    whole = exported(log_file(leaves(town())), format, tmp_path).read_bytes()
    with file_source(tmp_path / "log") as source, draft_of("-") as file:
        export = Export(source, file, format=format)
        for piece in source.pieces:
            export.take(piece)
        export.finish()
        assert file.tell() == len(whole)
    assert capfdbinary.readouterr().out == whole
