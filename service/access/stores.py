"""Keys in a file, or in Redis for services of several machines."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.access.keys import ApiKey, KeyStore
from service.errors import KeysUnavailable

HASH = "cdc:keys"
FRESH_S = 2.0  # how long a revoked key may still count, where asking costs a round trip


def store_of(place: str, redis: Redis | None) -> KeyStore:
    """Return the store a setting names: "redis", or the path of a file.

    Raises:
        KeysUnavailable: "redis" without one.
    """
    if place != "redis":
        return FileKeys(Path(place).expanduser())
    if redis is None:
        raise KeysUnavailable("keys in Redis need CDC_REDIS_URL")
    return RedisKeys(redis)


class FileKeys:
    """Implements `KeyStore` with a JSON file of mode 0600. Changes by others are seen at once."""

    def __init__(self, path: Path) -> None:
        """The file need not exist yet."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: dict[str, ApiKey] = {}

    async def get(self, id: str) -> ApiKey | None:
        """See `KeyStore.get`."""
        return (await asyncio.to_thread(self._read)).get(id)

    async def all(self) -> list[ApiKey]:
        """See `KeyStore.all`."""
        return sorted((await asyncio.to_thread(self._read)).values(), key=lambda key: key.created_at)

    async def add(self, key: ApiKey) -> None:
        """See `KeyStore.add`."""
        self._write({**self._read(), key.id: key})

    async def remove(self, id: str) -> bool:
        """See `KeyStore.remove`."""
        keys = dict(self._read())
        found = keys.pop(id, None) is not None
        if found:
            self._write(keys)
        return found

    def _read(self) -> dict[str, ApiKey]:
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                items = json.loads(self._path.read_text())["keys"]
                self._keys = {item["id"]: _key(item) for item in items}
                self._stamp = stamp
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeysUnavailable(f"the file of keys cannot be read ({type(error).__name__})") from error
        return self._keys

    def _write(self, keys: dict[str, ApiKey]) -> None:
        """Replace the file at once, so that no reader sees half of it."""
        text = json.dumps({"keys": [asdict(key) for key in keys.values()]}, indent=1)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=".keys-")  # mode 0600
            with os.fdopen(handle, "w") as file:
                file.write(text)
            Path(name).replace(self._path)
        except OSError as error:
            raise KeysUnavailable(f"the file of keys cannot be written ({error.strerror})") from error


class RedisKeys:
    """Implements `KeyStore` with a hash in Redis; what was read is believed for two seconds."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._clock = clock
        self._known: dict[str, tuple[float, ApiKey | None]] = {}

    async def get(self, id: str) -> ApiKey | None:
        """See `KeyStore.get`."""
        now = self._clock()
        read_at, key = self._known.get(id, (-FRESH_S, None))
        if now - read_at < FRESH_S:
            return key
        async with _reachable():
            raw = await self._redis.hget(HASH, id)
        if len(self._known) > 10_000:  # made-up ids must not fill the memory
            self._known.clear()
        key = None if raw is None else _key(json.loads(raw))
        self._known[id] = (now, key)
        return key

    async def all(self) -> list[ApiKey]:
        """See `KeyStore.all`."""
        async with _reachable():
            raw = await self._redis.hgetall(HASH)
        return sorted((_key(json.loads(item)) for item in raw.values()), key=lambda key: key.created_at)

    async def add(self, key: ApiKey) -> None:
        """See `KeyStore.add`."""
        async with _reachable():
            await self._redis.hset(HASH, key.id, json.dumps(asdict(key)))

    async def remove(self, id: str) -> bool:
        """See `KeyStore.remove`."""
        async with _reachable():
            return bool(await self._redis.hdel(HASH, id))


@asynccontextmanager
async def _reachable() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(5):
            yield
    except (RedisError, OSError, TimeoutError) as error:
        raise KeysUnavailable(f"the keys cannot be read now ({type(error).__name__})") from error


def _key(item: dict[str, object]) -> ApiKey:
    values = dict(item)
    return ApiKey(**{**values, "scopes": tuple(values["scopes"])})  # type: ignore[arg-type]
