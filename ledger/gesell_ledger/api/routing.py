"""What a row of the table of routes says: enough to serve the path, and to describe it.

Owns the form of a row, and which refusals go without saying. Knows no route.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final

from aiohttp import web

from gesell_ledger.api.parameters import IN_PATHS, Parameter, check_query
from gesell_ledger.api.rights import BEARER, verify_bearer
from gesell_ledger.api.shapes import JSON

#: A parameter in a path, maybe with the characters that it takes: `{place:.+}` reaches over slashes.
_NAMED: Final = re.compile(r"\{(\w+)(?::[^}]*)?\}")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: What any path may answer: an unfit request, a fault, and too much at once.
_ANYWHERE: Final = ("malformed", "timeout", "internal", "unavailable")
#: … what any path of the protocol may, even where it does not matter who asks …
_IN_PROTOCOL: Final = ("bad-token",)
#: … and what any path below a commons may.
_IN_COMMONS: Final = ("unknown-commons",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A path, what answers it, and what goes in and out.

    `answer` and `body` are types by content type: a Struct for JSON, or a description in words of what is none.
    `statuses` are those of success. `codes` are the refusals beside those that go without saying. `name` is the
    handler's own unless two paths share it.
    """

    method: str
    path: str
    handler: Handler
    answer: Mapping[str, Any]
    query: tuple[Parameter[Any], ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    statuses: tuple[int, ...] = (200,)
    codes: tuple[str, ...] = ()
    name: str = ""

    @property
    def parameters(self) -> tuple[Parameter[Any], ...]:
        """Those of the path in their order, then those of the query."""
        return (*(IN_PATHS[name] for name in _NAMED.findall(self.path)), *self.query)

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it: what a parameter may look like stands with the parameter."""
        return _NAMED.sub(r"{\1}", self.path)

    @property
    def refusals(self) -> tuple[str, ...]:
        """The codes with which it may refuse, each once."""
        protocol = _IN_PROTOCOL if self.in_protocol else ()
        inside = _IN_COMMONS if "{commons}" in self.path else ()
        return tuple(dict.fromkeys((*_ANYWHERE, *protocol, *inside, *self.codes)))

    @property
    def in_protocol(self) -> bool:
        """Whether it is one of the protocol's, where a token that is shown must hold (SPEC §7.3)."""
        return self.path == "/v1" or self.path.startswith("/v1/")

    def served(self) -> web.RouteDef:
        """The row as the framework takes it."""
        handler = self.handler
        if self.in_protocol:
            handler = _checked(handler, frozenset(item.name for item in self.query if item.place == "query"))
        return web.RouteDef(self.method, self.path, handler, {})


def _checked(handler: Handler, known: frozenset[str]) -> Handler:
    """The handler behind a look at the token and the query's names, before anything is read or looked up."""

    @wraps(handler)
    async def check_first(request: web.Request) -> web.StreamResponse:
        request[BEARER] = verify_bearer(request)
        check_query(request, known)
        return await handler(request)

    return check_first


def get(path: str, handler: Handler, answer: Any, **more: Any) -> Route:
    """A path that is read. `answer` is the Struct of its JSON, or types by content type; `more` as in `Route`."""
    return Route(method="GET", path=path, handler=handler, answer=_by_content_type(answer), **more)


def post(path: str, handler: Handler, answer: Any, body: Any, **more: Any) -> Route:
    """A path that takes something; `body` in the way of `answer`."""
    codes = ("too-large", "unsupported-media-type", *more.pop("codes", ()))
    return Route(
        method="POST",
        path=path,
        handler=handler,
        answer=_by_content_type(answer),
        body=_by_content_type(body),
        codes=codes,
        **more,
    )


def delete(path: str, handler: Handler, answer: Any, **more: Any) -> Route:
    """A path that takes something away; `answer` in the way of `get`, `{}` for none."""
    return Route(method="DELETE", path=path, handler=handler, answer=_by_content_type(answer), **more)


def _by_content_type(what: Any) -> Mapping[str, Any]:
    return what if isinstance(what, Mapping) else {JSON: what}
