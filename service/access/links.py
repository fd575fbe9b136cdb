"""Links to results that need no key until they expire: HMAC-SHA256 (RFC 2104) over job and time.

A link says nothing of whom the job belongs to: where no keys are needed an owner is a hash of a token that its caller
chose, and who has the hash can guess the token.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Sequence

from service.errors import LinkExpired, LinkInvalid, LinksOff

MAX_TOKEN = 1024
_CONTEXT = b"cdc result link 2\n"


class Links:
    """Signs with the first secret, accepts all of them: a new one is put in front, the old one removed later."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """Without a secret there are no links."""
        self._secrets = [secret.encode() for secret in secrets]
        self._clock = clock

    def sign(self, job: str, ttl_s: int) -> tuple[str, float]:
        """Return the token of a link and when it ends, Unix time. Raises LinksOff."""
        if not self._secrets:
            raise LinksOff("this service gives no links: it has no CDC_LINK_SECRETS")
        expires = int(self._clock()) + ttl_s
        payload = json.dumps([job, expires], separators=(",", ":")).encode()
        return f"{_text(payload)}.{_text(_signature(self._secrets[0], payload))}", float(expires)

    def open(self, token: str) -> str:
        """Return the job.

        Raises:
            LinkInvalid: not signed by this service.
            LinkExpired: it was.
        """
        payload, given = (_bytes(part) for part in (*token[:MAX_TOKEN].split(".", 1), "")[:2])
        if not any(hmac.compare_digest(_signature(secret, payload), given) for secret in self._secrets):
            raise LinkInvalid("this link was not made by this service")
        job, expires = json.loads(payload)
        if self._clock() >= expires:
            raise LinkExpired("this link has expired")
        return str(job)


def _signature(secret: bytes, payload: bytes) -> bytes:
    return hmac.new(secret, _CONTEXT + payload, hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (ValueError, binascii.Error):
        return b""
    return data if _text(data) == text else b""  # one spelling of a link alone is good
