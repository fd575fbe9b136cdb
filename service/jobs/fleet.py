"""The workers of a Redis queue, as they report themselves every second."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis

from service.engine.job import EngineStatus, ModelInfo
from service.jobs.store import PREFIX, reachable

REPORT_S = 1.0
SILENT_S = 4.0  # without a report a worker counts as gone


@dataclass(frozen=True)
class WorkerReport:
    """What a worker says of itself: its models, its engine's state, and seconds per pixel and denoising step."""

    models: tuple[ModelInfo, ...]
    status: EngineStatus
    seconds_per_cost: float


class Fleet:
    """Writes and reads reports."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def report(self, worker: str, report: WorkerReport) -> None:
        """Say how a worker is; forgotten after SILENT_S. Raises QueueUnavailable."""
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.sadd(f"{PREFIX}workers", worker)
            pipe.set(f"{PREFIX}worker:{worker}", json.dumps(asdict(report)), px=round(1000 * SILENT_S))
            await pipe.execute()

    async def leave(self, worker: str) -> None:
        """A worker goes. Raises QueueUnavailable."""
        async with reachable(), self._redis.pipeline(transaction=False) as pipe:
            pipe.srem(f"{PREFIX}workers", worker)
            pipe.delete(f"{PREFIX}worker:{worker}")
            await pipe.execute()

    async def workers(self) -> list[WorkerReport]:
        """Reports of all workers that live. Raises QueueUnavailable."""
        async with reachable():
            names = sorted(_string(name) for name in await self._redis.smembers(f"{PREFIX}workers"))
            if not names:
                return []
            raw = await self._redis.mget([f"{PREFIX}worker:{name}" for name in names])
            gone = [name for name, text in zip(names, raw, strict=True) if text is None]
            if gone:
                await self._redis.srem(f"{PREFIX}workers", *gone)
        return [_read(json.loads(text)) for text in raw if text is not None]


def _read(values: dict[str, Any]) -> WorkerReport:
    models = tuple(ModelInfo(**info) for info in values["models"])
    return WorkerReport(models, EngineStatus(**values["status"]), values["seconds_per_cost"])


def _string(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
