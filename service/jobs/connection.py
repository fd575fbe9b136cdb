"""Connections to Redis."""

from __future__ import annotations

import asyncio
import logging

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from service.settings import SettingsError

log = logging.getLogger(__name__)
CONNECT_S = 2.0
ACCESS_S = 5.0
MAX_CONNECTIONS = 64  # of one client; further commands wait for one of them
POOL_WAIT_S = 20.0
RETRIES = 2  # a restart of Redis cuts every idle connection, and the next command on each of them


async def check_access(url: str) -> None:
    """Ask Redis whether it takes us. One that cannot be reached now may be later, and passes.

    Raises:
        SettingsError: the address makes no sense, or user name or password are wrong; the message names neither.
    """
    try:
        redis = connect(url)
    except ValueError as error:
        raise SettingsError("CDC_REDIS_URL: is not an address of a Redis, as redis://:PASSWORD@HOST:6379/0") from error
    try:
        async with redis, asyncio.timeout(ACCESS_S):
            await redis.ping()
    except (AuthenticationError, NoPermissionError) as error:
        raise SettingsError("CDC_REDIS_URL: Redis refuses this user name or password") from error
    except (RedisError, OSError, TimeoutError) as error:
        log.warning("Redis cannot be reached now, going on without", extra={"error": type(error).__name__})


def connect(url: str) -> Redis:
    """Return a client of `url`; it connects when it is first used.

    No socket timeout: with one, redis-py waits by `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that
    comes as a command has just been written, and a cancelled request would go on. `redis.reachable` bounds the time.
    Commands are sent again on a new connection when theirs is cut, so whatever is sent must bear it: see `commit.lua`.
    """
    retry = Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), RETRIES)
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        retry=retry,
        socket_timeout=None,
        socket_connect_timeout=CONNECT_S,
        socket_keepalive=True,
    )
    return Redis.from_pool(pool)
