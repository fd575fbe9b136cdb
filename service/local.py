"""A service of the caller's own: the real application under uvicorn, in a thread, on a Unix socket nobody else sees.

>>> from service.local import local_client
>>> with local_client(threads=1) as cdc:
...     cdc.models()[0].name
'cdc-lite'
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from cdc_client import AsyncClient, Client, ConnectionFailed

START_S = 120.0


class LocalService:
    """Start it, send requests to `socket`, stop it. Needs the extras `service` and `model`."""

    def __init__(self, app: Any = None, **settings: Any) -> None:
        """`app`: an application to serve instead of a new one with `settings`. Raises SettingsError."""
        import uvicorn

        from service.api.app import create_app
        from service.settings import load_settings

        self._folder = tempfile.mkdtemp(prefix="cdc-")  # mode 0700
        self.socket = str(Path(self._folder) / "socket")
        app = app or create_app(load_settings(**settings))
        config = uvicorn.Config(app, uds=self.socket, log_config=None, access_log=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, name="cdc-local", daemon=True)

    def start(self) -> None:
        """Return when the models are loaded. Raises ConnectionFailed after two minutes."""
        import httpx

        self._thread.start()
        until = time.monotonic() + START_S
        with httpx.Client(transport=httpx.HTTPTransport(uds=self.socket)) as http:
            while time.monotonic() < until and self._thread.is_alive():
                if self._server.started and http.get("http://local/readyz").status_code == 200:
                    return
                time.sleep(0.02)
        self.stop()
        raise ConnectionFailed("the local service did not start")

    def stop(self) -> None:
        """End the service and its worker."""
        self._server.should_exit = True
        self._thread.join(60)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextmanager
def local_client(**settings: Any) -> Iterator[Client]:
    """A client with a service of its own, in this process and its worker; it ends with the block.

    Needs the extra `serve`. The service listens to nobody else (on a Unix socket in a private folder). `settings` are
    those of `cdc serve`, such as `threads=1`; the rest comes from the environment.

    Raises:
        SettingsError: a setting is out of range.
        ConnectionFailed: it did not start within two minutes.
    """
    import httpx

    service = LocalService(**settings)
    service.start()
    try:
        with Client("http://local", transport=httpx.HTTPTransport(uds=service.socket)) as client:
            yield client
    finally:
        service.stop()


@asynccontextmanager
async def local_async_client(**settings: Any) -> AsyncIterator[AsyncClient]:
    """`local_client` for asyncio."""
    import httpx

    service = await asyncio.to_thread(LocalService, **settings)
    await asyncio.to_thread(service.start)
    try:
        async with AsyncClient("http://local", transport=httpx.AsyncHTTPTransport(uds=service.socket)) as client:
            yield client
    finally:
        await asyncio.to_thread(service.stop)
