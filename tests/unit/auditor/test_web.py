"""An audit over HTTP, of a log that lies as files on a plain web server, as tlog-tiles allows; and of hostile servers.

The server is real, and knows only paths and bytes; a ledger's own answers are audited in the tests of services.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from aiohttp import web

from gesell_ledger.auditor import web as module
from gesell_ledger.auditor.auditing import Question, audit_url
from gesell_ledger.auditor.findings import Verdict
from gesell_ledger.auditor.held import read_held
from gesell_ledger.auditor.web import BUNDLE_MAX_BYTES, FetchFault
from gesell_protocol.log import leaf_hash, write_bundle
from gesell_protocol.tree import TILE_WIDTH, Frontier, Tile, place_path, tile_width
from tests.forgeries import VKEYS, cosigned
from tests.forgery import Log, Scribe, log_of
from tests.histories import LEDGER, key

Answer = bytes | Callable[[web.Request], web.StreamResponse | Awaitable[web.StreamResponse]]

GZIP = {"Content-Encoding": "gzip"}


@pytest.fixture(scope="module")
def log() -> Log:
    """A log of three bundles, the last one partial."""
    scribe = Scribe()
    for name in ("anna", "ben"):
        scribe.admit(name)
    scribe.say("issue", key("sara"), to=key("anna"), amount=10**9)
    while len(scribe.entries) < 2 * TILE_WIDTH + 40:
        scribe.now_ms += 600_000
        scribe.say("pay", key("anna"), legs=[[key("ben"), 5]])
    return log_of(scribe, {})


def site_of(log: Log, *, partial: bool = True) -> dict[str, Answer]:
    """The files of a log below its commons; without `partial` only whole tiles, the last ones as far as they go."""
    root = f"/v1/commons/{log.commons.hex()}/log"
    site: dict[str, Answer] = {f"{root}/checkpoint": str(log.note()).encode()}
    hashes, subtrees = [leaf_hash(data) for data in log.entries], Frontier().grown(map(leaf_hash, log.entries))[1]
    levels = {0: hashes, 1: [one.hash for one in subtrees if one.level == 1]}
    for level, row in levels.items():
        for place in range(-(-len(row) // TILE_WIDTH)):
            width = tile_width(level, place, log.size)
            first = place * TILE_WIDTH
            named = width if partial else TILE_WIDTH
            site[f"{root}/tile/{Tile(level, place, named).path}"] = b"".join(row[first : first + width])
            if level == 0:
                bundle = write_bundle(log.entries[first : first + width])
                site[f"{root}/tile/entries/{place_path(place, named)}"] = bundle
    return site


@contextmanager
def serving(site: Mapping[str, Answer]) -> Iterator[str]:
    """A web server of these paths in a thread; yields its address."""
    loop = asyncio.new_event_loop()
    ready: asyncio.Future[int] = loop.create_future()

    async def answer(request: web.Request) -> web.StreamResponse:
        found = site.get(request.path)
        if found is None:
            return web.Response(status=404)
        made = found(request) if callable(found) else web.Response(body=found)
        return made if isinstance(made, web.StreamResponse) else await made

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        place = web.TCPSite(runner, "127.0.0.1", 0)
        await place.start()
        ready.set_result(runner.addresses[0][1])
        return runner

    runner = loop.run_until_complete(start())
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{ready.result()}"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def audited(url: str, question: Question | None = None, *, commons: str | None = None) -> Verdict:
    return asyncio.run(audit_url(url, question or Question(), commons=commons))


def commons_url(url: str, log: Log) -> str:
    return f"{url}/v1/commons/{log.commons.hex()}"


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 3)


@pytest.mark.parametrize("partial", [True, False])
def test_a_log_on_a_plain_web_server_holds(log: Log, partial: bool) -> None:
    with serving(site_of(log, partial=partial)) as url:
        verdict = audited(commons_url(url, log), Question(trusted=LEDGER))
    assert verdict.finding is None
    assert verdict.entries == log.size


def test_the_commons_may_be_named_in_each_way(log: Log) -> None:
    hexed = log.commons.hex()
    listed = json.dumps({"items": [{"commons": hexed, "name": "Wörgl"}]}).encode()
    with serving({**site_of(log), "/v1/commons": listed}) as url:
        for place in (url, f"{url}/", f"{url}/v1", f"{commons_url(url, log)}/", f"{commons_url(url, log)}/log"):
            assert audited(place).holds
        assert audited(url, commons=hexed).holds
        with pytest.raises(FetchFault, match="--commons another"):
            audited(commons_url(url, log), commons="00" * 16)


def test_of_several_commons_one_is_to_be_named(log: Log) -> None:
    items = [{"commons": log.commons.hex(), "name": "Wörgl"}, {"commons": "00" * 16, "name": "Elsewhere"}]
    with serving({"/v1/commons": json.dumps({"items": items}).encode()}) as url:
        with pytest.raises(FetchFault, match=f"2 open commons(.|\n)*{log.commons.hex()}"):
            audited(url)
        with pytest.raises(FetchFault, match="no such commons"):
            audited(url, commons="11" * 16)


def test_a_server_that_stumbles_is_asked_again(log: Log) -> None:
    site, asked = site_of(log), list[str]()
    path = next(path for path in site if "/tile/entries/001" in path)
    bundle = site[path]
    assert isinstance(bundle, bytes)

    def stumble(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        return web.Response(status=503) if len(asked) < 3 else web.Response(body=bundle)

    with serving({**site, path: stumble}) as url:
        assert audited(commons_url(url, log)).holds
    assert len(asked) == 3


def test_packed_answers_are_unpacked(log: Log) -> None:
    def packed(data: bytes) -> Answer:
        return lambda _: web.Response(body=gzip.compress(data), headers={"Content-Encoding": "gzip"})

    site = {path: packed(data) for path, data in site_of(log).items() if isinstance(data, bytes)}
    with serving(site) as url:
        assert audited(commons_url(url, log)).holds


def test_entries_that_are_not_for_everybody_are_exported_first(log: Log) -> None:
    def forbidden(_: web.Request) -> web.StreamResponse:
        return web.json_response({"code": "not-authorised"}, status=403)

    site = {path: forbidden if "/entries/" in path else data for path, data in site_of(log).items()}
    with serving(site) as url, pytest.raises(FetchFault, match=r"not-authorised.*gesell export"):
        audited(commons_url(url, log))


# ── Going on ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 255, 256, 257, 512, 551])
def test_an_audit_goes_on_when_the_log_has_grown(log: Log, size: int, tmp_path: Path) -> None:
    question = Question(state=tmp_path / "state", held=(read_held("mine", str(log.note(size=min(size, 100)))),))
    with serving(site_of(log.cut(size))) as url:
        assert audited(commons_url(url, log), question).holds
    asked = list[str]()
    site = site_of(log)
    watched: dict[str, Answer] = {
        path: lambda request, data=data: asked.append(request.path) or web.Response(body=data)  # type: ignore[misc]
        for path, data in site.items()
    }
    with serving(watched) as url:
        verdict = audited(commons_url(url, log), question)
    assert verdict.finding is None
    assert verdict.entries == log.size
    # What was audited before is not fetched again.
    assert [path for path in asked if "/entries/000" in path] == [] or size < TILE_WIDTH


def test_a_log_that_was_rewritten_is_caught_by_its_tiles(log: Log, tmp_path: Path) -> None:
    question = Question(state=tmp_path / "state")
    with serving(site_of(log.cut(300))) as url:
        assert audited(commons_url(url, log), question).holds
    forged = log.changed(300, lambda leaf: leaf._replace(at_ms=leaf.at_ms + 1))
    with serving(site_of(forged)) as url:
        finding = audited(commons_url(url, log), question).finding
    assert finding is not None
    assert (finding.code, finding.seq) == ("equivocation", 300)
    assert all(line in finding.text for line in str(log.note(size=300)).splitlines())


def test_tiles_that_do_not_hash_to_the_checkpoint_are_no_proof(log: Log, tmp_path: Path) -> None:
    question = Question(state=tmp_path / "state")
    with serving(site_of(log.cut(300))) as url:
        assert audited(commons_url(url, log), question).holds
    forged = log.changed(300, lambda leaf: leaf._replace(at_ms=leaf.at_ms + 1))
    tiles = {path: data for path, data in site_of(log).items() if "/tile/0/" in path}
    with serving({**site_of(forged), **tiles}) as url:
        finding = audited(commons_url(url, log), question).finding
    assert finding is not None
    assert finding.code == "form"


# ── Witnesses ────────────────────────────────────────────────────────────────────────────────────────────────────


def site_with_witnesses(log: Log, witnessed: Mapping[int, str]) -> dict[str, Answer]:
    """A log whose tip nobody cosigned yet; for `?witnesses=k` the checkpoints that are said, or else 404."""
    site = site_of(log)
    path = next(path for path in site if path.endswith("/checkpoint"))

    def answer(request: web.Request) -> web.StreamResponse:
        asked = request.query.get("witnesses")
        note = str(log.note()) if asked is None else witnessed.get(int(asked))
        return web.Response(status=404) if note is None else web.Response(text=note)

    for size in {256, 300} - {log.size}:
        site = {**site_of(log.cut(size)), **site}
    return {**site, path: answer}


def test_with_a_quorum_the_newest_checkpoint_that_our_witnesses_cosigned_is_audited(log: Log) -> None:
    # Two strangers were quicker: only of those that three have cosigned one has both of ours.
    witnessed = {
        1: str(log.note()),
        2: str(cosigned(log.note(), 0)),
        3: str(cosigned(log.note(size=300), 0, 1)),
        4: str(cosigned(log.note(size=256), 0, 1)),
    }
    with serving(site_with_witnesses(log, witnessed)) as url:
        both = audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=2))
        one = audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=1))
        none = audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=0))
    assert [verdict.finding for verdict in (both, one, none)] == [None] * 3
    assert [(verdict.entries, verdict.cosigned) for verdict in (both, one, none)] == [
        (300, 2),
        (log.size, 1),
        (log.size, 0),
    ]


@pytest.mark.parametrize("most", [0, 1])
def test_while_none_is_cosigned_there_is_no_verdict(log: Log, most: int) -> None:
    notes = {1: str(cosigned(log.note(), 0)), 2: str(cosigned(log.note(), 0))} if most else {}
    with (
        serving(site_with_witnesses(log, notes)) as url,
        pytest.raises(FetchFault, match=f"none yet: .* cosigned by 2 of your 2 witnesses together; the most is {most}"),
    ):
        audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=2))


def test_a_witnessed_checkpoint_that_lags_behind_what_the_reader_holds_is_no_finding(log: Log) -> None:
    witnessed = {2: str(cosigned(log.note(size=300), 0, 1))}
    held = (read_held("mine", str(log.note(size=400))),)
    with (
        serving(site_with_witnesses(log, witnessed)) as url,
        pytest.raises(FetchFault, match="none yet: no checkpoint that covers the 400 entries"),
    ):
        audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=2, held=held))
    # Of a log that ends before, it is one.
    with serving(site_with_witnesses(log.cut(300), witnessed)) as url:
        finding = audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=2, held=held)).finding
    assert finding is not None
    assert finding.code == "behind"


def test_of_an_unknown_commons_it_is_said_whatever_is_asked(log: Log) -> None:
    with serving({}) as url, pytest.raises(FetchFault, match="no such commons"):
        audited(commons_url(url, log), Question(witnesses=VKEYS, quorum=2))


# ── Hostile servers ──────────────────────────────────────────────────────────────────────────────────────────────


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(65_536))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (_endless, "more than"),
        (lambda _: web.Response(body=gzip.compress(bytes(BUNDLE_MAX_BYTES + 1)), headers=GZIP), "unpacks to more"),
        (lambda _: web.Response(body=gzip.compress(b"x")[:-4], headers=GZIP), "is cut"),
        (lambda _: web.Response(body=b"no gzip", headers=GZIP), "is not gzip"),
        (lambda _: web.Response(body=b"x", headers={"Content-Encoding": "br"}), "content encoding"),
        (lambda _: web.Response(status=500), "HTTP 500"),
        (lambda _: web.Response(status=302, headers={"Location": "/v1"}), "HTTP 404"),
    ],
)
def test_what_a_server_can_cost_is_bounded(log: Log, answer: Any, said: str) -> None:
    site = site_of(log)
    path = next(path for path in site if path.endswith("/tile/entries/000"))
    with serving({**site, path: answer}) as url, pytest.raises(FetchFault, match=said):
        audited(commons_url(url, log))


@pytest.mark.parametrize(
    ("spoil", "seq"),
    [
        (lambda bundle: bundle[:-1], 257),
        (lambda bundle: b"", 257),
        (lambda bundle: write_bundle([b"x"] * 3), 260),
    ],
)
def test_a_bundle_that_is_none_is_told_so(log: Log, spoil: Callable[[bytes], bytes], seq: int) -> None:
    site = site_of(log)
    path = next(path for path in site if path.endswith("/tile/entries/001"))
    bundle = site[path]
    assert isinstance(bundle, bytes)
    with serving({**site, path: spoil(bundle)}) as url:
        finding = audited(commons_url(url, log)).finding
    assert finding is not None
    assert (finding.code, finding.seq) == ("form", seq)


def test_a_forgery_before_a_spoiled_bundle_is_what_is_told(log: Log) -> None:
    forged = log.changed(200, lambda leaf: leaf._replace(at_ms=0))
    site = site_of(forged)
    path = next(path for path in site if path.endswith("/tile/entries/001"))
    with serving({**site, path: b"x"}) as url:
        finding = audited(commons_url(url, log)).finding
    assert finding is not None
    assert (finding.code, finding.seq) == ("time", 200)


EVIL = "gone\x1b[2J\u009b\u202e\u2028"


@pytest.mark.parametrize("path", ["/tile/entries/000", "/checkpoint", "/v1/commons"])
def test_no_word_of_a_server_moves_a_terminal(log: Log, path: str) -> None:
    def refuse(_: web.Request) -> web.StreamResponse:
        return web.json_response({"code": EVIL}, status=403)

    site = site_of(log)
    named = json.dumps({"items": [{"commons": EVIL, "name": EVIL}, {"commons": EVIL, "name": EVIL}]}).encode()
    place = next((one for one in site if one.endswith(path)), path)
    with serving({**site, place: named if path == "/v1/commons" else refuse}) as url, pytest.raises(FetchFault) as told:
        audited(url if path == "/v1/commons" else commons_url(url, log))
    assert "gone" in str(told.value)
    assert not set("\x1b\u009b\u202e\u2028") & set(str(told.value))


@pytest.mark.parametrize("note", [b"", b"no note", b"\xff", b"a\nb\nc\n\nd\n"])
def test_what_is_no_checkpoint_is_told_so(log: Log, note: bytes) -> None:
    site = site_of(log)
    path = next(path for path in site if path.endswith("/checkpoint"))
    with serving({**site, path: note}) as url:
        finding = audited(commons_url(url, log)).finding
    assert finding is not None
    assert finding.code == "form"


def test_nobody_there_is_a_fault_and_no_verdict(log: Log) -> None:
    with serving({}) as url:
        pass
    with pytest.raises(FetchFault, match="can't be fetched"):
        audited(commons_url(url, log))
