"""HTTP requests to addresses that callers name.

A name is resolved once, in the moment of connecting, and what is connected to is the address that was checked: there is
no second look-up that could answer otherwise. Redirects are followed here, each checked as the first address was.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from service.errors import AddressNotAllowed, OutsideFailed
from service.outside.addresses import host_allowed, is_public

MAX_REDIRECTS = 5
MAX_URL = 2048
MAX_HEADERS = 64  # that are looked at
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Rules:
    """What may be connected to.

    Attributes:
        hosts: names; `*.example.org` and `*` are understood.
        private: addresses that are not public, and http:// beside https://, are allowed too.
    """

    hosts: tuple[str, ...]
    private: bool = False

    def check(self, url: str) -> None:
        """Raise AddressNotAllowed for what is refused by its looks, before any name is resolved."""
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise AddressNotAllowed("the address is malformed") from None
        if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise AddressNotAllowed("an address is printable ASCII of at most 2048 characters, without spaces")
        if parts.scheme not in (("https", "http") if self.private else ("https",)) or not host:
            raise AddressNotAllowed("an address begins with https://")
        if parts.username is not None or parts.password is not None:
            raise AddressNotAllowed("an address has no user name and no password")
        if not host_allowed(host, self.hosts):
            raise AddressNotAllowed(f"the host {host!r} is not among those that this service connects to")


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses alone."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._below: httpcore.AsyncNetworkBackend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, check every address that came of it, connect to the first."""
        async with asyncio.timeout(timeout):
            try:
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
            except (OSError, UnicodeError):
                raise httpcore.ConnectError(f"the host {host!r} is not known") from None
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses or (not self._rules.private and not all(map(is_public, addresses))):
            raise AddressNotAllowed(f"the host {host!r} is not at a public address")
        return await self._below.connect_tcp(addresses[0], port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise AddressNotAllowed("sockets of this machine are not connected to")

    async def sleep(self, seconds: float) -> None:
        """As httpcore wants it."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Answer:
    """An answer of 200 to 299: its status, headers by names in lower case, and its bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class OutsideClient:
    """Sends requests by the rules. Every call is bounded in bytes and in time."""

    def __init__(self, rules: Rules, ssl_context: ssl.SSLContext | None = None, connections: int = 32) -> None:
        """`ssl_context`: whom to trust, for tests; None: the system's authorities."""
        self.rules = rules
        self._ssl_context = ssl_context
        self._connections = connections

    @cached_property
    def _pool(self) -> httpcore.AsyncConnectionPool:
        """Made with the first request: most services never send one."""
        return httpcore.AsyncConnectionPool(
            ssl_context=self._ssl_context or ssl.create_default_context(),
            max_connections=self._connections,
            max_keepalive_connections=0,  # a connection is of one request: its address was checked for that one
            network_backend=GuardedBackend(self.rules),
        )

    async def close(self) -> None:
        """Close what is open."""
        if "_pool" in vars(self):
            await self._pool.aclose()

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        max_bytes: int,
        seconds: float,
        redirects: int = MAX_REDIRECTS,
    ) -> Answer:
        """Send a request and return its answer.

        Args:
            method, url, headers, body: of the request; a redirect is followed with the same, by GET alone.
            max_bytes: of the answer's body.
            seconds: for all of it, redirects included.
            redirects: how many are followed.

        Raises:
            AddressNotAllowed: the address, or one that it leads to, may not be connected to.
            OutsideFailed: not reached in time, an answer of another status, or too many bytes.
        """
        try:
            async with asyncio.timeout(seconds):
                for _ in range(redirects + 1):
                    self.rules.check(url)
                    async with self._opened(method, url, headers or {}, body) as answer:
                        found = {name.decode("latin-1").lower(): v.decode("latin-1") for name, v in answer.headers}
                        if method == "GET" and answer.status in _REDIRECTS and "location" in found:
                            url = urljoin(url, found["location"])
                            continue
                        if not 200 <= answer.status <= 299:
                            raise OutsideFailed(f"{_shown(url)} answered {answer.status}")
                        return Answer(answer.status, found, await _bounded(answer, max_bytes, url))
        except TimeoutError:
            raise OutsideFailed(f"{_shown(url)} did not answer within {seconds:g} seconds") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            raise OutsideFailed(f"{_shown(url)} cannot be reached ({type(error).__name__})") from None
        raise OutsideFailed(f"more than {redirects} redirects")

    @asynccontextmanager
    async def _opened(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> AsyncIterator[httpcore.Response]:
        sent = {"Host": urlsplit(url).netloc, "User-Agent": "cdc", "Accept-Encoding": "identity", **headers}
        if body is not None:
            sent["Content-Length"] = str(len(body))
        limit = {"connect": 10.0, "read": 30.0, "write": 30.0, "pool": 60.0}
        async with self._pool.stream(
            method, url, headers=list(sent.items()), content=body, extensions={"timeout": limit}
        ) as answer:
            yield answer


async def _bounded(answer: httpcore.Response, max_bytes: int, url: str) -> bytes:
    data = bytearray()
    async for chunk in answer.aiter_stream():
        data += chunk
        if len(data) > max_bytes:
            raise OutsideFailed(f"{_shown(url)} has more than {max_bytes} bytes")
    return bytes(data)


def _shown(url: str) -> str:
    """What may be said of an address: a query may hold a secret."""
    return f"{urlsplit(url).scheme}://{urlsplit(url).hostname}"
