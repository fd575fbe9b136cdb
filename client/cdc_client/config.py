"""What a client can be told, with its defaults."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TypedDict

from cdc_client.version import __version__

DEFAULT_URL = "http://127.0.0.1:8000"


@dataclass(frozen=True)
class ClientConfig:
    """How a client talks to the service.

    Attributes:
        base_url: of the service, with a path prefix if it has one.
        api_key: sent as bearer token; None: none.
        timeout: seconds without a byte of an answer. Decodes of large images take minutes.
        connect_timeout: seconds to connect.
        max_retries: how often a call that failed in a way that may pass is tried again.
        first_backoff_s, max_backoff_s: wait before the first retry, doubled for each further one up to the second
            value, with jitter; a `Retry-After` of the service is obeyed instead.
        max_retry_after_s: a longer `Retry-After` ends the call with its error.
        max_fetch_bytes: of an image that is given as URL.
        user_agent: header User-Agent.
    """

    base_url: str = DEFAULT_URL
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 330.0
    connect_timeout: float = 5.0
    max_retries: int = 4
    first_backoff_s: float = 0.25
    max_backoff_s: float = 8.0
    max_retry_after_s: float = 120.0
    max_fetch_bytes: int = 64 << 20
    user_agent: str = f"cdc-client/{__version__}"

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of range."""
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must begin with http:// or https://, not {self.base_url!r}")
        if self.max_retries < 0:
            raise ValueError("max_retries must not be negative")
        if self.max_fetch_bytes < 1:
            raise ValueError("max_fetch_bytes must be at least 1")
        for name in ("timeout", "connect_timeout", "first_backoff_s", "max_backoff_s", "max_retry_after_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ValueError("api_key must be printable ASCII")


class ClientOptions(TypedDict, total=False):
    """The fields of `ClientConfig` but for `base_url` and `api_key`, as keyword arguments of a client."""

    timeout: float
    connect_timeout: float
    max_retries: int
    first_backoff_s: float
    max_backoff_s: float
    max_retry_after_s: float
    max_fetch_bytes: int
    user_agent: str


def config_of(base_url: str | None, api_key: str | None, options: ClientOptions) -> ClientConfig:
    """Return a configuration; what is not given comes from CDC_URL and CDC_API_KEY, then from the defaults.

    Raises:
        ValueError: a value out of range.
    """
    base_url = base_url or os.environ.get("CDC_URL") or DEFAULT_URL
    api_key = api_key or os.environ.get("CDC_API_KEY") or None
    return ClientConfig(base_url.rstrip("/"), api_key, **options)
