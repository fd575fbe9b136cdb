"""The gate: from a bearer token to a caller, within the limits of its key."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limits.aio.storage import MemoryStorage, RedisStorage, Storage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.access.keys import ApiKey, KeyStore, Scope, split_token
from service.errors import KeysUnavailable, NotAllowed, NotAuthenticated, RateLimited

log = logging.getLogger("service.audit")
ANONYMOUS = "anonymous"
SLOT_S = 3700.0  # a slot whose holder died is free again after this, the longest deadline and a little


@dataclass(frozen=True)
class Caller:
    """Who a request comes from: the owner of its jobs, and the id of its key for the log, if it has one."""

    owner: str
    key: str | None = None


class Slots:
    """Requests of each key at the same time, in this process."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()

    async def take(self, id: str, most: int) -> str | None:
        """Take a slot; None when all are taken."""
        if self._held[id] >= most:
            return None
        self._held[id] += 1
        return id

    async def give_back(self, id: str, slot: str) -> None:
        """Free a slot."""
        self._held[id] -= 1
        if not self._held[id]:
            del self._held[id]


class RedisSlots:
    """The same over all processes that share a Redis: a sorted set of slots by the time they end by themselves."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._take = redis.register_script(Path(__file__).with_name("take_slot.lua").read_text())

    async def take(self, id: str, most: int) -> str | None:
        """See `Slots.take`."""
        slot, now = secrets.token_hex(8), time.time()
        taken = await self._take([f"cdc:slots:{id}"], [now, most, now + SLOT_S, slot, int(SLOT_S)])
        return slot if taken else None

    async def give_back(self, id: str, slot: str) -> None:
        """See `Slots.give_back`."""
        await self._redis.zrem(f"cdc:slots:{id}", slot)


class Gate:
    """Admits callers. Without a store of keys everybody is admitted, and a token only keeps its own jobs apart."""

    def __init__(self, keys: KeyStore | None = None, redis: Redis | None = None) -> None:
        """Limits are counted in this process, or in Redis where it is given; `close` closes that."""
        self._keys = keys
        self._redis = redis
        self._slots: Slots | RedisSlots = Slots() if redis is None else RedisSlots(redis)
        storage: Storage = MemoryStorage()
        if redis is not None:
            pool: Any = redis.connection_pool  # the address is not looked at where there is a pool
            storage = RedisStorage(
                "async+redis://", wrap_exceptions=True, implementation="redispy", connection_pool=pool
            )
        self._rates = SlidingWindowCounterRateLimiter(storage)

    @property
    def closed(self) -> bool:
        """Whether a key is needed."""
        return self._keys is not None

    async def close(self) -> None:
        """Close the connections."""
        if self._redis is not None:
            await self._redis.aclose(close_connection_pool=True)

    @asynccontextmanager
    async def admit(self, token: str | None, *scopes: Scope) -> AsyncIterator[Caller]:
        """Admit a request for as long as the block lasts.

        Args:
            token: the bearer token, if there was one.
            scopes: what the key must allow; none: any key will do.

        Raises:
            NotAuthenticated, NotAllowed: no key, or not one for this.
            RateLimited: its rate or its requests at the same time are used up.
            KeysUnavailable: keys or counts cannot be reached.
        """
        if self._keys is None:
            yield Caller(ANONYMOUS if token is None else f"token:{hashlib.sha256(token.encode()).hexdigest()[:32]}")
            return
        key = await self._recognise(token, self._keys)
        for scope in scopes:
            if scope not in key.scopes:
                log.info("refused", extra={"key": key.id, "reason": f"lacks the scope {scope}"})
                raise NotAllowed(f"this API key does not allow to {scope}")
        try:
            await self._count(key)
            slot = await self._slots.take(key.id, key.concurrency) if key.concurrency else None
        except (StorageError, RedisError, OSError, TimeoutError) as error:
            raise KeysUnavailable(f"the limits of keys cannot be counted now ({type(error).__name__})") from error
        if key.concurrency and slot is None:
            raise RateLimited(f"this API key allows {key.concurrency} requests at the same time", 1.0)
        try:
            yield Caller(f"key:{key.id}", key.id)
        finally:
            if slot is not None:
                await self._give_back(key.id, slot)

    async def _recognise(self, token: str | None, keys: KeyStore) -> ApiKey:
        if token is None:
            raise NotAuthenticated("an API key is needed: send Authorization: Bearer KEY")
        parts = split_token(token)
        key = await keys.get(parts[0]) if parts else None
        if parts is None or key is None or not key.matches(parts[1]):
            log.info("refused", extra={"key": parts[0] if parts else None, "reason": "not a key"})
            raise NotAuthenticated("this API key is not valid")
        return key

    async def _count(self, key: ApiKey) -> None:
        limit = key.limit
        if limit is not None and not await self._rates.hit(limit, key.id):
            window = await self._rates.get_window_stats(limit, key.id)
            wait = max(1.0, window.reset_time - time.time())
            raise RateLimited(f"this API key allows {key.rate.replace('/', ' requests a ')}", wait)

    async def _give_back(self, id: str, slot: str) -> None:
        try:
            await asyncio.shield(self._slots.give_back(id, slot))
        except (RedisError, OSError) as error:
            log.warning("a slot could not be given back", extra={"key": id, "error": type(error).__name__})
