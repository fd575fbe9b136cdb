"""The real application around the fake engine, under uvicorn on a Unix socket, for both clients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from cdc_client import AsyncClient, Client
from service.api.app import create_app
from service.local import LocalService
from service.settings import Settings
from tests.service.conftest import Clock
from tests.service.fake_engine import FakeEngine

QUICK = {"first_backoff_s": 0.01, "max_backoff_s": 0.02}


class Served:
    """An application that is served, and clients of it."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    def client(self, api_key: str | None = None, **options: Any) -> Client:
        return Client("http://cdc", api_key, transport=httpx.HTTPTransport(uds=self.socket), **{**QUICK, **options})

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient("http://cdc", transport=httpx.AsyncHTTPTransport(uds=self.socket), **{**QUICK, **options})


Serve = Callable[..., Served]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def clock() -> Clock:
    """By which jobs and results expire."""
    return Clock()


@pytest.fixture
def serve(engine: FakeEngine, clock: Clock) -> Iterator[Serve]:
    """A function that serves the application with the given settings."""
    with ExitStack() as stack:

        def start(**settings: Any) -> Served:
            service = LocalService(create_app(Settings(**settings), engine, clock))
            service.start()
            stack.callback(service.stop)
            return Served(service.socket)

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve()
