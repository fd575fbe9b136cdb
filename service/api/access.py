"""Who a request comes from."""

from __future__ import annotations

import hashlib

from starlette.requests import Request

ANONYMOUS = "anonymous"
BEARER = "bearer "


def owner_of(request: Request) -> str:
    """Name of the caller, to whom the jobs of the request belong: a hash of its bearer token (RFC 6750), if it has one.

    Tokens are not checked: a token keeps its jobs to itself, it opens nothing.
    """
    header = request.headers.get("authorization", "")
    if header[: len(BEARER)].lower() != BEARER:
        return ANONYMOUS
    return "token:" + hashlib.sha256(header[len(BEARER) :].strip().encode()).hexdigest()[:32]
