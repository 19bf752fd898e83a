"""The examples work as their heads say: real processes, driven over HTTP as a browser would."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from gesell import Client, Custodian
from tests.running import Service, lay_cluster

ROOT = Path(__file__).resolve().parents[2]
TIPJAR = ROOT / "examples" / "tipjar.py"
START_SECONDS = 60.0


@asynccontextmanager
async def tipjar(folder: Path, url: str) -> AsyncIterator[str]:
    """The app as a process of its own in `folder`; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (folder / "tipjar.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(TIPJAR),
            cwd=folder,
            env={**os.environ, "GESELL_URL": url, "PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    try:
        await _listens(process, port, folder / "tipjar.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            assert process.returncode is None, log.read_text()  # noqa: ASYNC240
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


@asynccontextmanager
async def browser(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A browser of its own, with its own cookies."""
    async with aiohttp.ClientSession(url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
        yield session


async def page(browser: aiohttp.ClientSession, *, status: int = 200) -> str:
    async with browser.get("/") as answer:
        assert answer.status == status
        return await answer.text()


async def send(browser: aiohttp.ClientSession, *, status: int = 200, **form: str) -> str:
    async with browser.post("/", data=form) as answer:
        assert answer.status == status
        return await answer.text()


def names(text: str) -> list[str]:
    return re.findall(r'name="to" value="([^"]*)"', text)


def test_the_tip_jar_is_under_eighty_lines() -> None:
    assert len(TIPJAR.read_text().splitlines()) < 80


def test_the_readme_gives_the_commands_that_stand_at_the_head_of_the_tip_jar() -> None:
    commands = [line.partition("#")[0].strip() for line in TIPJAR.read_text().split('"""')[1].splitlines()[2:]]
    readme = (ROOT / "examples" / "README.md").read_text().split("```")[1]
    assert [command for command in commands if command] == [
        line.partition("#")[0].strip() for line in readme.splitlines()[1:]
    ]


async def test_two_users_of_the_tip_jar_tip_each_other_and_the_ledger_says_so(service: Service, folder: Path) -> None:
    async with tipjar(folder, service.url) as url, browser(url) as adas, browser(url) as bobs, browser(url) as nobodys:
        alone = await send(adas, join="Ada")
        assert "ada, you have 1 TIP" in alone
        assert "Nobody else is here yet; open this page in a second browser." in alone
        bobs_page = await send(bobs, join="bob")
        assert "bob, you have 1 TIP" in bobs_page
        assert names(bobs_page) == ["ada"]
        thanks = "<script>alert(1)</script> & “bread”"
        assert "bob, you have 0.95 TIP" in await send(bobs, to="ada", amount="0.05", thanks=thanks)
        adas_page = await page(adas)
        assert "ada, you have 1.05 TIP" in adas_page
        assert "bob tipped you 0.05 TIP: &lt;script&gt;alert(1)&lt;/script&gt; &amp; “bread”" in adas_page
        assert "<script" not in adas_page
        assert "0.95 TIP to spend after melt" in await send(bobs, status=400, to="ada", amount="5", thanks="")
        assert "Nobody else" not in await page(bobs)
        assert "That did not work: already-member" in await send(nobodys, status=400, join="ada")
        assert names(await page(nobodys)) == []

    custodian = Custodian.load(folder / "tipjar.key")
    async with Client(service.url) as reader:
        app = custodian.peer("the app").did
        (commons,) = [item for item in await reader.commons_list() if item.stewards == (app,)]
        gesell = reader.as_commons(commons.id)
        assert str(await gesell.balance("ada")) == "1.05 TIP"
        assert str(await gesell.balance("bob")) == "0.95 TIP"
        assert (await gesell.member("ada")).peer == custodian.peer("user ada").did
        [tip] = [line async for line in gesell.history("ada") if line.reason == "pay"]
        assert (tip.category, tip.memo) == ("tip", thanks)


@pytest.mark.parametrize(
    "form",
    [
        {"join": "<b>"},
        {"join": ""},
        {"to": "ada", "amount": "0.05", "thanks": ""},  # by nobody
        {"to": "ada"},
        {"amount": "0.05"},
        {},
    ],
)
async def test_the_tip_jar_stays_polite(form: dict[str, str], service: Service, folder: Path) -> None:
    async with tipjar(folder, service.url) as url, browser(url) as nobodys:
        said = await send(nobodys, status=400, **form)
        assert re.search(r"That did not work: .*[a-z]{3} ", said)
        assert "<b>" not in said
        joining = await page(nobodys)
        assert joining.count("<label") == joining.count("<input") == 1


async def test_without_a_ledger_the_tip_jar_says_so_and_goes_on_later(folder: Path) -> None:
    lay_cluster(folder / "data")
    service = Service(folder, "--min-tick-seconds", "1")
    try:
        async with tipjar(folder, service.start().url) as url, browser(url) as adas, browser(url) as bobs:
            await send(adas, join="ada")
            await send(bobs, join="bob")
            await asyncio.to_thread(service.stop)
            assert "does not answer" in await page(adas, status=503)
            assert "does not answer" in await send(adas, status=503, to="bob", amount="0.05", thanks="")
            await asyncio.to_thread(service.start)
            assert "ada, you have 1 TIP" in await page(adas)
    finally:
        service.end()


@asynccontextmanager
async def swallower(url: str) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A line to the service on which, once the event is set, statements arrive and their answers do not."""
    swallow = asyncio.Event()

    async def forward(request: web.Request) -> web.Response:
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        sent = session.request(request.method, url + request.path_qs, data=await request.read(), headers=headers)
        async with sent as answer:
            body = await answer.read()
            if swallow.is_set() and request.method == "POST":
                assert request.transport is not None
                request.transport.abort()
            return web.Response(body=body, status=answer.status, content_type=answer.content_type)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", forward)
    runner = web.AppRunner(app)
    async with aiohttp.ClientSession() as session:
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}", swallow
        finally:
            await runner.cleanup()


async def test_a_tip_that_may_have_arrived_is_not_told_as_one_that_did_not(service: Service, folder: Path) -> None:
    async with (
        swallower(service.url) as (line, swallow),
        tipjar(folder, line) as url,
        browser(url) as adas,
        browser(url) as bobs,
    ):
        await send(adas, join="ada")
        await send(bobs, join="bob")
        swallow.set()
        said = await send(bobs, status=503, to="ada", amount="0.05", thanks="")
        assert "We don't know yet whether your tip arrived; please don't tip again." in said
        assert "did not work" not in said
        assert "bob, you have 0.95 TIP" in await page(bobs), "it had arrived, and once, however often it was sent"


async def test_the_tip_jar_knows_its_users_again_after_a_restart(service: Service, folder: Path) -> None:
    async with tipjar(folder, service.url) as url, browser(url) as adas:
        await send(adas, join="ada")
        cookie = adas.cookie_jar.filter_cookies(aiohttp.client.URL(url))["user"].value
    async with tipjar(folder, service.url) as url, aiohttp.ClientSession(url, cookies={"user": cookie}) as adas:
        assert "ada, you have 1 TIP" in await page(adas)


async def test_a_cookie_of_the_tip_jar_can_not_be_made_up(service: Service, folder: Path) -> None:
    async with tipjar(folder, service.url) as url, browser(url) as adas:
        async with adas.post("/", data={"join": "ada"}, allow_redirects=False) as answer:
            assert answer.status == 303
            given = answer.headers["Set-Cookie"]
        assert "HttpOnly" in given
        assert "SameSite=Strict" in given
        for made_up in ("ada", Custodian.new().peer("cookie of ada").did, ""):
            async with aiohttp.ClientSession(url, cookies={"user": made_up}) as evils:
                assert "you have" not in await page(evils)
