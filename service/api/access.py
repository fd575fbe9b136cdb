"""Who a request comes from: the dependencies of routes that need a key, where keys are needed (RFC 6750)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from service.access.gate import Caller
from service.access.keys import Scope
from service.api.state import StateOf

BEARER = "bearer "
_scheme = HTTPBearer(auto_error=False, scheme_name="key", description="An API key, where the service asks for one.")
_Documented = Annotated[object, Depends(_scheme)]


def token_of(request: Request) -> str | None:
    """Return the bearer token of a request; a header of another scheme counts as none."""
    header = request.headers.get("authorization", "")
    if header[: len(BEARER)].lower() != BEARER:
        return None
    return header[len(BEARER) :].strip() or None


async def _admit(request: Request, state: StateOf, *scopes: Scope) -> AsyncIterator[Caller]:
    """Admit the caller until its answer is out."""
    async with state.gate.admit(token_of(request), *scopes) as caller:
        request.state.key = caller.key
        yield caller


async def _any(request: Request, state: StateOf, _: _Documented) -> AsyncIterator[Caller]:
    async for caller in _admit(request, state):
        yield caller


async def _encoder(request: Request, state: StateOf, _: _Documented) -> AsyncIterator[Caller]:
    async for caller in _admit(request, state, "encode"):
        yield caller


async def _decoder(request: Request, state: StateOf, _: _Documented) -> AsyncIterator[Caller]:
    async for caller in _admit(request, state, "decode"):
        yield caller


async def _batcher(request: Request, state: StateOf, _: _Documented) -> AsyncIterator[Caller]:
    async for caller in _admit(request, state, "encode", "decode"):
        yield caller


AnyCaller = Annotated[Caller, Depends(_any)]
Encoder = Annotated[Caller, Depends(_encoder)]
Decoder = Annotated[Caller, Depends(_decoder)]
Batcher = Annotated[Caller, Depends(_batcher)]
