"""Conditional requests: 304 for what the caller has already (RFC 9110, 13.1.2)."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Request
from starlette.responses import Response


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """Return the 304 with `headers` if If-None-Match names their ETag or `*`, else None; compared weakly (8.8.3.2)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    known = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return Response(None, 304, dict(headers)) if headers["ETag"] in known or "*" in known else None
