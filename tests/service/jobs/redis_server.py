"""A Redis of the tests' own: real, on a free port, with an append-only file, that can be stopped and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from urllib.parse import quote

import redis

from tests.polling import wait_for


class RedisServer:
    """`redis-server` on 127.0.0.1. Data survive a restart: AOF with `appendfsync always`."""

    def __init__(self, folder: Path, *options: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.password: str | None = None

    @property
    def url(self) -> str:
        access = f":{quote(self.password, safe='')}@" if self.password else ""
        return f"redis://{access}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always", *self._options]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=self.port, password=self.password)

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.exceptions.RedisError:  # refused, or still loading
                return False

        wait_for(answers)
        client.close()

    def pause(self) -> None:
        """Let it hang: connections stay open and nothing is answered."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def stop(self, *, kill: bool = False) -> None:
        if self._process is not None:
            self._process.kill() if kill else self._process.terminate()
            self._process.wait()
            self._process = None


def given_url() -> str | None:
    """A Redis that is there already, for machines without the binary; its data are the tests'."""
    return os.environ.get("REDIS_URL")
