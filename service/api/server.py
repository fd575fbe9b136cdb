"""Running the application under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import Any

import uvicorn

from service.api.app import create_app
from service.api.state import State
from service.jobs.connection import check_access
from service.logs import configure_logging
from service.settings import load_settings

STARTUP_FAILED = 3  # exit code, as uvicorn's own


def run(values: dict[str, Any]) -> None:
    """Serve until a signal; `values` take precedence over the environment. Raises SettingsError."""
    settings = load_settings(**values)
    configure_logging(settings.log_level)
    if settings.redis_url is not None:
        asyncio.run(check_access(settings.redis_url.get_secret_value()))
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        limit_concurrency=settings.max_connections,
        timeout_graceful_shutdown=int(settings.grace_s) + 5,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = _Server(config, app.state.parts)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if not server.started:
        sys.exit(STARTUP_FAILED)


class _Server(uvicorn.Server):
    """Stops the engine while uvicorn waits for open requests, not after: what exceeds the grace time is answered 503.

    uvicorn tells the application of the end only when no request is left, and cancels late ones with a bare 500.
    """

    def __init__(self, config: uvicorn.Config, state: State) -> None:
        super().__init__(config)
        self._state = state

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let running work end within the grace time, then end the application."""
        stopping = asyncio.create_task(self._state.service.engine.stop(self._state.settings.grace_s))
        await super().shutdown(sockets)
        await stopping
