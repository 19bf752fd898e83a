"""`/` and `/docs`: what somebody who comes with a browser finds.

Owns the page that shows the OpenAPI document, and how its assets leave: they come out of an installed package, and the
page may load nothing from anywhere else. Knows no route but these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from aiohttp import web
from msgspec import Meta
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from gesell_ledger.api import answers
from gesell_ledger.api.parameters import ASSET_OF_DOCS
from gesell_ledger.api.problems import Refused

_ASSETS: Final = Path(str(swagger_ui_path))
#: Files of the package that the page loads, and what they are. `start.js` is ours.
_KINDS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript",
}
#: What the table of routes says of them.
ASSETS: Final = dict.fromkeys(_KINDS.values(), "A part of the page.")
#: The folder is named after the version, so what was cached of another one does not match.
_VERSION: Final = _ASSETS.name

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Gesell</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="page"></div>
<noscript>This page needs JavaScript; the document itself is <a href="openapi.json">openapi.json</a>.</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# A validator's badge would send the document's address to a service of somebody else's.
_START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#page",
  deepLinking: true,
  validatorUrl: null,
  queryConfigEnabled: false,
  syntaxHighlight: false,
});
"""

_GUARDS: Final = {
    # Styles are set on elements by the script; pictures stand in the style sheet as data.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Welcome(answers.Answered, frozen=True, kw_only=True):
    """Where things are."""

    v1: Annotated[str, Meta(description="The service.")]
    openapi: Annotated[str, Meta(description="What it takes and answers, as OpenAPI 3.1.")]
    docs: Annotated[str, Meta(description="The same as a page.")]


async def get_welcome(request: web.Request) -> web.Response:
    """Where things are."""
    return answers.json_response(Welcome(v1="/v1", openapi="/openapi.json", docs="/docs"))


async def get_docs(request: web.Request) -> web.Response:
    """A page that shows this document, and sends requests to try. It loads nothing from any other host."""
    return web.Response(text=_PAGE, content_type="text/html", headers=_GUARDS)


async def get_docs_asset(request: web.Request) -> web.Response:
    """A part of the page."""
    name = ASSET_OF_DOCS.read(request)
    kind = _KINDS.get(name)
    if kind is None:
        raise Refused("not-found", "the page has no such part")
    headers = {**_GUARDS, "Cache-Control": "public, max-age=3600", "ETag": f'"{_VERSION}/{name}"'}
    if headers["ETag"] in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    body = _START.encode() if name == "start.js" else (_ASSETS / name).read_bytes()
    charset = "utf-8" if kind.startswith("text/") else None
    return web.Response(body=body, content_type=kind, charset=charset, headers=headers)
