"""The web page: static files, read once. Knows no HTTP framework."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

INDEX = "index.html"
BROWSER_DIR = Path(__file__).parent / "browser"  # built by `make browser`
PHOTOGRAPHS = "photographs"  # their sources and licences stand beside them
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline. `data:` and `blob:` images are those made in the page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)


@dataclass(frozen=True)
class Asset:
    """A file of the page; `etag` is a strong validator (RFC 9110, 8.8.3), quotes included."""

    name: str
    media_type: str
    data: bytes = field(repr=False)
    etag: str


def load_assets() -> Mapping[str, Asset]:
    """Return the files of the page by name, the index and the sample photographs among them."""
    folder = Path(__file__).parent
    paths = [path for path in (*folder.iterdir(), *(folder / PHOTOGRAPHS).iterdir()) if path.suffix in MEDIA_TYPES]
    return {path.name: _asset(path.name, path.read_bytes()) for path in sorted(paths)}


def photographs(assets: Mapping[str, Asset]) -> list[str]:
    """The names of the sample photographs."""
    return [name for name, asset in assets.items() if asset.media_type == "image/jpeg"]


def _asset(name: str, data: bytes) -> Asset:
    return Asset(name, MEDIA_TYPES[Path(name).suffix], data, f'"{hashlib.sha256(data).hexdigest()}"')
