"""`cdc keys`: make, list and revoke API keys."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

from service.access.keys import SCOPES, KeyStore, new_key
from service.access.stores import store_of
from service.jobs.connection import connect

T = TypeVar("T")
keys = typer.Typer(help="API keys. A service asks for them when CDC_KEYS says where they are.", no_args_is_help=True)
Place = Annotated[str, typer.Option("--keys", envvar="CDC_KEYS", help="A file, or `redis` (needs CDC_REDIS_URL).")]
RedisUrl = Annotated[str | None, typer.Option(envvar="CDC_REDIS_URL", help="Redis that holds the keys.")]
DEFAULT_PLACE = "~/.config/cdc/keys.json"


@keys.command()
def add(
    name: Annotated[str, typer.Argument(help="Whose it is, or what for.")],
    scope: Annotated[str, typer.Option(help="encode, decode, or both with a comma.")] = ",".join(SCOPES),
    rate: Annotated[str, typer.Option(help="Requests in a time, as 10/s or 1000/day; no limit if unset.")] = "",
    concurrency: Annotated[int, typer.Option(min=0, help="Requests at the same time; 0: no limit.")] = 0,
    place: Place = DEFAULT_PLACE,
    redis_url: RedisUrl = None,
) -> None:
    """Make a key. It is printed once, on standard output, and stored as a hash alone."""
    scopes = tuple(part.strip() for part in scope.split(",") if part.strip())
    try:
        key, token = new_key(name, scopes, rate, concurrency)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    _run(place, redis_url, lambda store: store.add(key))
    typer.echo(f"key {key.id} for {key.name}: {', '.join(key.scopes)} {key.rate}".rstrip(), err=True)
    typer.echo(token)


@keys.command("list")
def list_(place: Place = DEFAULT_PLACE, redis_url: RedisUrl = None) -> None:
    """List the keys, without their secrets."""
    for key in _run(place, redis_url, lambda store: store.all()):
        made = datetime.datetime.fromtimestamp(key.created_at, datetime.UTC).strftime("%Y-%m-%d")
        limits = f"{key.rate or 'any rate'}, {key.concurrency or 'any number'} at a time"
        typer.echo(f"{key.id}  {made}  {','.join(key.scopes):<13}  {limits}  {key.name}")


@keys.command()
def revoke(
    id: Annotated[str, typer.Argument(help="Id of the key, as `cdc keys list` shows it.")],
    place: Place = DEFAULT_PLACE,
    redis_url: RedisUrl = None,
) -> None:
    """Make a key count no more, at once; with Redis within two seconds."""
    if not _run(place, redis_url, lambda store: store.remove(id)):
        typer.echo(f"cdc: there is no key {id}", err=True)
        raise typer.Exit(1)


def _run(place: str, redis_url: str | None, act: Callable[[KeyStore], Awaitable[T]]) -> T:
    async def main() -> T:
        if redis_url is None:
            return await act(store_of(place, None))
        async with connect(redis_url) as redis:
            return await act(store_of(place, redis))

    return asyncio.run(main())
