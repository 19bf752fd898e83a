"""What an operator can say to `serve`. Owns names, ranges and defaults; reads no environment and opens nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gesell_ledger.logs import LogFormat
from gesell_ledger.storage.faults import Fault
from gesell_ledger.webhooks.addresses import read_url
from gesell_protocol.notes import WITNESS_KEY, WITNESSES_MAX, NoteKey
from gesell_protocol.policy import TICK_SECONDS_MAX, TICK_SECONDS_MIN

PORT: Final = 8420
#: Far more than help: all that write to one commons wait for its lock in turn.
WORKERS_MAX: Final = 64
#: In half a year without any contact a relationship loses half of its strength.
HALF_LIFE_DAYS: Final = 180
HALF_LIFE_DAYS_MAX: Final = 36_500
_HOST: Final = re.compile(r"[0-9A-Za-z._:%-]{1,255}")


class SettingsFault(Fault):
    """The settings contradict each other or lie outside their range; the sentence says which."""


@dataclass(frozen=True, slots=True)
class WitnessPlace:
    """A witness by its key, and the URL below which it takes checkpoints."""

    key: NoteKey
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One service's settings, checked.

    `data` holds the private PostgreSQL (when `database` is None) and the ledger's key. `clock_start_ms` and
    `clock_speed` are the demo clock's. What may hold a secret is not shown by `repr`.
    """

    host: str = "127.0.0.1"
    port: int = PORT
    workers: int = 1
    data: Path
    database: str | None = field(default=None, repr=False)
    key_file: Path
    key_passphrase: bytes | None = field(default=None, repr=False)
    min_tick_seconds: int = TICK_SECONDS_MIN
    sweep_ticks: int = 30
    half_life_days: int = HALF_LIFE_DAYS
    demo: bool = False
    clock_start_ms: int | None = None
    clock_speed: int = 1
    accept_clock: bool = False
    unsafe_durability: bool = False
    webhooks_to_private: bool = False
    witnesses: tuple[WitnessPlace, ...] = ()
    log_format: LogFormat = "logfmt"

    def __post_init__(self) -> None:
        # Where the service can't listen, it says so by this name: nothing else may stand in it, least of all a DSN.
        if not _HOST.fullmatch(self.host):
            raise SettingsFault("--host is the name or the address to listen on, without a port")
        if not 0 <= self.port <= 65_535:
            raise SettingsFault("--port is from 0 to 65535; 0 takes any that is free")
        if not 1 <= self.workers <= WORKERS_MAX:
            raise SettingsFault(f"--workers is from 1 to {WORKERS_MAX}")
        if not 1 <= self.min_tick_seconds <= TICK_SECONDS_MAX:
            raise SettingsFault(f"--min-tick-seconds is from 1 to {TICK_SECONDS_MAX}")
        if not 1 <= self.sweep_ticks <= 10_000:
            raise SettingsFault("--sweep-ticks is from 1 to 10000")
        if not 1 <= self.half_life_days <= HALF_LIFE_DAYS_MAX:
            raise SettingsFault(f"--half-life-days is from 1 to {HALF_LIFE_DAYS_MAX}")
        if len(self.witnesses) > WITNESSES_MAX:
            raise SettingsFault(f"--witness names at most {WITNESSES_MAX} witnesses")
        if not 1 <= self.clock_speed <= 10_000_000:
            raise SettingsFault("--clock-speed is a whole number from 1 to 10000000")
        if self.clock_start_ms is not None and self.clock_start_ms < 0:
            raise SettingsFault("--clock-start is 1970 or later: ids and entries count milliseconds from then")
        if not self.demo and (self.clock_start_ms is not None or self.clock_speed != 1):
            raise SettingsFault(
                "--clock-start and --clock-speed make a demo clock: say --demo too, never on real money"
            )

    @property
    def half_life_ms(self) -> int:
        """The half-life of relationships and standing."""
        return self.half_life_days * 86_400_000


def default_data() -> Path:
    """Where a service keeps its data when nobody says: a system folder for root, the user's own otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/gesell")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "gesell"


def read_witnesses(said: Iterable[str]) -> tuple[WitnessPlace, ...]:
    """The witnesses that texts like `VKEY URL` name; one text may name several, as one variable has to."""
    words = [word for text in said for word in text.split()]
    try:
        if len(words) % 2:
            raise ValueError('a witness is said as "VKEY URL"')
        places = tuple(
            WitnessPlace(NoteKey.parse(vkey), str(read_url(url, to_private=True)).rstrip("/"))
            for vkey, url in zip(words[::2], words[1::2], strict=True)
        )
        if any(place.key.kind != WITNESS_KEY for place in places):
            raise ValueError("a witness's verifier key looks like name+1a2b3c4d+BA…; this one is a log's")
        if any("?" in place.url for place in places):
            raise ValueError("what is after ? has no place in the URL of a witness")
    except ValueError as error:
        raise SettingsFault(f"--witness: {error}") from None
    # Readers count distinct witnesses, so nobody counts twice.
    for said_of in ({place.key.name for place in places}, {place.key.key for place in places}):
        if len(said_of) < len(places):
            raise SettingsFault("--witness names each witness, by name and by key, once")
    return places


def parse_moment(text: str) -> int:
    """Milliseconds since the Unix epoch of an ISO 8601 moment; without an offset it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SettingsFault("--clock-start is an ISO 8601 moment like 2020-01-25T19:00:00Z") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    # Whole milliseconds, rounded down.
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
