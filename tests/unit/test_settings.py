"""What an operator can say to `serve`: every range at its edges, and that the demo clock stays in demos."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gesell_ledger import commands
from gesell_ledger.configuration import SERVE, Options
from gesell_ledger.keyfile import KeyFault, read_passphrase
from gesell_ledger.settings import Settings, SettingsFault, WitnessPlace, default_data, parse_moment, read_witnesses
from gesell_ledger.storage.faults import Fault
from gesell_protocol.notes import WITNESS_KEY, NoteKey

PLACE = Path("data")
KEYS = tuple(NoteKey(f"witness.example/w{number}", bytes([number]) * 32, WITNESS_KEY) for number in range(1, 18))
WITNESSES = tuple(f"{key} https://w{number}.example/log" for number, key in enumerate(KEYS))


def settings(**said: Any) -> Settings:
    return Settings(data=PLACE, key_file=PLACE / "ledger.key", **said)


@pytest.mark.parametrize(
    ("said", "named"),
    [
        ({"port": -1}, "--port"),
        ({"port": 65_536}, "--port"),
        ({"workers": 0}, "--workers"),
        ({"workers": 65}, "--workers"),
        ({"min_tick_seconds": 0}, "--min-tick-seconds"),
        ({"min_tick_seconds": 31_536_001}, "--min-tick-seconds"),
        ({"sweep_ticks": 0}, "--sweep-ticks"),
        ({"sweep_ticks": 10_001}, "--sweep-ticks"),
        ({"half_life_days": 0}, "--half-life-days"),
        ({"half_life_days": 36_501}, "--half-life-days"),
        ({"demo": True, "clock_speed": 0}, "--clock-speed"),
        ({"demo": True, "clock_speed": 10_000_001}, "--clock-speed"),
        ({"demo": True, "clock_start_ms": -1}, "--clock-start"),
    ],
)
def test_what_lies_outside_its_range_is_refused_by_name(said: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsFault, match=named):
        settings(**said)


@pytest.mark.parametrize(
    "said",
    [
        {"port": 0},
        {"port": 65_535},
        {"workers": 64},
        {"min_tick_seconds": 1},
        {"min_tick_seconds": 31_536_000},
        {"sweep_ticks": 1},
        {"sweep_ticks": 10_000},
        {"half_life_days": 1},
        {"half_life_days": 36_500},
        {"demo": True, "clock_speed": 10_000_000, "clock_start_ms": 0},
    ],
)
def test_what_lies_at_the_edge_of_its_range_is_taken(said: dict[str, Any]) -> None:
    made = settings(**said)
    assert {name: getattr(made, name) for name in said} == said


@pytest.mark.parametrize("said", [{"clock_start_ms": 0}, {"clock_speed": 2}, {"clock_start_ms": 5, "clock_speed": 60}])
def test_the_demo_clock_is_never_there_without_demo(said: dict[str, int]) -> None:
    with pytest.raises(SettingsFault, match="say --demo too"):
        settings(**said)
    assert settings(demo=True, **said).demo


def test_nothing_said_means_the_safe_thing() -> None:
    made = settings()
    assert (made.host, made.port, made.min_tick_seconds) == ("127.0.0.1", 8420, 3_600)
    assert (made.workers, made.log_format, made.database) == (1, "logfmt", None)
    assert [made.demo, made.accept_clock, made.unsafe_durability, made.webhooks_to_private] == [False] * 4


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2020-01-25T19:00:00Z", 1_579_978_800_000),
        ("2020-01-25T19:00:00", 1_579_978_800_000),
        ("2020-01-25T20:00:00+01:00", 1_579_978_800_000),
        ("2020-01-25", 1_579_910_400_000),
        ("2020-01-25T19:00:00.1239Z", 1_579_978_800_123),
        ("1969-12-31T23:59:59.9999Z", -1),
    ],
)
def test_a_moment_is_read_in_utc_and_rounded_down(text: str, moment: int) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2020-13-01", "25.1.2020", "1579978800"])
def test_a_moment_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsFault, match="like 2020-01-25T19:00:00Z"):
        parse_moment(text)


def test_data_lies_in_a_system_folder_for_root_and_in_the_users_own_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_data().parts[-2:] == ("lib", "gesell")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data() == tmp_path / "gesell"
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_data() == tmp_path / ".local" / "share" / "gesell"


# ── Witnesses ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_witnesses_are_said_one_by_one_or_all_in_one_text() -> None:
    made = (WitnessPlace(KEYS[0], "https://w0.example/log"), WitnessPlace(KEYS[1], "https://w1.example/log"))
    assert read_witnesses(WITNESSES[:2]) == read_witnesses([" ".join(WITNESSES[:2])]) == made
    assert read_witnesses([f"{KEYS[0]} http://127.0.0.1:8421/"])[0].url == "http://127.0.0.1:8421"
    assert len(settings(witnesses=read_witnesses(WITNESSES[:16])).witnesses) == 16


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([str(KEYS[0])], "VKEY URL"),
        (["w1 https://w1.example"], "a verifier key looks like"),
        ([f"{NoteKey('w1', bytes(32))} https://w1.example"], "this one is a log's"),
        ([f"{KEYS[0]} ftp://w1.example"], "a URL"),
        ([f"{KEYS[0]} https://me:s3cret@w1.example"], "no user and no password"),
        ([f"{KEYS[0]} https://w1.example/?to=me"], "after \\?"),
        ([f"{KEYS[0]} https://a.example", f"{KEYS[0]} https://b.example"], "once"),
        ([WITNESSES[0], f"{NoteKey(KEYS[0].name, bytes(32), WITNESS_KEY)} https://b.example"], "once"),
        ([WITNESSES[0], f"{NoteKey('other', KEYS[0].key, WITNESS_KEY)} https://b.example"], "once"),
    ],
)
def test_witnesses_that_can_not_be_are_refused(said: list[str], why: str) -> None:
    with pytest.raises(SettingsFault, match=why) as refused:
        read_witnesses(said)
    assert "s3cret" not in str(refused.value)


def test_more_witnesses_than_a_reader_can_ask_for_are_refused() -> None:
    with pytest.raises(SettingsFault, match="--witness"):
        settings(witnesses=read_witnesses(WITNESSES))


# ── The passphrase ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [(b"open sesame", b"open sesame"), (b"open sesame\n", b"open sesame"), (b" two \r\nlines\n", b" two ")],
)
def test_a_passphrase_is_the_first_line_of_its_file(tmp_path: Path, content: bytes, passphrase: bytes) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(content)
    assert read_passphrase(file, environment="another") == passphrase


@pytest.mark.parametrize("content", [b"", b"\n", b"\r\nlate"])
def test_a_passphrase_file_that_says_nothing_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "passphrase"
    file.write_bytes(content)
    with pytest.raises(KeyFault, match="no passphrase in its first line"):
        read_passphrase(file, environment="")


def test_a_passphrase_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyFault, match="can't be read"):
        read_passphrase(tmp_path / "nowhere", environment="")


def test_without_a_file_the_environment_says_the_passphrase() -> None:
    assert read_passphrase(None, environment="öffne dich") == "öffne dich".encode()
    assert read_passphrase(None, environment="") is None


# ── From the command line ────────────────────────────────────────────────────────────────────────────────────────

Serve = Callable[..., Settings]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """`gesell serve` up to the point where a service would start; gives the settings that it would start with."""
    taken: list[Settings] = []

    async def start(made: Settings) -> None:
        taken.append(made)

    monkeypatch.setattr("gesell_ledger.commands.service.serve", start)
    monkeypatch.setattr("gesell_ledger.commands.configure_logs", lambda form: None)

    def call(*arguments: str) -> Settings:
        taken.clear()
        commands.app(["serve", *arguments], result_action="return_value")
        return taken[0]

    return call


def test_serve_takes_its_settings_from_the_command_line(serve: Serve, tmp_path: Path) -> None:
    made = serve("--data", str(tmp_path), "--port", "0", "--demo", "--clock-start", "2020-01-25", "--clock-speed", "60")
    assert made == Settings(
        data=tmp_path,
        key_file=tmp_path / "ledger.key",
        port=0,
        demo=True,
        clock_start_ms=1_579_910_400_000,
        clock_speed=60,
    )


def test_serve_takes_the_passphrase_out_of_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GESELL_KEY_PASSPHRASE", "open sesame")
    assert serve("--data", str(tmp_path)).key_passphrase == b"open sesame"
    assert "GESELL_KEY_PASSPHRASE" not in os.environ  # what the service starts does not inherit it


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--clock-speed", "60"], "say --demo too"),
        (["--clock-start", "2020-01-25"], "say --demo too"),
        (["--demo", "--clock-start", "noon"], "--clock-start is an ISO 8601 moment"),
        (["--port", "70000"], "--port is from 0 to 65535"),
        (["--key-passphrase-file", "nowhere-at-all"], "passphrase file nowhere-at-all can't be read"),
    ],
)
def test_serve_says_one_line_about_a_setting_it_can_not_take(
    serve: Serve, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        serve("--data", "unused", *arguments)
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (1, "")
    assert err.startswith("gesell: ")
    assert err.count("\n") == 1
    assert said in err


def test_every_setting_is_reached_from_the_command_line(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("word\n")
    made = serve(
        *("--host", "::1", "--port", "1", "--data", str(tmp_path), "--database", "postgresql://x@/y"),
        *("--key", str(tmp_path / "key"), "--key-passphrase-file", str(tmp_path / "pass"), "--min-tick-seconds", "2"),
        *("--sweep-ticks", "3", "--demo", "--clock-start", "1970-01-01T00:00:01Z", "--clock-speed", "4"),
        *("--accept-clock", "--unsafe-durability", "--webhooks-to-private", "--workers", "2", "--log-format", "json"),
        *("--half-life-days", "5", "--witness", WITNESSES[0], "--witness", WITNESSES[1]),
    )
    plain = settings()
    same = [name for name in Settings.__dataclass_fields__ if getattr(made, name) == getattr(plain, name)]
    assert same == []


# ── From the environment and from a file ─────────────────────────────────────────────────────────────────────────


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], str]:
    """Write a file of settings; gives its path."""

    def put(text: str) -> str:
        (tmp_path / "gesell.toml").write_text(text)
        return str(tmp_path / "gesell.toml")

    return put


def test_flag_comes_before_environment_and_environment_before_file(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str]
) -> None:
    file = write("[serve]\nport = 1\nsweep-ticks = 1\nmin_tick_seconds = 1\n")
    monkeypatch.setenv("GESELL_SERVE_PORT", "2")
    monkeypatch.setenv("GESELL_SERVE_SWEEP_TICKS", "2")
    made = serve("--config", file, "--port", "3")
    assert (made.port, made.sweep_ticks, made.min_tick_seconds) == (3, 2, 1)


def test_file_may_be_named_in_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GESELL_CONFIG", write("[serve]\nhost = '::1'\ndemo = true\naccept-clock = false\n"))
    made = serve()
    assert (made.host, made.demo, made.accept_clock) == ("::1", True, False)
    (tmp_path / "other.toml").write_text("[serve]\nhost = 'here'\n")
    assert serve("--config", str(tmp_path / "other.toml")).host == "here"


def test_every_setting_is_reached_from_the_environment_and_from_the_file(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str], tmp_path: Path
) -> None:
    (tmp_path / "pass").write_text("word\n")
    said = {
        "host": "::1",
        "port": 1,
        "workers": 2,
        "log-format": "json",
        "data": str(tmp_path),
        "database": "postgresql://x@/y",
        "key": str(tmp_path / "key"),
        "key-passphrase-file": str(tmp_path / "pass"),
        "unsafe-durability": True,
        "webhooks-to-private": True,
        "min-tick-seconds": 2,
        "sweep-ticks": 3,
        "half-life-days": 5,
        "witness": list(WITNESSES[:2]),
        "accept-clock": True,
        "demo": True,
        "clock-start": "1970-01-01T00:00:01Z",
        "clock-speed": 4,
    }
    assert {name.replace("-", "_") for name in said} == set(Options.__dataclass_fields__) - {"config"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in said.items()]
    from_file = serve("--config", write("\n".join(["[serve]", *lines])))
    for name, value in said.items():
        text = " ".join(value) if isinstance(value, list) else str(value)
        monkeypatch.setenv(SERVE.variable_of(f"--{name}"), text.lower() if isinstance(value, bool) else text)
    from_environment = serve()
    assert from_environment == from_file
    plain = settings()
    same = [name for name in Settings.__dataclass_fields__ if getattr(from_file, name) == getattr(plain, name)]
    assert same == []


def test_a_setting_of_the_file_that_is_called_like_a_command_is_not_passed_over(write: Callable[[str], str]) -> None:
    # As `demo` and `witness` are, which only the whole command line knows.
    file = write('[serve]\nwitness = ["nobody"]\n')
    call = [sys.executable, "-m", "gesell", "serve", "--port", "0", "--data", "unused", "--config", file]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("gesell: --witness: a witness is said as")


def test_a_flag_in_the_environment_can_say_no(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESELL_SERVE_DEMO", "false")
    assert not serve().demo


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[serve]\nprot = 8420\n", "[prot]"),
        ("[serve]\nport.low = 8420\n", "[port]"),
        ("[serve]\nconfig = 'other.toml'\n", "another file of settings"),
        ("[server]\nport = 8420\n", "'server' outside of its only table, [serve]"),
        ("port = 8420\n", "'port' outside of its only table, [serve]"),
        ("serve = 8420\n", "must be a mapping"),
        ("[serve]\nport = \n", "is no TOML"),
        ("[serve]\nport = 'many'\n", "is a whole number"),
        ("[serve]\nlog-format = 'xml'\n", "is logfmt or json"),
        (None, "can't be read: No such file"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(
    serve: Serve, write: Callable[[str], str], capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    file = write(text) if text is not None else "nowhere-at-all.toml"
    assert said in refusal(capsys, lambda: serve("--config", file))


@pytest.mark.parametrize("path", ["/", "/dev/zero", "/dev/null"])
def test_what_is_no_file_is_not_read_for_settings(serve: Serve, capsys: pytest.CaptureFixture[str], path: str) -> None:
    assert "is no file" in refusal(capsys, lambda: serve("--config", path))


def test_a_file_of_settings_that_has_no_end_is_not_read(
    serve: Serve, write: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "more than 1048576 bytes" in refusal(capsys, lambda: serve("--config", write("#" * 1_048_577)))


@pytest.mark.parametrize("variable", ["GESELL_SERVE_PROT", "GESELL_SERVE_CONFIG", "GESELL_SERVE_KEY_PASSPHRASE"])
def test_a_variable_that_is_no_setting_is_refused_and_its_value_not_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv(variable, "hush")
    said = refusal(capsys, serve)
    assert f"{variable} is not a setting" in said
    assert "hush" not in said


@pytest.mark.parametrize("text", ['["{}"]', '["{0}", "{0}"]', '[["{}"]]', '{{url = "{}"}}', '[{{url = "{}"}}]', "{}"])
@pytest.mark.parametrize("name", ["database", "databse", "workers", "demo", "log-format", "clock-start", "host", "key"])
def test_no_value_in_a_file_is_shown(
    serve: Serve, write: Callable[[str], str], capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    file = write(f"[serve]\n{name} = {text.format('postgresql://u:s3cret@h/x')}\n")
    assert "s3cret" not in refusal(capsys, lambda: serve("--config", file))


@pytest.mark.parametrize("name", ["port", "workers", "demo", "log-format", "clock-start", "host", "accept-clock"])
@pytest.mark.parametrize("by_flag", [False, True], ids=["variable", "flag"])
def test_a_dsn_in_a_place_of_another_kind_is_not_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, by_flag: bool
) -> None:
    dsn = "postgresql://u:s3cret@h/x"
    if not by_flag:
        monkeypatch.setenv(SERVE.variable_of(f"--{name}"), dsn)
    with pytest.raises(SystemExit):
        serve(*([f"--{name}={dsn}"] if by_flag else []))
    said = "".join(capsys.readouterr())
    assert f"--{name}" in said or SERVE.variable_of(f"--{name}") in said
    assert "s3cret" not in said


@pytest.mark.parametrize("argument", ["{}", "--databse={}", "--databse", "-d={}"])
def test_a_dsn_at_no_flag_is_not_shown(serve: Serve, capsys: pytest.CaptureFixture[str], argument: str) -> None:
    dsn = "postgresql://u:s3cret@h/x"
    assert "s3cret" not in refusal(capsys, lambda: serve(argument.format(dsn), dsn))


def test_other_variables_of_gesell_are_nobody_elses_business(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESELL_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("GESELL_PASSPHRASE", "the wallet's")
    assert serve().port == 8420


def test_a_dsn_is_taken_out_of_the_environment_and_not_shown(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GESELL_SERVE_DATABASE", "postgresql://x:hush@/y")
    monkeypatch.setenv("GESELL_KEY_PASSPHRASE", "hush too")
    made = serve()
    assert made.database == "postgresql://x:hush@/y"
    assert "GESELL_SERVE_DATABASE" not in os.environ  # what the service starts does not inherit it
    assert "hush" not in repr(made)


def refusal(capsys: pytest.CaptureFixture[str], call: Callable[[], object]) -> str:
    """What a call writes to stderr that ends with status 2, in one line."""
    with pytest.raises(SystemExit) as ended:
        call()
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (2, "")
    return " ".join(err.replace("│", " ").split())


def test_a_fault_of_the_settings_is_a_fault() -> None:
    assert issubclass(SettingsFault, Fault)
    assert issubclass(KeyFault, Fault)
