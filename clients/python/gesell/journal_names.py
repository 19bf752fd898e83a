"""What holders and assets are called in a journal: names that hledger and beancount take, each for one thing only.

Owns the shapes of names in both, and that no two accounts or commodities share one: what would is told apart by a
piece of the peer's did, or of a hash. Knows no journal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from gesell.export_books import Asset, Books
from gesell_protocol.names import ISSUER, Holder, did_of

#: beancount's commodities have at most 24 characters, begin with a capital, and end in a capital or a digit.
_COMMODITY_MAX: Final = 24
_GIFT: Final = "GIFT-"
_PLAIN_SYMBOL: Final = re.compile("[A-Za-z]+")


@dataclass(slots=True)
class Names:
    """One style of names for accounts and commodities; each is made when it is first asked for and stays."""

    books: Books
    account: Callable[[str, str], str]
    commodity: Callable[[Asset], str]
    _accounts: dict[tuple[Holder, bool], str] = field(default_factory=dict)
    _commodities: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)

    def account_of(self, holder: Holder, asset: str) -> tuple[str, bool]:
        """The account of a holder for money, or for gifts, and whether it is new."""
        place = (holder, self.books.assets[asset].is_gift)
        known = self._accounts.get(place)
        if known is not None:
            return known, False
        name = self.account(_branch(*place), self._called(holder))
        if name in self._taken and isinstance(holder, bytes):
            name = self.account(_branch(*place), f"{self._called(holder)}-{did_of(holder)[-8:]}")
        self._accounts[place] = self._first(name, else_="-", stem=name)
        return self._accounts[place], True

    def commodity_of(self, asset: str) -> tuple[str, bool]:
        """The commodity of an asset, and whether it is new."""
        known = self._commodities.get(asset)
        if known is not None:
            return known, False
        name = self.commodity(self.books.assets[asset])
        # Cut to make room: there are at most 256 kinds in a commons.
        self._commodities[asset] = self._first(name, else_="_", stem=name[: _COMMODITY_MAX - 4])
        return self._commodities[asset], True

    def _called(self, holder: Holder) -> str:
        if isinstance(holder, str):
            return holder
        return self.books.handles.get(holder) or did_of(holder).removeprefix("did:key:")

    def _first(self, name: str, *, else_: str, stem: str) -> str:
        """The name if it is free, else the stem with the first number behind it that is."""
        free, number = name, 1
        while free in self._taken:
            number += 1
            free = f"{stem}{else_}{number}"
        self._taken.add(free)
        return free


def _branch(holder: Holder, is_gift: bool) -> str:
    """The part of the tree of accounts to which a holder's account belongs."""
    if is_gift:
        return "gifts"
    if holder == ISSUER:
        return "equity"
    return "members" if isinstance(holder, bytes) else "commons"


def hledger_names(books: Books) -> Names:
    """Names for hledger: `assets:members:anna`, `WRG`, `hour`."""
    roots = {"gifts": "equity:gifts", "equity": "equity", "members": "assets:members", "commons": "assets"}
    return Names(books, lambda branch, name: f"{roots[branch]}:{name}", lambda asset: quoted(asset.code))


def quoted(symbol: str) -> str:
    """A commodity's symbol as hledger reads it: in quotes, if it has more than letters."""
    return symbol if _PLAIN_SYMBOL.fullmatch(symbol) else f'"{symbol}"'


def beancount_names(books: Books) -> Names:
    """Names for beancount: `Assets:Members:Anna`, `WRG`, `GIFT-HOUR`."""
    roots = {"gifts": "Equity:Gifts", "equity": "Equity", "members": "Assets:Members", "commons": "Assets"}
    return Names(books, lambda branch, name: f"{roots[branch]}:{_component(name)}", _beancount_commodity)


def _component(name: str) -> str:
    """A component of an account: it begins with a capital, and has letters, digits and dashes only."""
    return (name[0].upper() + name[1:]).replace("_", "-")


def _beancount_commodity(asset: Asset) -> str:
    if not asset.is_gift:
        return asset.code
    name = _GIFT + asset.code.upper()
    if len(name) <= _COMMODITY_MAX and name[-1] != "-":
        return name
    digest = sha256(asset.code.encode()).hexdigest()[:8].upper()
    return f"{name[: _COMMODITY_MAX - 9].rstrip('-')}-{digest}"
