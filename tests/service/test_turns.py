"""Many requests at once leave the event loop to others, and its lag is told in full."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest
from starlette.types import Receive, Scope, Send

from service.api.turns import LAG_EVERY_S, TakeTurns, measure_lag
from tests.polling import eventually
from tests.service.conftest import MakeClient

pytestmark = pytest.mark.anyio


async def test_a_health_check_passes_many_requests_that_start() -> None:
    served: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        time.sleep(0.002)  # noqa: ASYNC251 - what a start costs
        served.append(scope["method"])

    layer = TakeTurns(app)

    async def call(method: str) -> None:
        await layer({"type": "http", "method": method}, None, None)  # type: ignore[arg-type]

    calls = [asyncio.create_task(call("POST")) for _ in range(100)]
    await asyncio.sleep(0)
    await asyncio.gather(call("GET"), *calls)
    assert served.index("GET") < 5
    assert len(served) == 101


async def test_a_standstill_counts_for_all_who_would_have_noticed() -> None:
    found: list[float] = []
    task = asyncio.create_task(measure_lag(found.append))
    await eventually(lambda: found)
    before = len(found)
    time.sleep(10 * LAG_EVERY_S)  # noqa: ASYNC251 - what is measured
    await eventually(lambda: len(found) - before >= 9)
    assert max(found) > 8 * LAG_EVERY_S
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_the_lag_is_a_metric(make_client: MakeClient) -> None:
    client = await make_client()

    async def lags() -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        return float(next(v for v in lines if v.startswith("cdc_event_loop_lag_seconds_count")).split()[1])

    assert await eventually(lags) >= 1
