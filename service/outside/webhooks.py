"""Webhooks as Standard Webhooks 1.0 has them: what is sent, and how it is signed."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from service.errors import AddressNotAllowed, OutsideFailed
from service.outside.http import OutsideClient, Rules
from service.settings import Settings

PREFIX = "whsec_"
SECONDS = 15.0  # that a receiver has to answer
MAX_ANSWER = 1 << 16


def key_of(secret: str) -> bytes:
    """The key of a secret, `whsec_` and 24 to 64 bytes in base64. Raises ValueError."""
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(PREFIX) or not 24 <= len(key) <= 64:
        raise ValueError(f"a webhook secret is {PREFIX} and 24 to 64 random bytes in base64")
    return key


def signature(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> str:
    """The header webhook-signature: `v1,` and HMAC-SHA256 over id.timestamp.body in base64, one for each key."""
    signed = f"{id}.{timestamp}.".encode() + body
    digests = (hmac.new(key, signed, hashlib.sha256).digest() for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


def webhooks_of(settings: Settings) -> Webhooks:
    """What the settings allow."""
    client = OutsideClient(Rules(settings.webhook_hosts, settings.private_addresses))
    return Webhooks(client, [secret.get_secret_value() for secret in settings.webhook_secrets])


class Webhooks:
    """Sends webhooks, each signed with every secret: so a secret can be replaced while receivers know both."""

    def __init__(self, client: OutsideClient, secrets: Sequence[str]) -> None:
        """`secrets`: none turns webhooks off. Raises ValueError for one that is none."""
        self._client = client
        self._keys = [key_of(secret) for secret in secrets]

    def check(self, url: str) -> None:
        """Raise AddressNotAllowed where no webhook may go to an address."""
        if not self._keys:
            raise AddressNotAllowed("this service sends no webhooks: CDC_WEBHOOK_SECRETS is not set")
        self._client.rules.check(url)

    async def send(self, url: str, id: str, timestamp: int, body: bytes) -> None:
        """Send one, without following redirects.

        Raises:
            AddressNotAllowed: the address may not be connected to.
            OutsideFailed: no answer of 200 to 299.
        """
        headers = {
            "Content-Type": "application/json",
            "webhook-id": id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(self._keys, id, timestamp, body),
        }
        try:
            await self._client.send(
                "POST", url, headers=headers, body=body, max_bytes=MAX_ANSWER, seconds=SECONDS, redirects=0
            )
        except OutsideFailed as error:
            if "has more than" not in str(error):  # an answer of 200 that is long: it has arrived all the same
                raise

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
