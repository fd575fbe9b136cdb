"""The application: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import start_http_server
from starlette.middleware.cors import CORSMiddleware

from service.api import health, problems, routes
from service.api.middleware import Guard, Observe
from service.api.schemas import ParameterFault, Problem
from service.api.state import State
from service.codec.limits import Budget, Limits
from service.codec.service import CodecService
from service.engine.job import Engine
from service.metrics import Metrics
from service.settings import Settings, load_settings
from service.version import __version__

DESCRIPTION = """
Image compression with a conditional-diffusion codec: `/encode` turns an image into a small `.cdc` file, `/decode` turns
it back. Errors are RFC 9457 problems with a stable `type`.
"""


class _Application(FastAPI):
    """FastAPI whose schema also has the problem object, which no signature mentions."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            schema = super().openapi()
            known = schema.setdefault("components", {}).setdefault("schemas", {})
            for record in (Problem, ParameterFault):
                member = record.model_json_schema(ref_template="#/components/schemas/{model}")
                member.pop("$defs", None)
                known[record.__name__] = member
        return super().openapi()


def create_app(settings: Settings | None = None, engine: Engine | None = None) -> FastAPI:
    """Return the application.

    Args:
        settings: the configuration; None reads the environment.
        engine: where the codec runs; None starts the worker pool.

    Raises:
        SettingsError: the environment holds a value out of range.
    """
    settings = settings or load_settings()
    metrics = Metrics()
    if engine is None:
        engine = _pool(settings, metrics)
    metrics.watch(engine.status)
    limits = Limits(settings.max_pixels, settings.max_steps, settings.max_pixel_steps)
    pixels = Budget(settings.max_pixels_in_flight, "pixels")
    service = CodecService(engine, limits, pixels, metrics, settings.image_threads)
    uploads = Budget(settings.max_concurrent_uploads, "uploads")

    app = _Application(
        title="CDC",
        summary="Image compression with conditional diffusion",
        description=DESCRIPTION,
        version=__version__,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.parts = State(settings, service, metrics, uploads)
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(health.router)
    if settings.docs:
        app.include_router(health.index_router)
    if settings.metrics_port is None:
        app.include_router(health.metrics_router)
    _add_layers(app, settings, metrics)
    return app


def _pool(settings: Settings, metrics: Metrics) -> Engine:
    """Return the engine with a worker process for each device; they are started with the application."""
    from service.engine.messages import RunnerOptions
    from service.engine.pool import PoolEngine, devices

    options = [
        RunnerOptions(
            models_dir=settings.models_dir,
            precision=settings.precision,
            threads=settings.threads,
            device=device,
            cache_dir=settings.cache_dir,
            tick_seconds=settings.tick_s,
            batching=settings.batching,
        )
        for device in devices(settings.devices)
    ]
    return PoolEngine(
        options,
        max_waiting=settings.max_waiting,
        max_backlog_seconds=settings.max_backlog_s,
        memory_bytes=settings.memory_bytes,
        on_tick=metrics.observe_tick,
    )


def _add_layers(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put the layers around the routes; the last one added is the outermost."""
    app.add_middleware(Guard, max_body_bytes=settings.max_body_bytes, body_timeout_s=settings.body_timeout_s)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=("*", "ETag", "Server-Timing", "X-Request-Id", "Retry-After"),
        )
    app.add_middleware(Observe, metrics=metrics)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the engine, and the metrics' own port where there is one, as long as the application runs."""
    state: State = app.state.parts
    settings = state.settings
    server = None
    if settings.metrics_port is not None:
        server, _ = start_http_server(settings.metrics_port, settings.host, state.metrics.registry)
    try:
        await state.service.engine.start()
        yield
    finally:
        await state.service.engine.stop(settings.grace_s)
        if state.abandoned:
            await asyncio.wait(set(state.abandoned), timeout=settings.grace_s)
        if server is not None:
            server.shutdown()
            server.server_close()
