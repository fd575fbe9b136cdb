"""The web page at /, its files, and what it has to know of this service."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service import playground
from service.api.conditional import not_modified
from service.api.state import StateOf
from service.version import __version__

# Files carry no version in their names, so that they are asked for again each time; unchanged, the answer is 304.
CACHE_CONTROL = "no-cache"


def make_router() -> APIRouter:
    """Return the routes of the page; they stay out of the schema. Reads the files."""
    router = APIRouter(include_in_schema=False)
    assets = playground.load_assets()

    @router.get("/")
    async def index(request: Request) -> Response:
        """The page."""
        return _answer(request, assets[playground.INDEX])

    @router.get("/playground/about")
    async def about(state: StateOf) -> dict[str, Any]:
        """What the page cannot know: version, whether there is documentation, whether there is a photograph."""
        samples = [playground.PORTRAIT] if playground.PORTRAIT in assets else []
        return {"version": __version__, "docs": state.settings.docs, "samples": samples}

    @router.get("/playground/{name}")
    async def asset(request: Request, name: Annotated[str, Path(max_length=64)]) -> Response:
        """A file of the page."""
        if name not in assets:
            raise HTTPException(404)
        return _answer(request, assets[name])

    return router


def _answer(request: Request, asset: playground.Asset) -> Response:
    headers = {
        "ETag": asset.etag,
        "Cache-Control": CACHE_CONTROL,
        "Content-Security-Policy": playground.POLICY,
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    return not_modified(request, headers) or Response(asset.data, 200, headers, asset.media_type)
