"""README and docs stay true: their snippets run, and what they name exists."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from cyclopts import App
from standardwebhooks import Webhook

from gesell import Client, Peer, default_policy
from gesell_ledger import commands as ledger_commands
from gesell_ledger.api.routes import ROUTES
from gesell_ledger.configuration import SERVE, Options
from gesell_protocol.refusals import CODES
from gesell_protocol.statements import TYPES
from tests.forked import scripts
from tests.running import Service

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind == language]


#: What stands before a snippet that begins with an open client, as docs/app-developer.md says.
OPEN = """
from gesell import Client, Peer

ada, eve = Peer.load("ada.key"), Peer.load("eve.key")
async with Client("http://127.0.0.1:8420", commons="…hex…", peer=Peer.load("bob.key")) as gesell:
"""
#: Stands for names of the pages, which nobody resolves; nothing is ever sent there.
PUBLIC = "93.184.215.14"
PYTHON = [(page, text) for page in PAGES for text in blocks(page, "python") if "web.run_app" not in text]
SERVERS = [text for page in PAGES for text in blocks(page, "python") if "web.run_app" in text]


@pytest.fixture
async def commons(service: Service, folder: Path) -> AsyncIterator[str]:
    """A commons that ada and eve keep together, with bob, who has 100 in hand; their key files are in the folder.

    Members may go to 50 below zero.
    """
    names = ("ada", "bob", "eve")
    ada, bob, eve = (Peer.new() for _ in names)
    for name, peer in zip(names, (ada, bob, eve), strict=True):
        peer.save(folder / f"{name}.key", passphrase=None)
    async with Client(service.url, peer=ada) as client:
        policy = replace(default_policy(), credit_limit=50_000_000)
        founded = await client.found(
            name="Docs", currency="LIND", policy=policy, stewards=[ada, eve], threshold=2, signers=[eve]
        )
        for name, peer in zip(names, (ada, bob, eve), strict=True):
            await client.as_peer(peer).join(name)
            await client.admit(peer, signers=[eve])
        await client.issue(bob, "100", signers=[eve])
        await client.issue(eve, "7", signers=[eve])
        yield founded


def test_there_are_python_snippets_to_run() -> None:
    assert len(PYTHON) >= 2


@pytest.mark.parametrize(("page", "snippet"), PYTHON, ids=[f"{page.name}-{n}" for n, (page, _) in enumerate(PYTHON)])
async def test_python_snippet_runs_as_it_is_written(
    page: Path, snippet: str, service: Service, commons: str, folder: Path
) -> None:
    text = snippet if re.search(r" as (gesell|app):", snippet) else OPEN + _indented(snippet)
    text = text.replace("http://127.0.0.1:8420", service.url).replace("…hex…", commons)
    text = text.replace("shop.example", PUBLIC)
    if "await " in text or "async " in text:
        text = f"import asyncio\nasync def main():\n{_indented(text)}\nasyncio.run(main())\n"
    done = _run(text, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "a snippet shows what it does"
    if page.name == "README.md":
        told = blocks(page, "text")
        assert any(done.stdout.splitlines()[-1] in text for text in told), "the page shows what the program says"


async def test_receiver_of_the_page_takes_what_the_ledger_signed_and_nothing_else(folder: Path) -> None:
    (text,) = SERVERS
    (secret,) = re.findall(r'"(whsec_.+?)"', text)
    port = _free_port()
    entry = {"seq": 7, "postings": [["pay", "did:key:z6Mk", "LIND", "-5"]]}
    body = json.dumps({"type": "entry.pay", "data": {"commons": "00", "entry": entry}}).encode()
    now = datetime.now(tz=UTC)
    signed = {
        "webhook-id": "m_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("m_1", now, body.decode()),
    }
    forged = {**signed, "webhook-id": "m_2"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-u", "-c", text.replace("port=8000", f"port={port}"), cwd=folder, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            assert str(port) in (await process.stdout.readline()).decode(), "it says when it listens"
            for headers, status in ((signed, 204), (signed, 204), (forged, 401)):
                async with session.post("/gesell", data=body, headers=headers) as answer:
                    assert answer.status == status
    finally:
        process.terminate()
        told = (await process.stdout.read()).decode()
        await process.wait()
    assert told.count("entry.pay 7 pay did:key:z6Mk -5 LIND") == 1, "what comes twice is dealt with once"
    assert told.count("not from the ledger") == 1


def test_docs_show_every_call_of_the_client_in_a_snippet_that_runs() -> None:
    shown = "".join(text for _, text in PYTHON)
    calls = {name for name in dir(Client) if not name.startswith("_")}
    missing = {name for name in calls if f".{name}" not in shown}
    assert missing == set()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def _indented(text: str) -> str:
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


def test_shell_walk_of_the_readme_runs_as_it_is_written(folder: Path) -> None:
    walk, trust = [text for text in blocks(ROOT / "README.md", "sh") if "gesell key new" in text or "receipt" in text]
    service = Service(folder)
    try:
        url = service.start().url
        text = f"{walk}\n{trust}".replace("http://127.0.0.1:8420", url)
        # The one walk whose commands begin as they do for everybody.
        done = _shell(text, _environment(folder, url, programs=Path(sys.executable).parent), folder)
    finally:
        service.end()
    assert done.returncode == 0, done.stderr
    assert "99.95 LIND" in done.stdout
    assert "paid for answer" in done.stdout
    assert "given             1.5 h" in done.stdout
    assert "Thank you" in done.stdout
    assert "It holds: this is entry 10 of the books of Lindental" in done.stdout
    assert "Lindental (" in done.stdout
    assert "the log holds." in done.stdout


def test_gifts_of_the_members_page_run_as_they_are_written(service: Service, commons: str, folder: Path) -> None:
    (text,) = [text for text in blocks(ROOT / "docs" / "member.md", "sh") if "gesell give" in text]
    done = _shell(text, {**_environment(folder, service.url), "GESELL_COMMONS": commons}, folder)
    assert done.returncode == 0, done.stderr
    for said in (
        "Offered 1.5 h to ada",
        "Waiting for your thanks",
        "Thanked bob for 1.5 h for gardening",
        "given      ",
    ):
        assert said in done.stdout, done.stdout


def test_log_is_exported_and_audited_as_the_page_says(service: Service, commons: str, folder: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "audit.md", "sh")
    done = _shell(text, {**_environment(folder, service.url), "GESELL_COMMONS": commons}, folder)
    assert done.returncode == 0, done.stderr
    assert "Docs (" in done.stdout
    assert "the log holds." in done.stdout


def test_books_are_exported_as_the_page_says(service: Service, commons: str, folder: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "export.md", "sh")
    done = _shell(text, {**_environment(folder, service.url), "GESELL_COMMONS": commons}, folder)
    assert done.returncode == 0, done.stderr
    assert '"asset":"LIND","amount":"-100000000"' in done.stdout
    assert "assets:members:bob" in (folder / "lindental.journal").read_text()


#: Of each page its shell blocks, by what they hold and which test runs them.
SHELL = {
    "README.md": (
        "make demo",
        "gesell key new ada.key",
        "gesell receipt",
        "/v1/prepare",
        "make bench",
    ),  # CI itself, the tests here, and test_bench_command.py
    "app-developer.md": ("/balances",),  # here
    "audit.md": ("gesell audit",),  # here
    "export.md": ("--format hledger",),  # here
    # test_client_checks.py, test_requests.py, here
    "member.md": ("gesell receipt get", "gesell checkpoint", "gesell request", "gesell give"),
    "shell.md": ("unbase64url()", "say ada.pem", "make_token", "/proof"),  # test_prepare.py
    "webhooks.md": ("gesell webhook add",),  # test_webhooks.py
    "witness.md": ('"$WITNESS/"', "?witnesses=2"),  # test_witnessing.py
}


def test_every_shell_block_is_one_that_a_test_runs() -> None:
    found = {page.name: blocks(page, "sh") for page in PAGES if blocks(page, "sh")}
    assert found.keys() == SHELL.keys()
    for name, texts in found.items():
        assert len(texts) == len(SHELL[name]), name
        assert all(mark in text for mark, text in zip(SHELL[name], texts, strict=True)), name


@pytest.mark.skipif(
    not all(map(shutil.which, ("curl", "openssl", "jq", "basenc"))), reason="a tool of the page is not here"
)
def test_readme_joins_with_curl_and_openssl_as_it_is_written(service: Service, commons: str, folder: Path) -> None:
    (text,) = [text for text in blocks(ROOT / "README.md", "sh") if "/v1/prepare" in text]
    done = _shell(text, {**_environment(folder, service.url), "GESELL_COMMONS": commons}, folder)
    assert json.loads(done.stdout)["results"][0]["status"] == "accepted", done.stderr


def _shell(text: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["bash", "-euxc", text]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def _environment(folder: Path, url: str, *, programs: Path | None = None) -> dict[str, str]:
    """What a shell block finds; where nothing else is said, its `gesell` begins at once."""
    path = f"{programs or scripts()}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "GESELL_URL": url, "PATH": path, "HOME": str(folder)}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
def test_curl_of_the_docs_answers(service: Service, commons: str, folder: Path) -> None:
    (text,) = blocks(ROOT / "docs" / "app-developer.md", "sh")
    done = _shell(text, {**_environment(folder, service.url), "GESELL_COMMONS": commons}, folder)
    assert '"clock_speed":1' in done.stdout, done.stderr
    assert '"asset_code":"LIND"' in done.stdout


def test_spec_names_every_refusal_code_with_its_status() -> None:
    section = (ROOT / "protocol" / "SPEC.md").read_text().split("### 7.4 Refusals")[1].split("## 8.")[0]
    named = {code: int(status) for code, status in re.findall(r"`([a-z-]+)` (\d{3})", section)}
    assert named == {code: status for code, (status, _) in CODES.items()}


def test_spec_names_every_statement_type_that_is_taken() -> None:
    spec = (ROOT / "protocol" / "SPEC.md").read_text()
    assert all(f"| `{kind}` |" in spec for kind in TYPES)


def test_spec_names_every_path_that_is_served() -> None:
    spec = (ROOT / "protocol" / "SPEC.md").read_text()
    names = {"{member}": "{m}", "{level}": "<L>", "{place}": "<N>[.p/<W>]"}
    for route in ROUTES:
        path = route.template.removeprefix("/v1").replace("/commons/{commons}/", "…/") or "/"
        for ours, theirs in names.items():
            path = path.replace(ours, theirs)
        if path.endswith("/{m}"):
            path = path.replace("{m}", "{did or handle}")
        assert path in spec, f"{route.path} is served and SPEC.md does not name it"


def test_operator_page_names_only_options_that_exist() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page))
    known = {"--pace", "--url", "--format"}  # of `gesell replay` and `gesell export`
    known |= {argument.name for argument in ledger_commands.serving.assemble_argument_collection()}
    for command in (ledger_commands.db_migrate, ledger_commands.db_check, ledger_commands.rekey):
        known |= {"--" + name.strip("_").replace("_", "-") for name in inspect.signature(command).parameters}
    assert named <= known, named - known


def test_table_of_settings_is_that_of_the_command() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    rows = re.findall(r"^\| `(--[a-z-]+)` \| `(\w+)` \| `([a-z-]+)` \| (?:`([^`]*)` )?\| \S.* \|$", page, re.MULTILINE)
    assert len(rows) == page.count("\n| `--"), "each row names flag, variable, key, default and meaning"
    defaults = {field.name.replace("_", "-"): field.default for field in dataclasses.fields(Options)}
    flags = [argument.name for argument in ledger_commands.serving.assemble_argument_collection()]
    assert rows == [
        (flag, SERVE.variable_of(flag), flag.removeprefix("--"), _shown(defaults[flag.removeprefix("--")]))
        for flag in flags
        if flag.startswith("--") and flag != "--config"
    ]


def _shown(default: object) -> str:
    return "" if default in (None, ()) else str(default).lower() if isinstance(default, bool) else str(default)


def test_docs_name_only_commands_that_exist() -> None:
    from gesell.commands import join_others
    from gesell.wallet_commands import app

    join_others(app)
    for page in PAGES:
        for words in re.findall(r"`(?:gesell) ([a-z]+)[ `]", page.read_text()):
            assert _has(app, words), f"{page.name} names gesell {words}"


def _has(app: App, name: str) -> bool:
    return name in app
