"""`/openapi.json`: the table of routes as an OpenAPI 3.1 document.

Owns the form of the document. What it says is taken from where it holds: paths, parameters, types and refusals from the
rows of the table, words from the docstrings of the handlers, schemas from the Structs that check and encode. Knows no
single route.
"""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Final, get_origin

import msgspec
from aiohttp import web

from gesell_ledger import __version__
from gesell_ledger.api import answers, shapes
from gesell_ledger.api.parameters import Parameter
from gesell_ledger.api.problems import PROBLEM_TYPE
from gesell_ledger.api.routing import Route
from gesell_ledger.api.shapes import JSON
from gesell_ledger.webhooks.signing import HEADERS
from gesell_protocol.refusals import CODES

Json = dict[str, Any]

DOCUMENT: Final = web.AppKey("document", bytes)
#: Answers without a body.
_EMPTY: Final = (204, 304)
_SCHEMAS: Final = "#/components/schemas/{name}"
#: Refusals that say when to try again.
_LATER: Final = frozenset({"unavailable", "rate-limited"})


async def get_document(request: web.Request) -> web.Response:
    """This document."""
    return web.Response(body=request.app[DOCUMENT], content_type=JSON)


def write_document(routes: Sequence[Route], messages: Mapping[str, Any]) -> bytes:
    """The document of these routes and of what is sent to others, as JSON."""
    return msgspec.json.encode(describe(routes, messages))


def describe(routes: Sequence[Route], messages: Mapping[str, Any]) -> Json:
    """The document as a value of lists, maps and texts; `messages` are the types of what is sent to others, by name."""
    schemas = _Schemas(routes, messages.values())
    paths: dict[str, Json] = defaultdict(dict)
    for route in routes:
        paths[route.template][route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Gesell",
            "version": __version__,
            "summary": "A ledger for communities whose money should move.",
            "description": "What peers sign is told by protocol/SPEC.md; `/v1/prepare` writes it for those who can"
            " sign but not encode. Every refusal is `application/problem+json` with a code.",
        },
        "servers": [{"url": "/"}],
        "tags": _tags(routes),
        "paths": dict(paths),
        "webhooks": {name: {"post": _delivery(name, message, schemas)} for name, message in messages.items()},
        "components": {"schemas": schemas.components, "securitySchemes": {"token": _TOKEN}},
    }


_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": "A token that the reader issues and signs itself (SPEC §7.3); needed where a commons is not open.",
}


def _tags(routes: Iterable[Route]) -> list[Json]:
    """One tag a module of handlers, in the order of the table, with what the module says of itself."""
    modules = dict.fromkeys(route.handler.__module__ for route in routes)
    return [{"name": _tag(name), "description": (sys.modules[name].__doc__ or "").split("\n\n")[0]} for name in modules]


def _tag(module: str) -> str:
    return module.rpartition(".")[2]


# ── Operations ───────────────────────────────────────────────────────────────────────────────────────────────────


def _operation(route: Route, schemas: _Schemas) -> Json:
    summary, _, description = (inspect.getdoc(route.handler) or "").partition("\n\n")
    operation: Json = {
        "operationId": route.name or route.handler.__name__,
        "summary": " ".join(summary.split()).rstrip("."),
        "tags": [_tag(route.handler.__module__)],
    }
    if description:
        operation["description"] = description
    if route.in_protocol:
        operation["security"] = [{}, {"token": []}]
    if route.parameters:
        operation["parameters"] = [_parameter(parameter, schemas) for parameter in route.parameters]
    if route.body:
        operation["requestBody"] = {"required": True, "content": _content(route.body, schemas)}
    operation["responses"] = {
        **{str(status): _success(route, status, schemas) for status in route.statuses},
        **_refusals(route.refusals),
    }
    return operation


def _delivery(name: str, message: Any, schemas: _Schemas) -> Json:
    """A request that others are sent: signed and repeated as the Standard Webhooks specification has it."""
    return {
        "operationId": f"deliver_{name}",
        "summary": " ".join((inspect.getdoc(message) or "").split()).rstrip("."),
        "parameters": [
            {"name": header, "in": "header", "required": True, "schema": {"type": "string"}} for header in HEADERS
        ],
        "requestBody": {"required": True, "content": _content({JSON: message}, schemas)},
        "responses": {"2XX": {"description": "Taken; the next one follows."}},
    }


def _parameter(parameter: Parameter[Any], schemas: _Schemas) -> Json:
    schema = dict(schemas.of(parameter.type))
    if parameter.default is not None:
        schema["default"] = parameter.default
    described: Json = {"name": parameter.name, "in": parameter.place, "schema": schema}
    if parameter.place == "path" or parameter.required:
        described["required"] = True
    return {**described, "description": parameter.about} if parameter.about else described


def _success(route: Route, status: int, schemas: _Schemas) -> Json:
    described: Json = {"description": HTTPStatus(status).phrase}
    if any(_is_page(answer) for answer in route.answer.values()):
        described["headers"] = {"Link": _LINK}
    return {**described, "content": _content(route.answer, schemas)} if status not in _EMPTY else described


def _is_page(answer: Any) -> bool:
    kind = get_origin(answer) or answer
    return isinstance(kind, type) and issubclass(kind, answers.Page)


_LINK: Final = {
    "description": 'Where the next page is, with rel="next", while there is more.',
    "schema": {"type": "string"},
}


def _content(types: Mapping[str, Any], schemas: _Schemas) -> Json:
    return {
        kind: {"schema": {"description": what} if isinstance(what, str) else schemas.of(what)}
        for kind, what in types.items()
    }


def _refusals(codes: Iterable[str]) -> Json:
    """Problems by status, each with the codes that it may carry."""
    by_status: dict[int, list[str]] = defaultdict(list)
    for code in codes:
        by_status[CODES[code][0]].append(code)
    return {str(status): _problem(by_status[status]) for status in sorted(by_status)}


def _problem(codes: Sequence[str]) -> Json:
    narrowed = {"properties": {"code": {"enum": list(codes)}}}
    described: Json = {
        "description": "; ".join(f"`{code}`: {CODES[code][1]}" for code in codes),
        "content": {PROBLEM_TYPE: {"schema": {"allOf": [{"$ref": _SCHEMAS.format(name="Problem")}, narrowed]}}},
    }
    if not _LATER.isdisjoint(codes):
        described["headers"] = {"Retry-After": _RETRY_AFTER}
    return described


_RETRY_AFTER: Final = {"description": "Seconds until trying again makes sense.", "schema": {"type": "integer"}}


# ── Schemas ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Schemas:
    """The schemas of all types that the routes name. Structs stand among the components, and so do the values of
    `shapes`, under the names that they have there; where they are meant, they are referred to.
    """

    def __init__(self, routes: Iterable[Route], messages: Iterable[Any]) -> None:
        types: list[Any] = [answers.Problem, *messages]
        for route in routes:
            types += [parameter.type for parameter in route.parameters]
            types += [what for what in (*route.answer.values(), *route.body.values()) if not isinstance(what, str)]
        written, components = msgspec.json.schema_components(types, ref_template=_SCHEMAS)
        values = {name: value for name, value in vars(shapes).items() if get_origin(value) is Annotated}
        named, _ = msgspec.json.schema_components(values.values(), ref_template=_SCHEMAS)
        self._names = {msgspec.json.encode(schema): name for name, schema in zip(values, named, strict=True)}
        self._types = types  # kept, so that no other object takes over an id
        self._written = {id(kind): self._referring(schema) for kind, schema in zip(types, written, strict=True)}
        self.components: Json = {name: self._referring(schema) for name, schema in components.items()}
        self.components |= {name: self._referring_inside(schema) for name, schema in zip(values, named, strict=True)}

    def of(self, what: Any) -> Json:
        """The schema of a type that one of the routes names."""
        schema: Json = self._written[id(what)]
        return schema

    def _referring(self, schema: Any) -> Any:
        """The schema with a reference wherever a value of `shapes` is meant."""
        if isinstance(schema, dict):
            name = self._names.get(msgspec.json.encode(schema))
            return self._referring_inside(schema) if name is None else {"$ref": _SCHEMAS.format(name=name)}
        return [self._referring(part) for part in schema] if isinstance(schema, list) else schema

    def _referring_inside(self, schema: Json) -> Json:
        return {key: self._referring(part) for key, part in schema.items()}
