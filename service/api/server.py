"""Running the application under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.app import create_app
from service.api.state import State
from service.extras import need_models
from service.jobs.connection import check_access
from service.logs import configure_logging
from service.settings import Settings, load_settings
from service.tracing import configure

log = logging.getLogger(__name__)
READY_POLL_S = 0.1
MAX_HEAD_BYTES = 64 * 1024
_HEAD_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
STARTUP_FAILED = 3  # exit code, as uvicorn's own


def run(values: dict[str, Any]) -> None:
    """Serve until a signal; `values` take precedence over the environment. Raises SettingsError, Missing."""
    settings = load_settings(**values)
    configure_logging(settings.log_level)
    configure("cdc-api")
    if settings.redis_url is None:
        need_models("without CDC_REDIS_URL cdc serve does the work itself and")
    else:
        asyncio.run(check_access(settings.redis_url.get_secret_value()))
    app = create_app(settings)
    server = Server(config_of(app, settings), app.state.parts)
    gc.collect()
    gc.freeze()  # a full collection over all that was imported would hold up the event loop for 0.1 s and more
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILED)


def config_of(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to serve `app`."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        root_path=settings.root_path,
        http=_bounded(2 * settings.max_connections),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=int(settings.grace_s) + 5,
    )


def _bounded(max_connections: int) -> type[HttpToolsProtocol]:
    """The protocol of connections, of which beyond `max_connections` an idle one is closed for each new one.

    Those with a request in flight are bounded by the application, which answers in words. So whoever fills the
    service with connections that say nothing loses them, and a health check always finds a place. A request's line and
    headers, which the parser collects without an end, have at most MAX_HEAD_BYTES (431, RFC 6585).
    """

    class Bounded(HttpToolsProtocol):
        _head = 0

        @property
        def idle(self) -> bool:
            return (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing()

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            if len(self.connections) >= max_connections:
                idle = next((c for c in self.connections if isinstance(c, Bounded) and c.idle), None)
                if idle is not None:
                    idle.transport.close()
            super().connection_made(transport)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            in_head = self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)
            self._head = self._head + len(data) if in_head else 0
            if self._head > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_HEAD_TOO_LARGE)
                self.transport.close()

    return Bounded


class Server(uvicorn.Server):
    """Stops the engine while uvicorn waits for open requests, not after: what exceeds the grace time is answered 503.

    uvicorn tells the application of the end only when no request is left, and cancels late ones with a bare 500.
    """

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state
        self._announcing: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a line of the log says when the models are loaded."""
        await super().startup(sockets)
        if self.started:
            self._announcing = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        door = self._state.door
        while not door.engine.status().ready:  # noqa: ASYNC110 - an engine has no event for it
            await asyncio.sleep(READY_POLL_S)
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        models = ", ".join(model.name for model in door.models())
        log.info("ready to serve", extra={"url": f"http://{shown}:{port}{self.config.root_path}/", "models": models})

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let running work end within the grace time, then end the application."""
        if self._announcing is not None:
            self._announcing.cancel()
        stopping = asyncio.create_task(self._state.door.engine.stop(self._state.settings.grace_s))
        await super().shutdown(sockets)
        await stopping
