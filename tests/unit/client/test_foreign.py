"""What others write reaches a terminal as text and nothing else: no escape sequence, no line that is not ours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from wire_ledger import BOB, STEWARD, WireLedger, founding, problem, serving

from gesell import Client, UnexpectedAnswer, showing
from gesell.joint import check
from gesell.options import fail
from gesell.wording import describe
from gesell_protocol.envelopes import STATEMENT_PREFIX, Envelope
from gesell_protocol.foreign import one_line
from gesell_protocol.names import uuid7
from gesell_protocol.statements import Found, write_body

#: Clears the screen, sets a title, moves up, C1's CSI, turns the direction, hides; and lines that look like ours.
EVIL = "\x1b[2Jgone\x1b]0;title\x07\x1b[1A\x9b31m\u202e00.1\u2066\u200b\nPay  0.01 WRG\u2028\r\n\x85to ada\udc80\x7f"
BAD = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\u200b", "\u2028", "\r", "\x85", "\udc80", "\x7f")


def assert_clean(seen: str, *, lines: int) -> None:
    assert not any(char in seen for char in BAD), repr(seen)
    assert seen.count("\n") == lines, repr(seen)
    assert "gone" in seen


def test_text_stays_and_the_rest_is_marked() -> None:
    assert one_line("Brötchen für Łódź, 漢字 👩\u200d🌾") == "Brötchen für Łódź, 漢字 👩\u200d🌾"
    assert one_line("a\nb\r\nc\td\x1b[31m") == "a⏎b⏎c d�[31m"


def test_each_way_to_the_terminal_is_clean(capsys: pytest.CaptureFixture[str]) -> None:
    showing.say(EVIL)
    assert_clean(capsys.readouterr().out, lines=1)
    showing.facts([("name", EVIL)])
    assert_clean(capsys.readouterr().out, lines=1)
    showing.table(("With", "Note"), [("bob", EVIL), ("eve", "x")])
    assert_clean(capsys.readouterr().out, lines=3)
    showing.tell(EVIL)
    assert_clean(capsys.readouterr().err, lines=1)
    with pytest.raises(SystemExit):
        fail(EVIL, EVIL)
    assert_clean(capsys.readouterr().err, lines=2)


def test_a_table_on_a_terminal_is_clean(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    showing.table(("With", "Note"), [("bob", EVIL)])
    seen = capsys.readouterr().out
    assert not any(sequence in seen for sequence in ("\x1b[2J", "\x1b]0", "\x1b[1A", *BAD[1:]))
    assert "Pay  0.01" not in [line.strip() for line in seen.splitlines()]


def test_json_says_the_same_and_shows_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    showing.show_json({"memo": EVIL, "name": "Wörgl"})
    seen = capsys.readouterr().out
    assert not any(char in seen for char in BAD)
    assert json.loads(seen) == {"memo": EVIL, "name": "Wörgl"}
    assert "Wörgl" in seen


def _founded(name: str) -> Envelope:
    known = check(founding())
    assert isinstance(known, Found)
    body = write_body(
        {
            "type": "found", "ledger": known.ledger, "by": STEWARD.key, "id": uuid7(5, bytes(10)), "expires": 6,
            "name": name, "currency": {"code": "WRG", "scale": 6}, "policy": known.policy.fields(),
            "stewards": [STEWARD.key], "threshold": 1,
        }
    )  # fmt: skip
    return Envelope(body, ((STEWARD.key, STEWARD.sign(STATEMENT_PREFIX + body)),))


@pytest.mark.parametrize("name", ["gone\u202e", "gone\u2028  signed by  nobody", "gone\u2066\u200b"])
def test_a_name_in_what_is_to_be_signed_is_clean(name: str) -> None:
    envelope = _founded(name)
    statement = check(envelope)
    assert isinstance(statement, Found)
    told = describe(envelope, statement, founding=statement, handles={}, now_ms=1)
    plain = describe(_founded("gone"), statement, founding=None, handles={}, now_ms=1)
    assert_clean(told, lines=plain.count("\n"))


async def test_a_handle_that_is_none_is_no_answer(ledger: WireLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = ledger._member
    monkeypatch.setattr(ledger, "_member", lambda handle, peer: {**honest(handle, peer), "handle": EVIL[:-3]})
    async with serving(ledger) as url, Client(url, commons=ledger.commons, peer=BOB) as gesell:
        with pytest.raises(UnexpectedAnswer, match="no handle"):
            await gesell.member("bob")


async def test_a_refusal_in_evil_words_ends_a_command_in_two_lines(tmp_path: Any, ledger: WireLedger) -> None:
    from test_commands import gesell

    ledger.odd = [lambda *_: problem("not-active", 403, detail=EVIL[:-2])]
    await gesell(tmp_path, "key", "new", "--no-passphrase")
    async with serving(ledger) as url:
        status, _, err = await gesell(tmp_path, "pay", BOB.did, "0.05", "--commons", ledger.commons.hex(), url=url)
    assert status == 1
    assert_clean(err, lines=2)
