"""A new key file in the place of the old one: whatever ends the program, no key and no note is lost."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gesell import Peer
from gesell.key_notes import read_note, write_note
from gesell.key_swap import finish, is_half_done, take_place

HERE, ELSEWHERE = "aa" * 16, "bb" * 16
ME, OLD, NEW = Peer(b"\x01" * 32), Peer(b"\x02" * 32), Peer(b"\x03" * 32)
STEPS = ("link", "replace", "unlink", "fsync", "open")


class Killed(BaseException):
    """The program ends here, as by a power cut."""


def _killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, after: bool) -> None:
    """End the program at the so-many-th call of what changes a folder or a file, before or after it took effect."""
    left = [number]

    def killing(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Killed
            answer = real(*arguments, **named)
            if left[0] == 0:
                raise Killed
            return answer

        return call

    for name in STEPS:
        monkeypatch.setattr(os, name, killing(getattr(os, name)))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A key that was rotated before: it speaks for me in two commons; the one from before lies beside it."""
    path = tmp_path / "bob.key"
    OLD.save(path, passphrase=None)
    ME.save(tmp_path / "bob.key.old", passphrase=None)
    for commons in (HERE, ELSEWHERE):
        write_note(path, commons=commons, by=ME.did)
    return path


def _call(old: Path) -> None:
    """What `gesell key rotate` does with the files, the first time and again."""
    new = old.with_name("bob.key.new")
    if is_half_done(old, new):
        finish(old, new)
        return
    if Peer.load(old) == NEW:
        return
    if not new.exists():
        NEW.save(new, passphrase=None)
    write_note(new, commons=HERE, by=ME.did)
    take_place(old, new, commons=HERE, by=ME.did)


def _assert_nothing_lost(old: Path) -> None:
    assert Peer.load(old) == NEW
    assert read_note(old) == {HERE: ME.did}
    assert Peer.load(old.with_name("bob.key.old")) == ME
    assert Peer.load(old.with_name("bob.key.old-2")) == OLD
    assert read_note(old.with_name("bob.key.old-2")) == {HERE: ME.did, ELSEWHERE: ME.did}
    assert sorted(path.name for path in old.parent.iterdir()) == [
        "bob.key", "bob.key.by", "bob.key.old", "bob.key.old-2", "bob.key.old-2.by"
    ]  # fmt: skip


def test_the_old_key_and_its_note_are_kept_beside(old: Path) -> None:
    _call(old)
    _assert_nothing_lost(old)


@pytest.mark.parametrize("after", [False, True])
def test_ended_anywhere_it_works_and_a_second_call_completes_it(old: Path, after: bool, tmp_path: Path) -> None:
    begun = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    number, done = 0, False
    while not done:
        number += 1
        for path in tmp_path.iterdir():
            path.unlink()
        for name, data in begun.items():
            (tmp_path / name).write_bytes(data)
        NEW.save(old.with_name("bob.key.new"), passphrase=None)
        with pytest.MonkeyPatch.context() as patch:
            _killed_at(patch, number, after=after)
            try:
                _call(old)
                done = True
            except Killed:
                pass
        assert Peer.load(old) in (OLD, NEW)
        assert read_note(old)[HERE] == ME.did
        _call(old)
        _assert_nothing_lost(old)
    assert number > 15


def test_what_lies_where_the_old_key_would_go_is_not_touched(old: Path) -> None:
    old.with_name("bob.key.old-2.by").write_text("mine\n")
    old.with_name("bob.key.old-3").write_text("mine too\n")
    _call(old)
    assert old.with_name("bob.key.old-2.by").read_text() == "mine\n"
    assert old.with_name("bob.key.old-3").read_text() == "mine too\n"
    assert Peer.load(old.with_name("bob.key.old-4")) == OLD


def test_a_failure_of_the_disk_says_with_what_to_go_on(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(Exception, match=r"signs where it is: --key .*bob\.key\.new"):
        _call(old)
    assert Peer.load(old) == OLD
    assert read_note(old.with_name("bob.key.new")) == {HERE: ME.did}
