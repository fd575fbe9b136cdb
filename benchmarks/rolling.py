"""Rolling restarts of the whole topology under load, with clients that retry as documented.

    python -m benchmarks.rolling [--restarts 20] [--clients 4] [--json FILE]

Starts deploy/cluster.py (two API processes behind a proxy, two workers, a Redis), decodes without a break through the
Python client, and restarts every worker and every API process, one after the other, so many times. Exits with 1 on a
failed call or a wrong image.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks import record
from cdc_client import CdcError, Client
from tests.deploy.running_cluster import running_cluster
from tests.service.conftest import image_file, photograph


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--clients", type=int, default=4)
    options = record.parse(parser)
    failures: list[str] = []
    calls = 0
    slowest = 0.0
    done, lock = threading.Event(), threading.Lock()

    def load(number: int, file: bytes, cdc: Client, expected: dict[int, str]) -> None:
        nonlocal calls, slowest
        turn = 0
        while not done.is_set():
            seed = (number + turn) % len(expected)
            start = time.monotonic()
            try:
                digest = cdc.decode(file, steps=2, gamma=0.8, seed=seed, deterministic=True).digest
                problem = "" if digest == expected[seed] else f"another image for seed {seed}"
            except CdcError as error:
                problem = f"{type(error).__name__}: {error}"
            with lock:
                calls, slowest, turn = calls + 1, max(slowest, time.monotonic() - start), turn + 1
                if problem:
                    failures.append(problem)

    started = time.monotonic()
    # Results are kept a second only, so that work is done and not remembered.
    settings = {"threads": "1", "lease_s": "5", "job_result_ttl_s": "1", "job_gone_ttl_s": "1"}
    folder = Path(tempfile.mkdtemp(prefix="cdc-rolling-"))
    with running_cluster(folder, **settings) as cluster, Client(cluster.url, max_retries=8) as cdc:
        small = cdc.encode(image_file(photograph(64, 64))).data
        expected = {
            seed: cdc.decode(small, steps=2, gamma=0.8, seed=seed, deterministic=True).digest for seed in range(16)
        }
        arguments = (small, cdc, expected)
        threads = [threading.Thread(target=load, args=(n, *arguments)) for n in range(options.clients)]
        for thread in threads:
            thread.start()
        for _ in range(options.restarts):
            told = len(cluster.states)
            cluster.process.send_signal(signal.SIGHUP)
            cluster.wait_for(told + 1, 300)
        done.set()
        for thread in threads:
            thread.join()
        restarts = cluster.states[-1]["restarts"]
    figures = {
        "rolling_restarts": restarts,
        "processes_restarted": 4 * restarts,
        "calls": calls,
        "failed": len(failures),
        "slowest_s": round(slowest, 1),
        "seconds": round(time.monotonic() - started),
    }
    record.finish(options, figures)
    for failure in failures[:20]:
        print(failure, file=sys.stderr)
    sys.exit(1 if failures or restarts != options.restarts else 0)


if __name__ == "__main__":
    main()
