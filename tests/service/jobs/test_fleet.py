"""Reports of workers of other versions: what is new in them is passed over, what they lack has its default."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from service.engine.port import EngineStatus, ModelInfo
from service.jobs.connection import connect
from service.jobs.fleet import Fleet, WorkerReport
from service.jobs.records import BatchRecord
from service.jobs.redis import _KINDS, PREFIX

pytestmark = pytest.mark.anyio
MODEL = ModelInfo("lite", "00", 17, 200, 1000, default=True, reductions=(1, 2, 4))
REPORT = WorkerReport((MODEL,), EngineStatus(True, False, 1, 2, 0), 1e-6)


@pytest.mark.redis
async def test_reports_are_read_across_versions(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        fleet = Fleet(redis)
        await fleet.report("same", REPORT)
        assert await fleet.workers() == [REPORT]
        newer: dict[str, Any] = json.loads(await redis.get(f"{PREFIX}worker:same"))
        newer["models"][0]["fashion"] = newer["status"]["mood"] = newer["more"] = [1]
        older = json.loads(await redis.get(f"{PREFIX}worker:same"))
        del older["models"][0]["reductions"], older["status"]["backlog_seconds"]
        for name, report in (("same", newer), ("older", older), ("broken", {"models": 1}), ("none", "")):
            await redis.sadd(f"{PREFIX}workers", name)
            await redis.set(f"{PREFIX}worker:{name}", json.dumps(report))
        found = await fleet.workers()
        assert len(found) == 2
        assert REPORT in found
        assert {report.models[0].reductions for report in found} == {(1,), (1, 2, 4)}


def test_records_of_a_newer_version_are_read() -> None:
    raw = TypeAdapter(BatchRecord).dump_python(BatchRecord("ann", 3, 1.0)) | {"mood": [1]}
    assert _KINDS["batch"].validate_python(raw) == BatchRecord("ann", 3, 1.0)
