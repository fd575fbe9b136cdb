"""The blocking client against the real application."""

from __future__ import annotations

import signal
import threading
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from cdc_client import (
    ApiError,
    Busy,
    CdcError,
    Client,
    ConnectionFailed,
    DamagedFile,
    Gone,
    InvalidParameter,
    JobCancelled,
    NotFound,
    Unavailable,
    UnknownCodec,
    WaitTimeout,
)
from service.errors import Busy as EngineBusy
from tests.client.conftest import QUICK, Serve, Served
from tests.polling import wait_for
from tests.service.conftest import Clock, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file

FILE = make_file(40, 30)
PHOTO = image_file(photograph())


def test_round_trip(served: Served, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(PHOTO)
    with served.client() as cdc:
        small = cdc.encode(tmp_path / "photo.png", quality=30)
        assert (small.media_type, small.quality, small.width, small.height) == ("image/x-cdc", 30, 32, 24)
        assert small.bpp == pytest.approx(8 * len(small.data) / (32 * 24), rel=1e-3)
        path = small.save(tmp_path / "photo.cdc")
        picture = cdc.decode(path, steps=3, gamma=0.5, seed=9, format="webp")
        assert (picture.media_type, picture.steps, picture.gamma, picture.seed) == ("image/webp", 3, 0.5, 9)
        assert len(picture.digest) == 64
        assert picture.seconds["denoise"] > 0
        assert picture.request_id
        assert cdc.inspect(path).sections[0].name == "HYPER"
        assert [model.name for model in cdc.models()] == ["lite", "other"]


def test_errors_have_classes(served: Served) -> None:
    with served.client() as cdc:
        with pytest.raises(InvalidParameter) as caught:
            cdc.encode(PHOTO, quality=500)
        assert caught.value.errors[0]["parameter"] == "quality"
        with pytest.raises(DamagedFile):
            cdc.decode(FILE[:-1])
        with pytest.raises(UnknownCodec):
            cdc.decode(make_file(8, 8, codec_id=bytes(8)))
        with pytest.raises(NotFound):
            cdc.job("none")


def test_no_service() -> None:
    with Client("http://127.0.0.1:9", max_retries=1, **QUICK) as cdc, pytest.raises(ConnectionFailed):
        cdc.models()


def test_a_busy_service_is_asked_again(served: Served, engine: FakeEngine) -> None:
    engine.error = EngineBusy("full", 1)
    threading.Timer(0.5, lambda: setattr(engine, "error", None)).start()
    with served.client() as cdc:
        assert cdc.decode(FILE).steps == 17
    engine.error = EngineBusy("full", 300)
    with served.client() as cdc, pytest.raises(Busy) as caught:
        cdc.decode(FILE)
    assert caught.value.retry_after == 300


def test_many_in_order_and_bounded(served: Served, engine: FakeEngine) -> None:
    engine.delay = 0.05
    taken: list[int] = []

    def files() -> list[bytes]:
        for n in range(9):
            taken.append(n)
            yield make_file(8 + n, 8)

    with served.client() as cdc:
        pictures = cdc.decode_many(files(), concurrency=3, steps=1)
        assert next(pictures).width == 8
        assert len(taken) <= 4
        assert [picture.width for picture in pictures] == list(range(9, 17))
        with pytest.raises(DamagedFile):
            list(cdc.decode_many([FILE, FILE[:-2], FILE]))
        with pytest.raises(ValueError, match="concurrency"):
            next(cdc.decode_many([], concurrency=0))


def test_jobs(served: Served, engine: FakeEngine) -> None:
    engine.step_delay = 0.01
    with served.client() as cdc:
        job = cdc.submit_decode(FILE, steps=5)
        events = list(job.events())
        assert [e.step for e in events if e.type == "progress"] == [1, 2, 3, 4, 5]
        assert [e.status.state for e in events if e.status] == ["queued", "running", "succeeded"]
        assert job.status.ended
        again = cdc.job(job.id)
        assert again.result().data == job.result().data
        encoded = cdc.submit_encode(PHOTO, quality=20).result(timeout=10)
        assert encoded.media_type == "image/x-cdc"


def test_large_work_that_becomes_a_job_is_waited_for(serve: Serve) -> None:
    served = serve(max_sync_pixel_steps=1, over_sync="job")
    with served.client() as cdc:
        assert cdc.decode(FILE, steps=2).steps == 2


def test_cancelled_jobs(served: Served, engine: FakeEngine) -> None:
    engine.delay = 5
    with served.client() as cdc:
        job = cdc.submit_decode(FILE)
        with pytest.raises(WaitTimeout):
            job.wait(0.1)
        assert job.refresh().state == "running"
        assert job.cancel().state == "cancelled"
        with pytest.raises(JobCancelled):
            job.result()
        wait_for(lambda: engine.cancelled)  # the engine hears of it after the answer
        assert len(engine.cancelled) == 1


def test_results_that_are_gone(served: Served, clock: Clock) -> None:
    with served.client() as cdc:
        job = cdc.submit_decode(FILE, steps=1)
        job.wait()
        clock.now += 3601
        with pytest.raises(Gone):
            job.result()


def interrupt_soon() -> None:
    """As Ctrl-C does: the signal interrupts what the main thread waits in."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()


def test_an_interrupt_cancels_the_job(served: Served, engine: FakeEngine) -> None:
    engine.delay = 20
    with served.client() as cdc:
        job = cdc.submit_decode(FILE)
        interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            job.wait()
        assert job.refresh().state == "cancelled"
        job = cdc.submit_decode(FILE, seed=2)
        interrupt_soon()
        with pytest.raises(KeyboardInterrupt):
            list(job.events())
        assert job.refresh().state == "cancelled"


class Cutting(httpx.BaseTransport):
    """Breaks each stream of events after two events, and fails every other connection."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner
        self.streams = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/events"):
            return self._inner.handle_request(request)
        self.streams += 1
        if self.streams % 3 == 2:
            raise httpx.ConnectError("cut")
        if self.streams % 3 == 0:
            return httpx.Response(503, json={"type": "/problems/draining", "detail": "later"})
        response = self._inner.handle_request(request)
        return httpx.Response(response.status_code, headers=response.headers, stream=_Cut(response))

    def close(self) -> None:
        self._inner.close()


class _Cut(httpx.SyncByteStream):
    def __init__(self, response: httpx.Response) -> None:
        self._response = response

    def __iter__(self):  # type: ignore[no-untyped-def]
        seen = b""
        for chunk in self._response.stream:
            seen += chunk
            if seen.count(b"\n\n") >= 2:
                first, second, rest = seen.split(b"\n\n", 2)
                yield first + b"\n\n" + second + b"\n\n" + rest[:9]
                raise httpx.ReadError("cut")
            if b"succeeded" in seen:
                yield seen
                return

    def close(self) -> None:
        self._response.close()


def test_events_survive_broken_connections(served: Served, engine: FakeEngine) -> None:
    engine.step_delay = 0.01
    cutting = Cutting(httpx.HTTPTransport(uds=served.socket))
    with Client("http://cdc", transport=cutting, **QUICK) as cdc:
        events = list(cdc.submit_decode(FILE, steps=9).events())
    assert [event.id for event in events] == list(range(1, 13))
    assert cutting.streams >= 6


def test_events_give_up_in_the_end(served: Served) -> None:
    cutting = Cutting(httpx.HTTPTransport(uds=served.socket))
    cutting.streams = 1
    with Client("http://cdc", transport=cutting, max_retries=1, **QUICK) as cdc:
        job = cdc.submit_decode(FILE, steps=1)
        with pytest.raises(Unavailable):
            list(job.events())
    with served.client() as cdc:
        job.status = replace(job.status, id="none")
        job._client = cdc
        with pytest.raises(NotFound):
            list(job.events())


def test_the_tree_of_errors() -> None:
    assert issubclass(Busy, ApiError)
    assert issubclass(ApiError, CdcError)
