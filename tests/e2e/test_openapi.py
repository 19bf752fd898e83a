"""`/openapi.json` says what the service does: it is valid, it is the table of routes, and the service keeps to it. The
page at `/docs` shows it and asks nobody else for anything.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from openapi_spec_validator import validate

from gesell_ledger.api.document import describe
from gesell_ledger.api.routes import ROUTES
from gesell_ledger.api.webhooks import MESSAGES
from gesell_protocol.refusals import CODES
from gesell_protocol.statements import LEDGER_TYPES, TYPES
from tests.e2e.test_prepare import BOB, DOCS_COMMONS, DOCS_STATEMENT, EVE, World, doc_examples
from tests.running import Service, running
from tests.speaking import write_token

Answer = tuple[int, dict[str, str], bytes]


def fetch(service: Service, path: str, **headers: str) -> Answer:
    """GET a path: status, headers with names in lower case, body."""
    parts = urlsplit(service.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, body


@pytest.fixture(scope="module")
def document(service: Service) -> Any:
    status, headers, body = fetch(service, "/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(body)


# ── The document ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_document_is_valid(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    validate(document)


def test_document_is_the_table_of_routes(document: Any) -> None:
    described = {(method, path) for path, item in document["paths"].items() for method in item}
    assert described == {(route.method.lower(), route.template) for route in ROUTES}
    assert document == json.loads(json.dumps(describe(ROUTES, MESSAGES)))


def test_document_says_what_endpoints_are_sent(document: Any) -> None:
    (delivery,) = [item["post"] for item in document["webhooks"].values()]
    assert [one["name"] for one in delivery["parameters"]] == ["webhook-id", "webhook-timestamp", "webhook-signature"]
    schema = delivery["requestBody"]["content"]["application/json"]["schema"]
    message = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    assert set(message["required"]) == {"type", "timestamp", "data"}


def test_every_operation_has_a_name_of_its_own_and_says_what_it_does(document: Any) -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for operation in operations:
        assert len(operation["summary"]) > 10, operation["operationId"]
        placed = [(parameter["in"], parameter["name"]) for parameter in operation.get("parameters", ())]
        assert len(set(placed)) == len(placed)


def test_every_parameter_of_a_path_is_described(document: Any) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            described = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert described == set(re.findall(r"{(\w+)}", path)), path


def test_every_code_of_a_refusal_stands_under_its_status(document: Any) -> None:
    for item in document["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    _, narrowed = response["content"]["application/problem+json"]["schema"]["allOf"]
                    codes = narrowed["properties"]["code"]["enum"]
                    assert {CODES[code][0] for code in codes} == {int(status)}


def test_every_statement_that_a_peer_may_speak_has_a_schema(document: Any) -> None:
    body = document["paths"]["/v1/prepare"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(body["discriminator"]["mapping"]) == set(TYPES) - LEDGER_TYPES


# ── The service keeps to it ──────────────────────────────────────────────────────────────────────────────────────

#: One malformed statement stops none of the others, so a request with one is answered with 200.
_EACH_FOR_ITSELF = """
[[operations]]
include-path = "/v1/statements"
checks.negative_data_rejection.expected-statuses = ["200", "400", "413", "415"]
"""

_CONFIGURATION = """
seed = 1
[generation]
deterministic = true
max-examples = 5
[phases.stateful]
enabled = false
[checks]
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "413", "415"]
"""

_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


def _keep_to(service: Service, folder: Path, document: Any, configuration: str) -> None:
    """Let schemathesis ask the service all that the document allows, and much that it does not."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(configuration)
    command = [str(Path(sys.executable).parent / "schemathesis"), "run", "openapi.json", "--url", service.url]
    done = subprocess.run(
        [*command, "--checks", ",".join(_CHECKS), "--no-color"],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "SCHEMATHESIS_HOOKS": ""},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    # Bodies that it made may be long, and say little.
    shown = "\n".join(line[:400] for line in done.stdout.splitlines())
    assert done.returncode == 0, shown + done.stderr


def test_service_answers_as_the_document_says_where_things_are_known(document: Any, folder: Path) -> None:
    with running("--min-tick-seconds", "1") as service:
        world = World(service.url, "open")
        gift = world.say("gift", BOB, to=EVE.public_key, kind="hour", quantity=150)
        text = json.dumps(doc_examples()).replace(DOCS_COMMONS, world.commons.hex())
        forms = json.loads(text.replace(DOCS_STATEMENT, world.paid))
        known = json.loads(json.dumps(document))
        prepare = known["paths"]["/v1/prepare"]["post"]["requestBody"]["content"]["application/json"]
        prepare["examples"] = {form["type"]: {"value": form} for form in forms}
        token = write_token(BOB, ledger=world.ledger, now_ms=world.line.time())
        names = f"""
[headers]
Authorization = "Bearer {token}"
[parameters]
"path.commons" = "{world.commons.hex()}"
"path.member" = "bob"
"path.seq" = 3
"path.id" = "{world.paid}"
"path.level" = "0"
"path.place" = "000.p/1"
"path.asset" = "swagger-ui.css"
[[operations]]
include-path = "/v1/commons/{{commons}}/members/{{member}}/trust"
[operations.parameters]
"query.to" = "ada"
[[operations]]
include-path = "/v1/commons/{{commons}}/gifts/{{id}}"
[operations.parameters]
"path.id" = "{gift}"
"""
        _keep_to(service, folder, known, _CONFIGURATION + names + _EACH_FOR_ITSELF)
        counted = fetch(service, "/metrics")[2].decode()
    # What takes something away, or asks for a webhook, needs more than a name.
    named = [route.template for route in ROUTES if route.method == "GET" or route.path == "/v1/prepare"]
    missed = [path for path in named if not re.search(rf'route="{re.escape(path)}",status="200"', counted)]
    assert not missed, "never answered with 200"


def test_service_answers_as_the_document_says_where_nothing_is_known(document: Any, folder: Path) -> None:
    with running() as service:
        _keep_to(service, folder, document, _CONFIGURATION + _EACH_FOR_ITSELF)


# ── The page ─────────────────────────────────────────────────────────────────────────────────────────────────────

KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".png": "image/png"}


def test_front_door_says_where_things_are(service: Service) -> None:
    _, _, body = fetch(service, "/")
    for path in json.loads(body).values():
        assert fetch(service, path)[0] == 200


def test_page_loads_only_what_the_service_itself_serves(service: Service) -> None:
    status, headers, body = fetch(service, "/docs")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    parts = re.findall(r'(?:src|href)="([^"]+)"', body.decode())
    assert len(parts) == 5
    for part in parts:
        assert re.fullmatch(r"[a-z0-9./-]+", part), part
        status, loaded, _ = fetch(service, "/" + part)
        assert status == 200, part
        assert loaded["content-type"] == KINDS.get(Path(part).suffix, "application/json")
        assert loaded.get("x-content-type-options", "nosniff") == "nosniff"
    policy = dict(rule.strip().split(" ", 1) for rule in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "://" not in headers["content-security-policy"]
    # No script stands in the page itself, so the policy needs no exception for it.
    assert not re.search(r"<script[^>]*>[^<]", body.decode())
    assert "validatorUrl: null" in fetch(service, "/docs/start.js")[2].decode()


def test_part_of_the_page_is_sent_once(service: Service) -> None:
    path = "/docs/swagger-ui-bundle.js"
    _, headers, body = fetch(service, path)
    assert len(body) > 500_000
    assert "max-age" in headers["cache-control"]
    status, _, body = fetch(service, path, **{"If-None-Match": headers["etag"]})
    assert (status, body) == (304, b"")


@pytest.mark.parametrize(
    "path", ["index.html", "swagger-initializer.js", "..%2f__init__.py", "../routes.py", "%00", "swagger-ui.css%0a"]
)
def test_page_has_no_other_parts(service: Service, path: str) -> None:
    assert fetch(service, "/docs/" + path)[0] == 404
