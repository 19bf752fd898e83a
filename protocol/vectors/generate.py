"""Make the vector files that stand beside this script (SPEC §9), or check that they are what it makes.

    python protocol/vectors/generate.py            writes all files
    python protocol/vectors/generate.py --check    writes nothing; status 1 and the names of files that differ

Owns the list of files. Must not know what stands in them. It needs the project installed (`make vectors`), and every
run gives the same bytes: no clock, no randomness.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from vectors import ed25519_edges
from vectors.demurrage_cases import demurrage_json
from vectors.giving_cases import giving_json
from vectors.history_cases import histories_json
from vectors.proof_cases import logfile_json, notes_json, proofs_json
from vectors.statement_cases import statements_json
from vectors.tree_cases import tree_json
from vectors.value_cases import amounts_json, canonical_json, names_json

HERE: Final = Path(__file__).parent
#: A file is read by clients in every language, some of them on phones.
FILE_MAX_BYTES: Final = 400_000


def ed25519_json() -> str:
    """Give the text of `ed25519.json`."""
    return ed25519_edges.as_json(ed25519_edges.cases())


FILES: Final[Mapping[str, Callable[[], str]]] = {
    "amounts.json": amounts_json,
    "canonical.json": canonical_json,
    "demurrage.json": demurrage_json,
    "ed25519.json": ed25519_json,
    "giving.json": giving_json,
    "histories.json": histories_json,
    "logfile.json": logfile_json,
    "names.json": names_json,
    "notes.json": notes_json,
    "proofs.json": proofs_json,
    "statements.json": statements_json,
    "tree.json": tree_json,
}


def contents(name: str) -> bytes:
    """Give what file `name` must hold. Raises AssertionError where the reference code denies a case's claim."""
    data = FILES[name]().encode()
    assert len(data) < FILE_MAX_BYTES, f"{name} has {len(data)} bytes"
    return data


def differing() -> list[str]:
    """Give the names of files that are missing or are not what this script makes."""
    return [name for name in FILES if not (HERE / name).is_file() or (HERE / name).read_bytes() != contents(name)]


def main() -> int:
    """Write or check the files; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the vectors of the protocol.")
    parser.add_argument("--check", action="store_true", help="write nothing; name the files that differ")
    if parser.parse_args().check:
        wrong = differing()
        for name in wrong:
            print(f"{name} differs from what the generator makes", file=sys.stderr)
        return 1 if wrong else 0
    # All are made before one is written: a failure leaves the files as they were.
    for name, data in {name: contents(name) for name in FILES}.items():
        (HERE / name).write_bytes(data)
    return 0


if __name__ == "__main__":
    sys.exit(main())
