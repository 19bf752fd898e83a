"""The command line, run as a program: exit statuses, what stands on stderr, and what never happens twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App
from wire_ledger import BOB, WireLedger, drop_applied, problem, serving

from gesell import Malformed, Peer, advice, options, wallet_commands
from gesell_ledger import commands as ledger_commands


async def gesell(home: Path, *words: str, url: str = "http://127.0.0.1:1") -> tuple[int, str, str]:
    """Run `gesell` with a home of its own; returns exit status, stdout, stderr."""
    process = await started(home, *words, url=url)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def started(home: Path, *words: str, url: str) -> asyncio.subprocess.Process:
    """`gesell` under way, with a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GESELL_", "XDG_"))}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gesell",
        *words,
        env={**kept, "HOME": str(home), "GESELL_URL": url},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def there_is(path: str | Path) -> bool:
    return Path(path).exists()


async def test_a_key_is_made_shown_and_never_overwritten(tmp_path: Path) -> None:
    status, out, _ = await gesell(tmp_path, "key", "new", "--no-passphrase", "--json")
    path = Path(json.loads(out)["path"])
    assert status == 0
    assert mode(path) == 0o600
    assert path.is_relative_to(tmp_path)
    assert (await gesell(tmp_path, "key", "show"))[1].strip() == Peer.load(path).did
    status, _, err = await gesell(tmp_path, "key", "new", "--no-passphrase")
    assert (status, "never overwritten" in err) == (1, True)


async def test_a_key_without_a_passphrase_must_be_asked_for(tmp_path: Path) -> None:
    status, _, err = await gesell(tmp_path, "key", "new")
    assert status == 2
    assert "--no-passphrase" in err
    assert not there_is(tmp_path / ".config")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["balance"], 1, "can't be reached"),
        (["pay", "bob"], 2, "--amount"),
        (["pay", "bob", "1"], 1, "gesell key new"),
        (["nonsense"], 2, "Unknown command"),
        (["key", "show"], 1, "there is no key file"),
    ],
)
async def test_failures_say_what_to_do(tmp_path: Path, words: list[str], status: int, says: str) -> None:
    got, out, err = await gesell(tmp_path, *words)
    assert got == status
    assert says in err
    assert "Traceback" not in err
    assert out == ""


async def test_a_refusal_is_told_in_money(tmp_path: Path) -> None:
    ledger = WireLedger()
    ledger.odd = [lambda *_: problem("insufficient-funds", 422, available="10", needed="50000")]
    await gesell(tmp_path, "key", "new", "--no-passphrase")
    async with serving(ledger) as url:
        status, _, err = await gesell(tmp_path, "pay", BOB.did, "0.05", "--commons", ledger.commons.hex(), url=url)
    assert status == 1
    assert "0.00001 WRG to spend" in err
    assert "Nothing was applied" in err


async def test_an_unknown_outcome_is_kept_and_settled_without_paying_twice(tmp_path: Path) -> None:
    ledger = WireLedger()
    late = problem("unavailable", 503, retry_after=600)
    ledger.odd = [drop_applied, lambda *_: late]
    await gesell(tmp_path, "key", "new", "--no-passphrase")
    async with serving(ledger) as url:
        words = ("pay", BOB.did, "0.05", "--commons", ledger.commons.hex())
        status, _, err = await gesell(tmp_path, *words, url=url)
        assert status == 1
        assert "not known whether" in err
        kept = err.rsplit("gesell resend ", 1)[1].strip()
        assert there_is(kept)
        status, out, _ = await gesell(tmp_path, "resend", kept, url=url)
    assert status == 0
    assert "had been applied" in out
    assert len(ledger.receipts) == 1
    assert len(set(ledger.posts)) == 1
    assert not there_is(kept)


async def test_an_interrupted_payment_is_kept_and_settled_without_paying_twice(tmp_path: Path) -> None:
    ledger = WireLedger()
    ledger.odd = [drop_applied, lambda *_: problem("unavailable", 503, retry_after=30)]
    await gesell(tmp_path, "key", "new", "--no-passphrase")
    async with serving(ledger) as url:
        words = ("pay", BOB.did, "0.05", "--commons", ledger.commons.hex())
        process = await started(tmp_path, *words, url=url)
        async with asyncio.timeout(20):
            while len(ledger.posts) < 2:  # noqa: ASYNC110 - the ledger is a server, it sets no event
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = await process.communicate()
        assert process.returncode == 130
        kept = told.decode().rsplit("gesell resend ", 1)[1].strip()
        assert there_is(kept)
        status, out, _ = await gesell(tmp_path, "resend", kept, url=url)
    assert status == 0
    assert "had been applied" in out
    assert len(ledger.receipts) == 1


async def test_a_rotation_without_an_answer_is_called_again_not_resent(tmp_path: Path) -> None:
    ledger = WireLedger()
    ledger.odd = [drop_applied, lambda *_: problem("unavailable", 503, retry_after=600)]
    await gesell(tmp_path, "key", "new", "--no-passphrase")
    words = ("key", "rotate", "--no-passphrase", "--commons", ledger.commons.hex())
    async with serving(ledger) as url:
        status, _, err = await gesell(tmp_path, *words, url=url)
        assert (status, "Call the same command again" in err, "resend" in err) == (1, True, False)
        ledger.odd = [drop_applied, lambda *_: problem("unavailable", 503, retry_after=30)]
        ledger.posts.clear()
        process = await started(tmp_path, *words, url=url)
        async with asyncio.timeout(20):
            while len(ledger.posts) < 2:  # noqa: ASYNC110 - the ledger is a server, it sets no event
                await asyncio.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, told = await process.communicate()
    assert process.returncode == 130
    assert "Call the same command again" in told.decode()
    folder = tmp_path / ".config" / "gesell"
    assert {path.name for path in folder.iterdir()} == {"id_ed25519", "id_ed25519.new", "id_ed25519.new.by"}


def gesell_without(module: str, *words: str) -> tuple[int, str]:
    """Run `gesell` where a module can't be imported, as if it were not installed; returns exit status and stderr.

    In a process of its own: in this one, others may have joined the ledger's commands to the wallet's already.
    """
    code = f"import sys; sys.modules[{module!r}] = None; from gesell.commands import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_without_the_ledger_the_wallet_goes_on_and_says_what_to_install() -> None:
    status, err = gesell_without("gesell_ledger.commands", "serve", "--port", "1")
    assert (status, "pip install 'gesell[ledger]'" in err) == (1, True), err


def test_without_the_cli_extra_one_line_says_what_to_install() -> None:
    status, err = gesell_without("cyclopts", "balance")
    assert (status, err) == (1, "The command needs cyclopts: pip install 'gesell[cli]'\n")


def test_the_library_needs_nothing_of_the_command_line() -> None:
    code = "import sys, gesell; print({'cyclopts', 'rich', 'asyncpg', 'gesell_ledger'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "set()"


def commands_of(app: App, *path: str) -> Iterator[tuple[str, App]]:
    """All commands of an app that do something, however deep, with the words that call them."""
    for name in app:
        if not name.startswith("-"):
            words = (*path, name)
            if app[name].default_command is not None:
                yield " ".join(words), app[name]
            yield from commands_of(app[name], *words)


@pytest.mark.parametrize("app", [wallet_commands.app, ledger_commands.app], ids=["wallet", "ledger"])
def test_no_command_has_two_options_of_one_name(app: App) -> None:
    seen = 0
    for words, command in commands_of(app):
        names = Counter(name for option in command.assemble_argument_collection() for name in option.names)
        del names["*"]
        assert [name for name, count in names.items() if count > 1] == [], words
        seen += len(names)
    assert seen > 10


async def test_resend_says_which_file_it_needs(tmp_path: Path) -> None:
    status, _, err = await gesell(tmp_path, "resend")
    assert (status, "gesell resend FILE" in err) == (2, True)
    waiting = tmp_path / ".local" / "state" / "gesell" / "x.envelope"
    waiting.parent.mkdir(parents=True)
    waiting.touch()
    assert str(waiting) in (await gesell(tmp_path, "resend"))[2]


async def test_a_bad_handle_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    status, _, err = await gesell(tmp_path, "join", "Ada")
    assert status == 2
    assert "'Ada' can't be a handle: 2 to 31 of a-z" in err
    assert "malformed" not in err


async def test_reads_do_not_say_that_nothing_was_applied(tmp_path: Path) -> None:
    status, _, err = await gesell(tmp_path, "balance", "bob")
    assert (status, "can't be reached" in err, "applied" in err) == (1, True, False)


async def test_whoever_waits_long_is_told_that_it_is_still_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with options.waiting_told():
        await asyncio.sleep(0)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(options, "SILENCE_SECONDS", 0.0)
    with options.waiting_told():
        await asyncio.sleep(0.1)
    assert "still waiting" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("detail", "shown"),
    [
        ("category: too long", "category: too long (malformed)"),
        ("malformed: category: too long", "category: too long (malformed)"),
        ("category: too long (nothing was sent)", "category: too long (malformed)"),
    ],
)
def test_a_code_is_told_once(detail: str, shown: str) -> None:
    error = Malformed(detail, code="malformed", fields={})
    assert advice.what_happened(error) == shown
    assert advice.next_step(error) == ("Nothing was sent." if "nothing was sent" in detail else "Nothing was applied.")
