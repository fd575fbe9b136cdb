"""The topology of deploy/compose.yaml without containers: a Redis, workers, API processes, a proxy before them.

    python deploy/cluster.py [--port 8080] [--workers 2] [--apis 2] [--folder FOLDER]

Prints one line of JSON with all addresses and process ids when everything is ready, and again after each change. SIGHUP
restarts every worker and every API process, one after the other, without a break in the service; one that dies is
started again; SIGTERM or Ctrl-C ends everything. Needs a redis-server. Settings are the service's own CDC_ variables.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
CHECK_S = 0.2
START_S = 120.0
CHUNK = 1 << 16


@dataclass
class Member:
    """A process of the cluster. `port` serves HTTP (an API) or metrics (a worker); `open`: the proxy may use it."""

    name: str
    command: list[str]
    port: int
    env: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    open: bool = False
    restarting: bool = False


def free_port() -> int:
    """A TCP port nobody listens on at present."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


class Proxy:
    """Hands each connection to the next open API, and to another where that one does not answer."""

    def __init__(self, members: list[Member]) -> None:
        self._members = members
        self._turns: Iterator[int] = itertools.count()

    async def serve(self, port: int) -> asyncio.Server:
        """Listen on 127.0.0.1."""
        return await asyncio.start_server(self._handle, "127.0.0.1", port)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            upstream = await self._connect()
            if upstream is None:
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n")
                writer.write(b"Connection: close\r\n\r\n")
                return
            with contextlib.closing(upstream[1]):
                ends = [
                    asyncio.create_task(_pipe(reader, upstream[1])),
                    asyncio.create_task(_pipe(upstream[0], writer)),
                ]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                for end in ends:
                    end.cancel()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in range(2 * len(self._members)):
            candidates = [member for member in self._members if member.open]
            if not candidates:
                return None
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", candidates[next(self._turns) % len(candidates)].port)
        return None


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(CHUNK):
            target.write(data)
            await target.drain()


class Cluster:
    """Starts, watches and restarts the members."""

    def __init__(self, folder: Path, port: int, apis: int, workers: int) -> None:
        redis_port = free_port()
        common = os.environ | {"CDC_REDIS_URL": f"redis://127.0.0.1:{redis_port}/0", "PYTHONPATH": str(ROOT)}
        cdc = [sys.executable, "-m", "cdc_client"]
        redis = ["redis-server", "--bind", "127.0.0.1", "--port", str(redis_port), "--dir", str(folder), "--save", ""]
        redis += ["--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction"]
        self.port, self.folder = port, folder
        self.redis = Member("redis", redis, redis_port)
        self.apis = [self._api(f"api-{n}", cdc, common) for n in range(apis)]
        self.workers = [self._worker(f"worker-{n}", cdc, common) for n in range(workers)]
        self.stopping = asyncio.Event()
        self.restarts = 0

    @staticmethod
    def _api(name: str, cdc: list[str], env: dict[str, str]) -> Member:
        port = free_port()
        return Member(name, [*cdc, "serve", "--host", "127.0.0.1", "--port", str(port)], port, env)

    @staticmethod
    def _worker(name: str, cdc: list[str], env: dict[str, str]) -> Member:
        port = free_port()
        return Member(name, [*cdc, "worker"], port, env | {"CDC_METRICS_PORT": str(port)})

    async def run(self) -> None:
        """Run until `stopping`."""
        async with httpx.AsyncClient(timeout=2) as self._http:
            await self._start(self.redis)
            await asyncio.gather(*(self._start(member) for member in [*self.workers, *self.apis]))
            server = await Proxy(self.apis).serve(self.port)
            self.say()
            watch = asyncio.create_task(self._watch())
            await self.stopping.wait()
            watch.cancel()
            server.close()
            await asyncio.gather(*(self._stop(member) for member in [*self.apis, *self.workers]))
            await self._stop(self.redis)

    async def restart_all(self) -> None:
        """One after the other: out of the proxy, SIGTERM, new process, ready, back."""
        for member in [*self.workers, *self.apis]:
            member.restarting = True
            member.open = False
            await self._stop(member)
            await self._start(member)
            member.restarting = False
        self.restarts += 1
        self.say()

    def say(self) -> None:
        """Print where everything is."""
        members = [self.redis, *self.apis, *self.workers]
        state = {m.name: {"port": m.port, "pid": m.process.pid if m.process else None} for m in members}
        url = f"http://127.0.0.1:{self.port}"
        print(json.dumps({"url": url, "restarts": self.restarts, "members": state}), flush=True)

    async def _start(self, member: Member) -> None:
        with (self.folder / f"{member.name}.log").open("ab") as log:
            member.process = await asyncio.create_subprocess_exec(
                *member.command, env=member.env or None, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(START_S):
            while not await self._ready(member):
                if member.process.returncode is not None:
                    raise RuntimeError(f"{member.name} ended; see {self.folder / member.name}.log")
                await asyncio.sleep(CHECK_S)
        member.open = True

    async def _ready(self, member: Member) -> bool:
        try:
            if member is self.redis:
                _, writer = await asyncio.open_connection("127.0.0.1", member.port)
                writer.close()
                return True
            path = "readyz" if member in self.apis else "metrics"
            answer = await self._http.get(f"http://127.0.0.1:{member.port}/{path}")
            return answer.status_code == 200
        except (OSError, httpx.HTTPError):
            return False

    async def _stop(self, member: Member) -> None:
        process = member.process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(60):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _watch(self) -> None:
        """Take APIs that are not ready out of the proxy, and start again what has died."""
        while True:
            for member in [self.redis, *self.workers, *self.apis]:
                if member.restarting or member.process is None:
                    continue
                if member.process.returncode is not None:
                    member.open = False
                    await self._start(member)
                    self.say()
                elif member in self.apis:
                    member.open = await self._ready(member)
            await asyncio.sleep(CHECK_S)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--apis", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="For logs and Redis's data; a new one if unset.")
    options = parser.parse_args()
    if shutil.which("redis-server") is None:
        sys.exit("a redis-server is needed (Debian: apt install redis-server)")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="cdc-cluster-"))
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Cluster(folder, options.port, options.apis, options.workers)
    loop, tasks = asyncio.get_running_loop(), set()

    def restart() -> None:
        task = asyncio.create_task(cluster.restart_all())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, restart)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, cluster.stopping.set)
    print(f"logs in {folder}", file=sys.stderr)
    await cluster.run()


if __name__ == "__main__":
    asyncio.run(main())
