"""The page at /docs: Swagger UI over the OpenAPI document, with all its files from this service."""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.api.conditional import not_modified

_PACKAGE = "fastapi_offline"  # carries Swagger UI (Apache-2.0); of its code nothing is used
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>CDC - API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
# Addresses are relative to the page, so that it works behind a path prefix.
_START = 'SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true });\n'
# Swagger UI sets styles on its elements and carries its images as data; nothing else comes from elsewhere.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_TYPES = {"css": "text/css; charset=utf-8", "html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8"}


def make_router() -> APIRouter:
    """Return the routes of the page; they stay out of the schema. Reads the files."""
    router = APIRouter(include_in_schema=False)
    folder = resources.files(_PACKAGE) / "static"
    files = {name: (folder / name).read_bytes() for name in ("swagger-ui-bundle.js", "swagger-ui.css")}
    files |= {"index.html": _PAGE.encode(), "start.js": _START.encode()}
    tags = {name: f'"{hashlib.sha256(data).hexdigest()}"' for name, data in files.items()}

    def answer(request: Request, name: str) -> Response:
        headers = {"ETag": tags[name], "Cache-Control": "no-cache", "Content-Security-Policy": _POLICY}
        media_type = _TYPES[name.rpartition(".")[2]]
        return not_modified(request, headers) or Response(files[name], 200, headers, media_type)

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        """The page."""
        return answer(request, "index.html")

    @router.get("/docs/{name}")
    async def file(request: Request, name: str) -> Response:
        """A file of the page."""
        if name not in files:
            raise HTTPException(404)
        return answer(request, name)

    return router
