"""The application around the fake engine, as the service's own tests have it."""

from tests.service.conftest import anyio_backend, clock, engine, make_client

__all__ = ["anyio_backend", "clock", "engine", "make_client"]
