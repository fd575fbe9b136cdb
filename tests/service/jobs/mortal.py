"""An API or a worker with an engine that is none, to be killed: `python -m tests.service.jobs.mortal api|worker`.

All else is as `cdc serve` and `cdc worker` have it. Settings are CDC_ variables; leases are short, so that what a dead
process had is soon another's.
"""

from __future__ import annotations

import asyncio
import sys

from service.api.server import run
from service.jobs import batches, hooks
from service.logs import configure_logging
from service.settings import load_settings
from service.worker import work
from tests.service.fake_engine import FakeEngine

STEP_S = 0.02


def main(role: str) -> None:
    hooks.LEASE_S, hooks.POLL_S, hooks.FIRST_WAIT_S, batches.YIELD_S = 1.5, 0.05, 0.1, 0.05
    if role == "api":
        run({})
        return
    engine = FakeEngine()
    engine.delay = STEP_S
    configure_logging("warning")
    asyncio.run(work(load_settings(), engine))


if __name__ == "__main__":
    main(sys.argv[1])
