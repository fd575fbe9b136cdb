"""Links to results that need no key until they expire: job and time, signed (HMAC-SHA256, RFC 2104) by itsdangerous.

A link says nothing of whom the job belongs to: where no keys are needed an owner is a hash of a token that its caller
chose, and who has the hash can guess the token.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence

from itsdangerous import BadData, URLSafeSerializer

from service.errors import LinkExpired, LinkInvalid, LinksOff

MAX_TOKEN = 1024
_SALT = "cdc result link 3"


class Links:
    """Signs with the first secret, accepts all of them: a new one is put in front, the old one removed later."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """Without a secret there are no links."""
        self._clock = clock
        self._serializer = None
        if secrets:
            how = {"key_derivation": "hmac", "digest_method": hashlib.sha256}
            self._serializer = URLSafeSerializer(
                list(reversed(secrets)), _SALT, signer_kwargs=how
            )  # the last one signs

    def sign(self, job: str, ttl_s: int) -> tuple[str, float]:
        """Return the token of a link and when it ends, Unix time. Raises LinksOff."""
        if self._serializer is None:
            raise LinksOff("this service gives no links: it has no CDC_LINK_SECRETS")
        expires = int(self._clock()) + ttl_s
        return str(self._serializer.dumps([job, expires])), float(expires)

    def open(self, token: str) -> str:
        """Return the job.

        Raises:
            LinkInvalid: not signed by this service.
            LinkExpired: it was.
        """
        try:
            if self._serializer is None:
                raise BadData("no secret")
            job, expires = self._serializer.loads(token[:MAX_TOKEN])
        except BadData:
            raise LinkInvalid("this link was not made by this service") from None
        if self._clock() >= expires:
            raise LinkExpired("this link has expired")
        return str(job)
