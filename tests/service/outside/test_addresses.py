"""What may be connected to, and 500 addresses that try to lead elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Iterable
from typing import Any

import httpcore
import pytest

from service.errors import AddressNotAllowed, OutsideFailed
from service.outside.addresses import host_allowed, is_public
from service.outside.http import OutsideClient, Rules

pytestmark = pytest.mark.anyio

PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",  # noqa: S104
    "10.0.0.1",
    "172.16.5.4",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "fec0::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a00:1::",
    "2001:0:7f00:1::80ff:fffe",
    "2001:db8::1",
    "100::1",
    "x",
    "127.1",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    ("host", "allowed", "expected"),
    [
        ("images.example.org", ("images.example.org",), True),
        ("IMAGES.example.org.", ("images.example.org",), True),
        ("a.b.example.org", ("*.example.org",), True),
        ("example.org", ("*.example.org",), False),
        ("evilexample.org", ("*.example.org",), False),
        ("example.org.evil.net", ("example.org",), False),
        ("anything", ("*",), True),
        ("anything", (), False),
    ],
)
def test_hosts(host: str, allowed: tuple[str, ...], expected: bool) -> None:
    assert host_allowed(host, allowed) is expected


class Network:
    """Stands for name service and network: names with their addresses; what is connected to is written down.

    A name that is asked for again answers with loopback: an attacker's name server may.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: dict[str, list[str]]) -> None:
        self.connected: list[str] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self._names, self._asked = names, set[str]()
        monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", self._resolve)
        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", self._connect)

    async def _resolve(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        found = self._names.get(host)
        if found is not None and host in self._asked:
            found = ["127.0.0.1"]
        self._asked.add(host)
        if found is None:  # an address, in any way of writing that the system takes
            entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
            found = [str(entry[4][0]) for entry in entries]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    async def _connect(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        return _Plain([self.answer])


class _Plain(httpcore.AsyncMockStream):
    async def start_tls(self, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        return self


def hostile() -> Iterable[str]:
    """Addresses in every way of writing, names that lead inside, users, ports, schemes, paths."""
    numbers = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0x7f.1",
        "0",
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "10.0.0.1",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "[::127.0.0.1]",
        "192.168.0.1",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "inside.test",
        "both.test",
        "mapped.test",
    ]
    schemes = [
        "https://",
        "HTTPS://",
        "https:",
        "https:/",
        "https:///",
        "http://",
        "file://",
        "gopher://",
        "ftp://",
        "//",
        "dict://",
    ]
    forms = [
        "{}",
        "{}:443",
        "{}:22",
        "{}:6379",
        "user@{}",
        "a.test@{}",
        "{}#@a.test",
        "{}\\@a.test",
        "{}?a.test",
        "{}/..;/",
        "{}%00",
    ]
    forms.append("{}\r\nHost: a")
    everything = [s + f.format(n) for s, f, n in itertools.product(schemes, forms, numbers)]
    rng = random.Random(7)
    likely = [u for u in everything if u.startswith("https://")]
    yield from likely[:: max(1, len(likely) // 300)][:300]
    yield from rng.sample(everything, 200)


async def test_500_hostile_addresses_reach_nothing_private(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "inside.test": ["10.0.0.7"],
        "both.test": ["8.8.8.8", "127.0.0.1"],
        "mapped.test": ["::ffff:192.168.1.1"],
        "a.test": ["8.8.8.8"],
        "localhost": ["127.0.0.1"],
        "LOCALHOST": ["127.0.0.1"],
        "localhost.": ["127.0.0.1"],
    }
    network = Network(monkeypatch, names)
    client = OutsideClient(Rules(("*",)))
    urls = list(hostile())
    assert len(urls) == 500
    refused = 0
    for url in urls:
        try:
            await client.send("GET", url, max_bytes=100, seconds=5)
        except (AddressNotAllowed, OutsideFailed):
            refused += 1
    assert all(map(is_public, network.connected)), network.connected
    assert refused >= 490  # what is left names a public host


async def test_a_name_is_resolved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, {"a.test": ["8.8.8.8"]})
    client = OutsideClient(Rules(("a.test",)))
    assert (await client.send("GET", "https://a.test/x", max_bytes=9, seconds=5)).body == b"ok"
    assert network.connected == ["8.8.8.8"]
    with pytest.raises(AddressNotAllowed):  # asked again, the name server says loopback
        await client.send("GET", "https://a.test/x", max_bytes=9, seconds=5)
    assert network.connected == ["8.8.8.8"]


@pytest.mark.parametrize(
    "target", ["https://127.0.0.1/", "http://b.test/", "https://inside.test/", "https://c.test/", "//127.1/"]
)
async def test_redirects_are_checked(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    names = {"a.test": ["8.8.8.8"], "b.test": ["8.8.4.4"], "c.test": ["8.8.4.4"], "inside.test": ["10.0.0.7"]}
    network = Network(monkeypatch, names)
    network.answer = f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
    client = OutsideClient(Rules(("a.test", "b.test", "inside.test", "127.0.0.1", "127.1")))
    with pytest.raises(AddressNotAllowed):
        await client.send("GET", "https://a.test/", max_bytes=9, seconds=5)
    assert network.connected == ["8.8.8.8"]


async def test_redirects_end(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, {f"a{k}.test": ["8.8.8.8"] for k in range(9)})
    network.answer = b"HTTP/1.1 302 Found\r\nLocation: https://8.8.4.4/\r\nContent-Length: 0\r\n\r\n"
    client = OutsideClient(Rules(("*",)))
    with pytest.raises(OutsideFailed, match="more than 5 redirects"):
        await client.send("GET", "https://a0.test/", max_bytes=9, seconds=5)
    assert len(network.connected) == 6
