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

from gesell import Client, Custodian
from tests.running import Service

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


async def page(browser: aiohttp.ClientSession) -> str:
    async with browser.get("/") as answer:
        assert answer.status == 200
        return await answer.text()


async def send(browser: aiohttp.ClientSession, **form: str) -> str:
    async with browser.post("/", data=form) as answer:
        assert answer.status == 200
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
        assert "ada, you have 1 TIP" in await send(adas, join="Ada")
        bobs_page = await send(bobs, join="bob")
        assert "bob, you have 1 TIP" in bobs_page
        assert names(bobs_page) == ["ada"]
        thanks = "<script>alert(1)</script> & “bread”"
        assert "bob, you have 0.95 TIP" in await send(bobs, to="ada", amount="0.05", thanks=thanks)
        adas_page = await page(adas)
        assert "ada, you have 1.05 TIP" in adas_page
        assert "bob tipped you 0.05 TIP: &lt;script&gt;alert(1)&lt;/script&gt; &amp; “bread”" in adas_page
        assert "<script" not in adas_page
        assert "too little for this tip" in await send(bobs, to="ada", amount="5", thanks="")
        assert "That name is taken" in await send(nobodys, join="ada")
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
    ("form", "says"),
    [
        ({"join": "<b>"}, "That did not work"),
        ({"join": ""}, "That did not work"),
        ({"to": "ada", "amount": "0.05", "thanks": ""}, "That did not work"),  # by nobody
        ({"to": "ada"}, "That did not work"),
        ({}, "That did not work"),
    ],
)
async def test_the_tip_jar_stays_polite(form: dict[str, str], says: str, service: Service, folder: Path) -> None:
    async with tipjar(folder, service.url) as url, browser(url) as nobodys:
        assert says in await send(nobodys, **form)
        assert "a name, like ada" in await page(nobodys)


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
