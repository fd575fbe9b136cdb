"""The walk of a request: the functions that its upload passes, from the socket to the first step, as documented.

A function is passed by an upload that it is given, or that it gives back: as bytes, or in a record that holds it.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest

from model import container
from model.container import Container
from model.types import Pixels
from service.api.app import create_app
from service.api.body import Upload
from service.engine import worker_process
from service.engine.messages import Submit
from service.engine.pool import _Pending
from service.engine.port import DecodeRequest, EncodeRequest
from service.engine.request import Request
from service.settings import Settings
from service.work import Work
from tests.service.conftest import client_of, image_file, photograph
from tests.service.test_pool import wait_ready

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
MOST_FUNCTIONS, MOST_FILES = 25, 12
LAST = "TorchDevice.run"  # the first pass
BACK = "PoolEngine._deliver"  # the message that it has started, which may come before or after
# They hold an upload, or what came of it.
RECORDS = (Upload, Work, Container, EncodeRequest, DecodeRequest, _Pending, Submit, Request)
pytestmark = pytest.mark.anyio


class ThreadProcess:
    """Stands for a worker process: a thread of this one, so that one trace sees both sides of the pipe."""

    pid, exitcode = None, None

    def __init__(self, target: Any, args: tuple[Any, Any], **_: Any) -> None:
        pipe, self._options = args
        self._pipe = Connection(os.dup(pipe.fileno()))  # the other side closes its own
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        worker_process.work(self._pipe, self._options)
        self._pipe.close()

    def start(self) -> None:
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        self._thread.join(timeout)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def kill(self) -> None: ...


class Threads:
    """A multiprocessing context whose processes are threads."""

    Process = ThreadProcess
    Pipe = staticmethod(multiprocessing.Pipe)


class Trace:
    """A profile function that writes down the service's functions that an upload passes, until the first step.

    Constructors keep what they are given and pass nothing; nor does `self` count, which is there before.
    """

    def __init__(self, upload: bytes, pixels: Pixels | None) -> None:
        self._upload, self._pixels = upload, pixels
        self._seen: set[CodeType] = set()
        self.walk: list[str] = []
        self.parsed = 0
        self.on = True

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if not self.on or event not in ("call", "return"):
            return
        self.parsed += event == "call" and code is container.parse.__code__
        name = code.co_qualname
        ours = code.co_filename.startswith(f"{ROOT}/service/") and not name.endswith(("__init__", ">"))
        if not ours or code in self._seen or name == BACK:
            return
        if event == "call":
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            passes = any(self._holds(frame.f_locals.get(name)) for name in names if name != "self")
        else:
            passes = self._holds(argument)
        if passes or name == LAST:
            self._seen.add(code)
            self.walk.append(f"{Path(code.co_filename).relative_to(ROOT)} {name.replace('.<locals>', '')}")
            self.on = name != LAST

    def _holds(self, value: Any) -> bool:
        if isinstance(value, bytes):
            return value == self._upload
        if isinstance(value, np.ndarray):
            return self._pixels is not None and value.shape == self._pixels.shape
        if isinstance(value, dict):  # a message of ASGI
            return value.get("body") == self._upload
        if isinstance(value, tuple | list):
            return any(self._holds(item) for item in value)
        return isinstance(value, RECORDS)


async def walk_of(path: str, upload: bytes, pixels: Pixels | None, folder: Path) -> Trace:
    """Send an upload to a service whose worker is a thread, and trace it."""
    found = Trace(upload, pixels)
    found.on = False
    threading.setprofile(found)
    try:
        app = create_app(Settings(cache_dir=folder, threads=1, tick_s=0.05))
        async with app.router.lifespan_context(app), client_of(app) as client:
            await wait_ready(app.state.parts.door.engine)
            sys.setprofile(found)
            found.on = True
            answer = await client.post(path, content=upload)
            sys.setprofile(None)
            assert answer.status_code == 200, answer.text
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return found


def documented(title: str) -> tuple[list[str], list[str]]:
    """The walk under a heading, and what only looks on: lines `1. file function` and `- file function`."""
    section = DOCUMENT.read_text().split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    passed, beside = (re.findall(rf"^ *{mark} `([^`]+)`", section, re.MULTILINE) for mark in (r"\d+\.", "-"))
    return passed, beside


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("path", ["/encode", "/decode"])
async def test_the_document_has_the_walk(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process.multiprocessing, "get_context", lambda _: Threads)
    image = photograph(64, 64)
    upload, pixels = image_file(image), np.asarray(image)
    if path == "/decode":
        from model.weights.registry import Registry

        codec = Registry(None).get()
        upload, pixels = codec.pack(codec.analyse(pixels), 128), None
    found = await walk_of(path, upload, pixels, tmp_path)
    passed, beside = documented(f"The walk of {path}")
    assert found.walk == [name for name in found.walk if name in {*passed, *beside}], "\n".join(found.walk)
    assert set(found.walk) == {*passed, *beside}
    assert [name for name in found.walk if name in passed] == passed
    assert len({name.split()[0] for name in passed}) <= MOST_FILES
    assert len(passed) <= MOST_FUNCTIONS + (path == "/encode")  # whose image is read
    assert found.parsed == (path == "/decode")  # once, header and checksum
