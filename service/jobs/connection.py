"""Connections to Redis."""

from __future__ import annotations

from redis.asyncio import Redis

CONNECT_S = 2.0


def connect(url: str) -> Redis:
    """Return a client of `url`; it connects when it is first used.

    No socket timeout: with one, redis-py waits by `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that
    comes as a command has just been written, and a cancelled request would go on. `store.reachable` bounds the time.
    """
    return Redis.from_url(url, socket_timeout=None, socket_connect_timeout=CONNECT_S, socket_keepalive=True)
