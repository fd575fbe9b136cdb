"""The web page at /, its files, and what it has to know of this service: defaults, estimates, other codecs' files."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from model.config import DEFAULT_EFFORT, MAX_EFFORT, rounds_of
from service import playground
from service.api.access import Encoder
from service.api.body import BYTES_TYPE
from service.api.conditional import not_modified
from service.api.decoder import scripts_in
from service.api.parameters import given_once
from service.api.routes import serve_upload
from service.api.state import StateOf
from service.engine.port import Decode
from service.images.baselines import Baseline, Encoded, compare_with
from service.jobs.limits import Budget
from service.version import __version__

# Files carry no version in their names, so that they are asked for again each time; unchanged, the answer is 304.
CACHE_CONTROL = "no-cache"
MAX_COMPARISONS = 6  # waiting or in work; one at a time is in work, on one core


class CompareQuery(BaseModel):
    """Query of POST /playground/compare."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Baseline
    max_bytes: int = Field(ge=1, lt=2**63)


class EstimateQuery(BaseModel):
    """Query of GET /playground/estimate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1, le=1 << 20)
    height: int = Field(ge=1, le=1 << 20)
    steps: int = Field(ge=1, le=1 << 16)
    gamma: float = Field(default=0.0, ge=0, le=2, allow_inf_nan=False)
    effort: int = Field(default=DEFAULT_EFFORT, ge=1, le=MAX_EFFORT)


def make_router() -> APIRouter:
    """Return the routes of the page; they stay out of the schema. Reads the files."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(given_once)])
    assets = playground.load_assets()
    comparisons = Budget(MAX_COMPARISONS, "comparisons")
    one_at_a_time = anyio.CapacityLimiter(1)

    @router.get("/")
    async def index(request: Request) -> Response:
        """The page."""
        return _answer(request, assets[playground.INDEX])

    @router.get("/playground/about")
    async def about(state: StateOf) -> dict[str, Any]:
        """What the page cannot know: version, documentation, samples, and the defaults of the default model."""
        model = next((model for model in state.door.engine.models() if model.default), None)
        return {
            "version": __version__,
            "docs": state.settings.docs,
            "samples": playground.photographs(assets),
            "decodes_here": scripts_in(state.settings.browser_dir) is not None,
            "model": model
            and {
                "name": model.name,
                "default_steps": model.default_steps,
                "default_gamma": model.default_gamma,
                "max_steps": min(model.max_steps, state.settings.max_steps),
                "max_effort": model.max_effort,
            },
        }

    @router.get("/playground/estimate")
    async def estimate(state: StateOf, query: Annotated[EstimateQuery, Query()]) -> dict[str, float]:
        """Seconds that an encode and a decode of that size take by the default model, what waits now included."""
        model = next(model for model in state.door.models() if model.default)
        engine = state.door.engine
        size = query.width, query.height
        refinement = model.refinement_cost(*size, rounds_of(query.effort), sized=False)
        encode = engine.seconds_of(model.encode_cost(*size) + refinement)
        asked = Decode(query.width, query.height, query.steps, noiseless=not query.gamma)
        decode = engine.seconds_of(model.decode_cost(asked)) - engine.seconds_of(0)
        return {"encode": round(encode, 2), "decode": round(decode, 2)}

    @router.post("/playground/compare")
    async def compare(
        request: Request, state: StateOf, _: Encoder, query: Annotated[CompareQuery, Query()]
    ) -> Response:
        """The best file of another codec within so many bytes; X-Quality says how good, X-Fits whether it is within."""

        async def work(image: bytes, query: CompareQuery) -> Encoded | None:
            left = threading.Event()

            def run() -> Encoded | None:
                limit = state.settings.max_pixels
                return compare_with(
                    query.format, image, query.max_bytes, max_pixels=limit, go_on=lambda: not left.is_set()
                )

            with comparisons.hold(1):
                try:
                    return await anyio.to_thread.run_sync(run, limiter=one_at_a_time, abandon_on_cancel=True)
                finally:
                    left.set()

        made = await serve_upload(request, state, ("image/*", BYTES_TYPE), query, work)
        assert made is not None  # only one that nobody waits for is given up
        headers = {"X-Quality": str(made.quality), "X-Fits": str(made.fits).lower(), "Cache-Control": "no-store"}
        return Response(made.data, 200, headers, f"image/{query.format}")

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
        # An isolated page may share memory between threads, as decoding in the browser does.
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    return not_modified(request, headers) or Response(asset.data, 200, headers, asset.media_type)
