"""The web page: static files, read once. Knows no HTTP framework."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

INDEX = "index.html"
PORTRAIT = "portrait.jpg"
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing from elsewhere, nothing inline. `data:` and `blob:` pictures are those made in the page.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
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
    """Return the files of the page by name, the index and the sample photograph (where there is one) among them."""
    folder = Path(__file__).parent
    paths = {path.name: path for path in folder.iterdir() if path.suffix in MEDIA_TYPES}
    photograph = find_photograph()
    if photograph is not None:
        paths[PORTRAIT] = photograph
    return {name: _asset(name, path.read_bytes()) for name, path in sorted(paths.items())}


def find_photograph() -> Path | None:
    """The public-domain portrait of Grace Hopper that matplotlib carries; None where matplotlib is not installed."""
    spec = find_spec("matplotlib")  # looked for, not imported: that takes a second
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "mpl-data" / "sample_data" / "grace_hopper.jpg"
    return path if path.is_file() else None


def _asset(name: str, data: bytes) -> Asset:
    return Asset(name, MEDIA_TYPES[Path(name).suffix], data, f'"{hashlib.sha256(data).hexdigest()}"')
