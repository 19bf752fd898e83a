"""The two ends of a webhook: peers who ask for one, and endpoints that are delivered to.

Owns the signed request as any program would write it, and a real HTTP server that keeps what it is sent. Judges
nothing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import aiohttp
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks import Webhook

from gesell_protocol.names import did_of
from tests.running import Service
from tests.speaking import signer_of

JWT = "application/jwt"
PATIENCE_SECONDS = 60.0

Answering = Callable[["Attempt"], Awaitable[web.StreamResponse]]


async def until(true: Callable[[], bool], *, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until something holds, however loaded the machine is."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 (what is waited for happens in another process)
            await asyncio.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that an endpoint was sent."""

    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def message(self) -> Any:
        """What it says, unverified."""
        return json.loads(self.body)

    @property
    def seq(self) -> int:
        """The entry that it delivers."""
        seq: int = self.message["data"]["entry"]["seq"]
        return seq

    def verified(self, secret: str) -> Any:
        """What it says, if the specification's own library takes it; raises if not."""
        return Webhook(secret).verify(self.body, self.headers)


async def take(_: Attempt) -> web.StreamResponse:
    """Answer that all is well."""
    return web.Response(status=204)


@dataclass
class Endpoint:
    """A real HTTP server; `answer` says what it answers, `attempts` are what it was sent."""

    url: str = ""
    answer: Answering = take
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def seqs(self) -> list[int]:
        """The entries that it was sent, in the order in which they came."""
        return [attempt.seq for attempt in self.attempts]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Keep what was sent, and answer."""
        attempt = Attempt(
            {name.lower(): value for name, value in request.headers.items()}, await request.read(), time.time()
        )
        self.attempts.append(attempt)
        return await self.answer(attempt)


@asynccontextmanager
async def endpoint(answer: Answering = take) -> AsyncIterator[Endpoint]:
    """An endpoint on a port of its own of this machine."""
    opened = Endpoint(answer=answer)
    app = web.Application(client_max_size=2**20)
    app.router.add_route("*", "/{path:.*}", opened.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    opened.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield opened
    finally:
        await runner.cleanup()


# ── Asking ───────────────────────────────────────────────────────────────────────────────────────────────────────


def write_jwt(name: str, claims: dict[str, Any], *, kid: str | None = None) -> str:
    """A JWT by PyJWT, as any program would make it, signed by the key that `signer_of` makes of a name."""
    private = Ed25519PrivateKey.from_private_bytes(sha256(f"test key {name}".encode()).digest())
    headers = {"typ": "JWT"} if kid is None else {"typ": "JWT", "kid": kid}
    return jwt.encode(claims, private, algorithm="EdDSA", headers=headers)


class Asker:
    """A peer that asks a service about webhooks of a commons."""

    def __init__(self, service: Service, commons: bytes, name: str, *, by_key: str | None = None) -> None:
        """`name` is what `signer_of` is told; `by_key` likewise, of an added key that signs instead."""
        self.service = service
        self.commons = commons.hex()
        self.did = did_of(signer_of(name).public_key)
        self.key = by_key or name
        self.kid = None if by_key is None else did_of(signer_of(by_key).public_key)
        self.issued_s = 0

    async def claims(self, **more: Any) -> dict[str, Any]:
        """Those of a token; every one is issued a second later than the last, by the ledger's clock or a bit ahead."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.service.url}/v1") as response:
            about = await response.json()
        self.issued_s = max(about["time"] // 1000, self.issued_s + 1)
        times = {"iat": self.issued_s, "exp": self.issued_s + 86_400}
        return {"iss": self.did, "sub": self.did, "aud": about["ledger"], **times, **more}

    async def request(self, **webhook: Any) -> str:
        """The signed request for a webhook."""
        return write_jwt(self.key, await self.claims(commons=self.commons, webhook=webhook), kid=self.kid)

    async def send(self, request: str, *, kind: str = JWT, commons: str | None = None) -> tuple[int, Any]:
        """POST a request as it is: status and answer."""
        path = f"{self.service.url}/v1/commons/{commons or self.commons}/webhooks"
        headers = {"Content-Type": kind}
        async with aiohttp.ClientSession() as session, session.post(path, data=request, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def ask(self, **webhook: Any) -> Any:
        """A new webhook, with its secret."""
        status, answer = await self.send(await self.request(**webhook))
        assert status == 201, answer
        return answer

    async def bearer(self) -> dict[str, str]:
        """The header with a token."""
        return {"Authorization": f"Bearer {write_jwt(self.key, await self.claims(), kid=self.kid)}"}

    async def list(self) -> list[Any]:
        """The peer's webhooks."""
        path = f"{self.service.url}/v1/commons/{self.commons}/webhooks"
        async with aiohttp.ClientSession() as session, session.get(path, headers=await self.bearer()) as response:
            answer = await response.json(content_type=None)
            assert response.status == 200, answer
            items: list[Any] = answer["items"]
            return items

    async def delete(self, name: str) -> int:
        """End a webhook: the status."""
        path = f"{self.service.url}/v1/commons/{self.commons}/webhooks/{name}"
        async with aiohttp.ClientSession() as session, session.delete(path, headers=await self.bearer()) as response:
            return response.status
