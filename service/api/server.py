"""Running the application under uvicorn."""

from __future__ import annotations

from typing import Any

import uvicorn

from service.api.app import create_app
from service.logs import configure_logging
from service.settings import load_settings


def run(values: dict[str, Any]) -> None:
    """Serve until a signal; `values` take precedence over the environment. Raises SettingsError."""
    settings = load_settings(**values)
    configure_logging(settings.log_level)
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(settings.grace_s) + 5,
        h11_max_incomplete_event_size=64 * 1024,
    )
