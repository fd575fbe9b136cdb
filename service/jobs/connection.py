"""Connections to Redis."""

from __future__ import annotations

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

CONNECT_S = 2.0
MAX_CONNECTIONS = 64  # of one client; further commands wait for one of them
POOL_WAIT_S = 20.0
RETRIES = 2  # a restart of Redis cuts every idle connection, and the next command on each of them


def connect(url: str) -> Redis:
    """Return a client of `url`; it connects when it is first used.

    No socket timeout: with one, redis-py waits by `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that
    comes as a command has just been written, and a cancelled request would go on. `store.reachable` bounds the time.
    Commands are sent again on a new connection when theirs is cut, so whatever is sent must bear it: see `scripts`.
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
