"""The application: the only place where the parts are put together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import start_http_server
from starlette.middleware.cors import CORSMiddleware

from service.access.gate import Gate
from service.access.links import Links
from service.access.stores import store_of
from service.api import batches as batch_routes
from service.api import decoder, docs_page, health, iiif, playground, problems, routes
from service.api import documentation as docs
from service.api import jobs as job_routes
from service.api.batches import services_of
from service.api.layers import Capacity, Head
from service.api.middleware import QUIET_ROUTES, Observe
from service.api.responses import webhook_body
from service.api.schemas import ParameterFault, Problem
from service.api.state import State
from service.api.turns import TakeTurns, measure_lag
from service.api.uploads import Guard, Uploads
from service.engine.pool import pool_of
from service.engine.port import Engine
from service.jobs.attempts import Attempts
from service.jobs.batches import Batches
from service.jobs.canary import canary_of
from service.jobs.connection import connect
from service.jobs.executor import Door, executor_of
from service.jobs.hooks import Hooks
from service.jobs.limits import Budget, job_limits_of, limits_of
from service.jobs.memory import MemoryStore
from service.jobs.service import Jobs
from service.jobs.store import Store
from service.metrics import Metrics
from service.outside.fetching import sources_of
from service.outside.sinks import sinks_of
from service.outside.webhooks import webhooks_of
from service.settings import Settings, load_settings
from service.tracing import flush
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
            if not self.state.parts.gate.closed:  # a key is possible, none is needed
                for item in schema["paths"].values():
                    for operation in item.values():
                        if "security" in operation:
                            operation["security"].append({})
        return super().openapi()


def create_app(
    settings: Settings | None = None, engine: Engine | None = None, clock: Callable[[], float] = time.time
) -> FastAPI:
    """Return the application.

    Args:
        settings: the configuration; None reads the environment.
        engine: where the codec runs; None starts the worker pool.
        clock: seconds since 1970, by which what is kept in this process expires.

    Raises:
        SettingsError: the environment holds a value out of range.
    """
    settings = settings or load_settings()
    metrics = Metrics()
    if settings.redis_url is not None and engine is None:
        door, store, close_queue = _queued(settings, metrics)
    else:
        door, store, close_queue = *_in_process(settings, metrics, engine, clock), None
    jobs = Jobs(
        store,
        job_limits_of(settings),
        seconds_of=door.seconds_of,
        generation=door.generation,
        backlog=lambda: door.engine.seconds_of(0),
    )
    metrics.watch(door.engine.status)
    metrics.watch_jobs(jobs.counts)
    uploads = Budget(settings.max_concurrent_uploads, "requests")

    app = _Application(
        title="CDC API",
        summary="Image compression with conditional diffusion",
        description=DESCRIPTION,
        version=__version__,
        servers=[{"url": settings.root_path or "/", "description": "This service"}],
        openapi_tags=docs.TAGS,
        docs_url=None,  # that page loads its files from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
        lifespan=_lifespan,
        telemetry={  # spans of requests, where `service.tracing` exports any; all else is our metrics' and logs'
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope["path"].endswith(tuple(QUIET_ROUTES)),
        },
    )
    links = Links([secret.get_secret_value() for secret in settings.link_secrets], clock)
    fetched = Budget(settings.max_upload_bytes, "bytes of sources")
    sources = sources_of(settings)
    webhooks = webhooks_of(settings)
    sinks = sinks_of(settings)
    batches = Batches(store, jobs, services_of(door, sources, sinks, settings.root_path))
    hooks = Hooks(store, webhooks, jobs.get, webhook_body(settings.root_path), metrics.webhook, batches.advance)
    gate = _gate(settings)
    app.state.parts = State(
        settings,
        door,
        jobs,
        metrics,
        gate,
        links,
        uploads,
        sources,
        sinks,
        batches,
        fetched,
        webhooks,
        hooks,
        close_queue,
    )
    problems.install(app)
    app.include_router(routes.router)
    app.include_router(job_routes.router)
    app.include_router(batch_routes.router)
    app.include_router(iiif.router)
    app.include_router(health.router)
    if settings.docs:
        app.include_router(docs_page.make_router())
    app.include_router(decoder.make_router(settings.browser_dir))
    if settings.playground:
        app.include_router(playground.make_router())
    elif settings.docs:
        app.include_router(health.index_router)
    if settings.metrics_port is None:
        app.include_router(health.metrics_router)
    _add_layers(app, settings, metrics)
    return app


def _in_process(
    settings: Settings, metrics: Metrics, engine: Engine | None, clock: Callable[[], float]
) -> tuple[Door, Store]:
    """All work in this process and its worker processes."""
    executor = executor_of(settings, metrics, engine or pool_of(settings, metrics.observe_tick))
    limits = job_limits_of(settings)
    store = MemoryStore(limits, clock)
    store.serve(Attempts(store, executor, limits).execute)
    return executor, store


def _queued(settings: Settings, metrics: Metrics) -> tuple[Door, Store, Callable[[], Awaitable[None]]]:
    """All work through Redis, done by `cdc worker` processes; the last part closes the connections."""
    from service.jobs.blobs import store_of
    from service.jobs.fleet import Fleet, RemoteEngine
    from service.jobs.queue import Enqueuer
    from service.jobs.redis import RedisStore

    assert settings.redis_url is not None
    url = settings.redis_url.get_secret_value()
    redis = connect(url)
    store = RedisStore(redis, Enqueuer(url), store_of(settings.blobs_url, redis))
    engine = RemoteEngine(Fleet(redis), store.place)
    metrics.watch_fleet(engine.fleet)
    return Door(engine, limits_of(settings), settings.image_threads, canary_of(settings)), store, redis.aclose


def _gate(settings: Settings) -> Gate:
    """Keys in a file or in Redis; their use is counted over all processes where there is a Redis."""
    if settings.keys is None:
        return Gate()
    if settings.redis_url is None:
        return Gate(store_of(settings.keys, None))
    redis = connect(settings.redis_url.get_secret_value())
    return Gate(store_of(settings.keys, redis), redis)


def _add_layers(app: FastAPI, settings: Settings, metrics: Metrics) -> None:
    """Put the layers around the routes; the last one added is the outermost."""
    uploads = Uploads(settings.max_upload_bytes, settings.max_uploads_per_client, settings.min_body_rate)
    app.add_middleware(
        Guard, max_body_bytes=settings.max_body_bytes, body_timeout_s=settings.body_timeout_s, uploads=uploads
    )
    app.add_middleware(TakeTurns)
    app.add_middleware(Capacity, max_requests=settings.max_connections)
    app.add_middleware(Head)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("*",),
            expose_headers=("*", "ETag", "Server-Timing", "X-Request-Id", "Retry-After"),
        )
    app.add_middleware(Observe, metrics=metrics)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Run the engine, and the metrics' own port where there is one, as long as the application runs."""
    state: State = app.state.parts
    settings = state.settings
    server, sending = None, None
    if settings.metrics_port is not None:
        server, _ = start_http_server(settings.metrics_port, settings.host, state.metrics.registry)
    lag = asyncio.create_task(measure_lag(state.metrics.loop_lag.observe))
    try:
        await state.door.engine.start()
        await state.jobs.start()
        sending = asyncio.create_task(state.hooks.run())
        yield
    finally:
        if sending is not None:
            sending.cancel()  # what is due stays due
            await state.hooks.close()
        await state.jobs.stop(settings.grace_s)
        await state.door.engine.stop(settings.grace_s)
        await state.gate.close()
        await state.sources.close()
        await state.webhooks.close()
        await state.sinks.close()
        lag.cancel()
        if state.close_queue is not None:
            await state.close_queue()
        if server is not None:
            server.shutdown()
            server.server_close()
        await asyncio.to_thread(flush)  # uvicorn ends the process by its signal: nothing is called at exit
