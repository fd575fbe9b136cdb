"""A process that sends the webhooks of a Redis, and may be killed: `python -m tests.service.outside.sender URL`."""

from __future__ import annotations

import asyncio
import sys

from service.api.responses import webhook_body
from service.jobs import hooks
from service.jobs.blobs import RedisBlobs
from service.jobs.connection import connect
from service.jobs.limits import JobLimits
from service.jobs.queue import Enqueuer
from service.jobs.redis import RedisStore
from service.jobs.service import Jobs
from service.outside.http import OutsideClient, Rules
from service.outside.webhooks import Webhooks

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


async def main(url: str) -> None:
    hooks.LEASE_S, hooks.POLL_S, hooks.FIRST_WAIT_S = 1.0, 0.02, 0.1
    async with connect(url) as redis:
        store = RedisStore(redis, Enqueuer(url), RedisBlobs(redis))
        jobs = Jobs(store, JobLimits(), seconds_of=lambda _: 1.0, generation=lambda: "")
        webhooks = Webhooks(OutsideClient(Rules(("*",), private=True)), [SECRET])
        await hooks.Hooks(store, webhooks, jobs.get, webhook_body("")).run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
