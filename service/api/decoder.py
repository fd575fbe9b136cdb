"""What decodes without the service: the decoder's networks and integers, and the scripts that run them in a browser.

Files named by their content are kept for ever; the rest is asked for again, and answered 304 where it is known. They
are public: the same files are in the packages.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
from functools import cached_property
from pathlib import Path
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from model.shipped import decoder_folder
from service.api.conditional import not_modified
from service.playground import BROWSER_DIR

MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".safetensors": "application/octet-stream",
    ".wasm": "application/wasm",
}
NAMED_BY_CONTENT = re.compile(r"-([0-9a-f]{16}|[A-Z0-9]{8})\.\w+$")
FOR_EVER = "public, max-age=31536000, immutable"
# Scripts run in workers of a page that is isolated, which threads of WASM need.
HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; "
    "worker-src 'self'",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Vary": "Accept-Encoding",
}


class ServedFile:
    """A file; its hash and its compressed form are made when they are first asked for, and kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    @cached_property
    def etag(self) -> str:
        """A strong validator of the uncompressed file, without quotes."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @cached_property
    def compressed(self) -> bytes:
        """Its gzip. Blocks."""
        return gzip.compress(self.path.read_bytes(), 6, mtime=0)

    def prepare(self, compressed: bool) -> None:
        """Make what an answer needs, once."""
        with self._lock:
            _ = self.compressed if compressed else self.etag
            _ = self.etag


def scripts_in(browser_dir: Path | None) -> Path | None:
    """The folder of the browser's scripts, by default the one of this package; None where they have not been built."""
    folder = browser_dir or BROWSER_DIR
    return folder if (folder / "cdc-image.js").is_file() else None


def make_router(browser_dir: Path | None) -> APIRouter:
    """Return the route of the files in the package and in `browser_dir`; it stays out of the schema."""
    router = APIRouter(include_in_schema=False)
    folders = filter(None, (decoder_folder(), scripts_in(browser_dir)))
    files = {p.name: ServedFile(p) for folder in folders for p in sorted(folder.iterdir()) if p.suffix in MEDIA_TYPES}

    @router.get("/decoder/{name}")
    async def decoder_file(request: Request, name: Annotated[str, PathParameter(max_length=64)]) -> Response:
        """A file of the decoder."""
        if name not in files:
            raise HTTPException(404)
        file = files[name]
        small = "gzip" in request.headers.get("accept-encoding", "")
        await anyio.to_thread.run_sync(file.prepare, small)
        headers = {
            **HEADERS,
            "ETag": f'"{file.etag}-gzip"' if small else f'"{file.etag}"',
            "Cache-Control": FOR_EVER if NAMED_BY_CONTENT.search(name) else "no-cache",
        }
        media_type = MEDIA_TYPES[file.path.suffix]
        unchanged = not_modified(request, headers)
        if unchanged is not None:
            return unchanged
        if small:
            return Response(file.compressed, 200, {**headers, "Content-Encoding": "gzip"}, media_type)
        return FileResponse(file.path, 200, headers, media_type)

    return router
