"""A service of the client's own: the real application under uvicorn, in a thread, on a Unix socket nobody else sees."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from service.client.errors import ConnectionFailed

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
