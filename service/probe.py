"""`python -m service.probe`: health checks for containers, without curl. Quick: the standard library alone.

`python -m service.probe api [PATH]` asks the service at CDC_PORT for PATH (/livez); `python -m service.probe worker`
reads the metrics of a worker at CDC_METRICS_PORT: its event loop must have turned within STALE_S, and with `--ready`
its engine must take work. Exit codes: 0 well, 1 not, 2 wrong usage; the reason is on standard error.
"""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

TIMEOUT_S = 4.0
STALE_S = 30.0  # the loop turns every second, less often only while Redis does not answer
HEARTBEAT = "cdc_worker_heartbeat_timestamp_seconds"
READY = "cdc_ready"


class Unwell(Exception):
    """What was probed is not well; the message says why."""


def probe_api(port: int, path: str = "/livez") -> None:
    """Ask a path of the service on this machine. Raises Unwell for anything but a 200."""
    _get(port, path)


def probe_worker(port: int, ready: bool = False, now: float | None = None) -> None:
    """Read the metrics of a worker on this machine. Raises Unwell for a loop that stands still, or no engine."""
    found = _values(_get(port, "/metrics"))
    age = (time.time() if now is None else now) - found.get(HEARTBEAT, 0.0)
    if age > STALE_S:
        raise Unwell(f"the event loop has not turned for {age:.0f} seconds")
    if ready and found.get(READY) != 1.0:
        raise Unwell("the engine takes no work yet")


def _get(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise Unwell(f"no answer from port {port} ({type(error).__name__})") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Unwell(f"{path} answered {answer.status}")
    return body.decode("utf-8", "replace")


def _values(text: str) -> dict[str, float]:
    """The metrics without labels of a page in Prometheus's text format, by name."""
    pairs = (line.split(" ", 1) for line in text.splitlines() if line and line[0] != "#" and "{" not in line)
    return {pair[0]: float(pair[1].split(" ")[0]) for pair in pairs if len(pair) == 2}


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Probe what the arguments name; return the exit code."""
    check: Callable[[], None]
    match list(arguments):
        case ["api", *rest] if len(rest) < 2 and all(path.startswith("/") for path in rest):
            check = partial(probe_api, int(environment.get("CDC_PORT", "8000")), *rest)
        case ["worker", *rest] if rest in ([], ["--ready"]) and environment.get("CDC_METRICS_PORT"):
            check = partial(probe_worker, int(environment["CDC_METRICS_PORT"]), bool(rest))
        case _:
            usage = "usage: python -m service.probe api [PATH] | worker [--ready] (needs CDC_METRICS_PORT)"
            print(usage, file=sys.stderr)
            return 2
    try:
        check()
    except Unwell as error:
        print(f"unwell: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
