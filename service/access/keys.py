"""API keys: what is known of one, and how a token is made and recognised.

A token is `cdc_ID_SECRET`. The id is public and names the key in logs; the secret has 256 random bits, so that its
plain SHA-256 tells nothing (a slow hash is for passwords, which can be guessed), and only that is stored.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from limits import RateLimitItem
from limits import parse as parse_limit

Scope = Literal["encode", "decode"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_TOKEN = re.compile(r"cdc_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
_RATE = re.compile(r"([1-9][0-9]{0,8})/(s|second|m|minute|h|hour|d|day)")
_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day"}
_NAME = re.compile(r"[\w .@:/-]{1,64}")


@dataclass(frozen=True)
class ApiKey:
    """A key as it is stored.

    Attributes:
        id: 12 hexadecimal digits, public.
        name: whose or what for; shown to operators alone.
        digest: SHA-256 of the secret, hexadecimal.
        scopes: what it may do. Reading models and inspecting files needs no scope, its own jobs neither.
        rate: requests in a time, such as "10/second"; "" for no limit.
        concurrency: requests at the same time; 0 for no limit.
        created_at: Unix time.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[Scope, ...]
    rate: str = ""
    concurrency: int = 0
    created_at: float = 0.0

    def matches(self, secret: str) -> bool:
        """Compare a secret, in a time that does not depend on it."""
        return hmac.compare_digest(self.digest, _digest(secret))

    @property
    def limit(self) -> RateLimitItem | None:
        """The rate, for the library that counts."""
        return parse_limit(self.rate) if self.rate else None


class KeyStore(Protocol):
    """Where keys are kept. Every method raises KeysUnavailable when that cannot be reached."""

    async def get(self, id: str) -> ApiKey | None:
        """Return the key of an id."""
        ...

    async def all(self) -> list[ApiKey]:
        """Return all keys, the oldest first."""
        ...

    async def add(self, key: ApiKey) -> None:
        """Keep a key."""
        ...

    async def remove(self, id: str) -> bool:
        """Forget a key; False if there was none."""
        ...


def new_key(name: str, scopes: tuple[str, ...], rate: str = "", concurrency: int = 0) -> tuple[ApiKey, str]:
    """Return a new key and its token, which is nowhere else.

    Raises:
        ValueError: a name, scope, rate or number that cannot be.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a name has 1 to 64 letters, digits, spaces or any of .@:/_-")
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise ValueError(f"no scope {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    if concurrency < 0:
        raise ValueError("concurrency must not be negative")
    secret, id = secrets.token_urlsafe(32), secrets.token_hex(6)
    chosen: tuple[Scope, ...] = tuple(scope for scope in SCOPES if scope in scopes)
    key = ApiKey(id, name, _digest(secret), chosen, _rate(rate), concurrency, round(time.time(), 3))
    return key, f"cdc_{id}_{secret}"


def split_token(token: str) -> tuple[str, str] | None:
    """Return id and secret of a token, None for what is none."""
    found = _TOKEN.fullmatch(token)
    return (found[1], found[2]) if found else None


def _rate(text: str) -> str:
    if not text:
        return ""
    found = _RATE.fullmatch(text.replace(" ", ""))
    if not found:
        raise ValueError(f"a rate is a number of requests in a second, minute, hour or day, as 10/s; not {text!r}")
    return f"{found[1]}/{_UNITS.get(found[2], found[2])}"


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
