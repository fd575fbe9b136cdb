"""What is sent, when it is tried again, what answers mean: without any network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest

from cdc_client import (
    ApiError,
    BadRequest,
    Busy,
    CdcError,
    ClientConfig,
    ConnectionFailed,
    DamagedFile,
    Gone,
    InvalidParameter,
    JobCancelled,
    NotAuthenticated,
    ServerFailed,
    ServiceSource,
    Unavailable,
    Unusable,
    answers,
    calls,
)
from cdc_client.answers import Response
from cdc_client.calls import Caller, Gate, Pause, Request
from cdc_client.config import config_of
from cdc_client.errors import error_of
from cdc_client.sources import read_source
from cdc_client.sse import EventReader

CONFIG = ClientConfig(max_retries=2, first_backoff_s=0.25, max_backoff_s=1.0)
OK = Response(200, {}, b"{}")
LOST = ConnectionFailed("lost")


def problem(status: int, name: str, **headers: str) -> Response:
    body = {"type": f"/problems/{name}", "title": "t", "status": status, "detail": "d"}
    return Response(status, {"x-request-id": "r", **headers}, json.dumps(body).encode())


def play(call: calls.Call[Any], outcomes: Sequence[Response | ConnectionFailed]) -> tuple[Any, list[float], int]:
    """Drive a call with prepared outcomes; return its result, its pauses and how many requests it made."""
    left, pauses, sent = list(outcomes), [], 0
    outcome: Response | ConnectionFailed | None = None
    while True:
        try:
            action = call.send(outcome)
        except StopIteration as end:
            return end.value, pauses, sent
        if isinstance(action, Pause):
            pauses.append(action.seconds)
            outcome = None
        else:
            sent += 1
            outcome = left.pop(0)


def caller() -> Caller:
    now = [0.0]
    gate = Gate(lambda: now[0])

    def advance(seconds: float) -> None:
        Gate.close_for(gate, seconds)
        now[0] += seconds

    gate.close_for = advance  # type: ignore[method-assign]
    return Caller(CONFIG, gate)


@pytest.mark.parametrize("passing", [LOST, problem(503, "draining"), problem(429, "busy"), problem(502, "x")])
def test_what_may_pass_is_tried_again(passing: Response | ConnectionFailed) -> None:
    result, pauses, sent = play(calls.exchange(caller(), Request("GET", "/")), [passing, passing, OK])
    assert (result, sent) == (OK, 3)
    assert 0.125 <= pauses[0] <= 0.25
    assert 0.25 <= pauses[-1] <= 0.5


def test_retries_end() -> None:
    with pytest.raises(ConnectionFailed, match="lost"):
        play(calls.exchange(caller(), Request("GET", "/")), [LOST] * 3)
    with pytest.raises(Unavailable) as caught:
        play(calls.exchange(caller(), Request("GET", "/")), [LOST, LOST, problem(503, "not-ready")])
    assert caught.value.type == "/problems/not-ready"


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 504])
def test_what_cannot_pass_is_not(status: int) -> None:
    with pytest.raises(ApiError):
        play(calls.exchange(caller(), Request("GET", "/")), [problem(status, "x"), OK])


def test_retry_after_is_obeyed_and_shared() -> None:
    gate = Gate(lambda: 100.0)
    asked = calls.exchange(Caller(CONFIG, gate), Request("GET", "/"))
    next(asked)
    pause = asked.send(problem(429, "busy", **{"retry-after": "7"}))
    assert isinstance(pause, Pause)
    assert 7 <= pause.seconds <= 7.25
    other = next(calls.exchange(Caller(CONFIG, gate), Request("GET", "/")))
    assert isinstance(other, Pause)
    assert other.seconds == pytest.approx(pause.seconds)  # held back without having been refused


def test_a_retry_after_beyond_patience_is_an_error() -> None:
    with pytest.raises(Busy) as caught:
        play(calls.exchange(caller(), Request("GET", "/")), [problem(429, "busy", **{"retry-after": "999"}), OK])
    assert caught.value.retry_after == 999


@pytest.mark.parametrize(
    ("status", "name", "expected"),
    [
        (422, "checksum-mismatch", DamagedFile),
        (422, "invalid-parameter", InvalidParameter),
        (422, "some-later-kind", Unusable),
        (401, "not-authenticated", NotAuthenticated),
        (410, "job-expired", Gone),
        (406, "not-acceptable", BadRequest),
        (500, "internal-error", ServerFailed),
        (599, "unknown", ServerFailed),
    ],
)
def test_errors_by_type_then_by_status(status: int, name: str, expected: type[ApiError]) -> None:
    answer = problem(status, name)
    error = error_of(status, answer.body, answer.headers)
    assert type(error) is expected
    assert (error.request_id, error.detail) == ("r", "d")
    assert "[request r]" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway", b"[1]", b'"x"', b"\xff"])
def test_answers_of_proxies_are_errors_too(body: bytes) -> None:
    error = error_of(502, body, {})
    assert type(error) is ServerFailed
    assert error.type == "about:blank"


def test_answers_that_are_no_answers() -> None:
    for read in (answers.status_in, answers.inspection_in, answers.models_in, answers.link_in, answers.encoded_in):
        with pytest.raises(CdcError, match="CDC service"):
            read(Response(200, {"content-type": "text/html"}, b"<html>"))


def test_requests() -> None:
    request = calls.encode_request(b"x", {"quality": 30, "first_frame": True, "deadline_s": 1.5, "model": None})
    assert request.params == {"quality": "30", "frame": "first"}
    assert request.headers["X-Deadline-Ms"] == "1500"
    request = calls.decode_request(b"x", {"steps": "auto", "deterministic": True, "gamma": 0.0}, previews=True)
    assert request.params == {
        "format": "png",
        "steps": "auto",
        "deterministic": "true",
        "gamma": "0.0",
        "preview": "true",
    }
    first, second = calls.as_job(request), calls.as_job(request)
    assert first.headers["Prefer"] == "respond-async"
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]


def test_a_job_without_a_result() -> None:
    status = {"id": "a", "operation": "decode", "created_at": "2026-01-01T00:00:00Z"}
    status |= dict.fromkeys(("started_at", "finished_at", "expires_at", "position", "estimate_seconds"))
    status |= dict.fromkeys(("step", "steps", "error", "result"))
    fault = {"type": "/problems/corrupt-stream", "title": "t", "status": 422, "detail": "no sense", "instance": None}
    failed = answers.status_in(Response(200, {}, json.dumps({**status, "state": "failed", "error": fault}).encode()))
    with pytest.raises(DamagedFile, match="no sense"):
        play(calls.result(caller(), failed), [])
    cancelled = answers.status_in(Response(200, {}, json.dumps({**status, "state": "cancelled"}).encode()))
    with pytest.raises(JobCancelled):
        play(calls.result(caller(), cancelled), [])


def test_events_are_read_line_by_line() -> None:
    reader = EventReader()
    lines = ["id: 4", "event: progress", 'data: {"step": 1,', 'data:  "steps": 3}', ""]
    found = [event for line in lines if (event := reader.feed(line))]
    assert [(e.id, e.type, e.step, e.steps) for e in found] == [(4, "progress", 1, 3)]
    for line in (": still here", "", "id: 5", "event: later-kind", "data: {}", ""):
        assert reader.feed(line) is None
    assert reader.last_id == 5
    for line in ("id: 6", "event: progress"):
        reader.feed(line)
    reader.restart()
    assert reader.feed("") is None
    assert reader.last_id == 5
    for line in ("id: 7", "event: progress", "data: <html>"):
        reader.feed(line)
    with pytest.raises(CdcError, match="CDC service"):
        reader.feed("")


def test_sources(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    for source in (b"abc", bytearray(b"abc"), memoryview(b"abc"), str(tmp_path / "file"), tmp_path / "file"):
        assert read_source(source, CONFIG) == b"abc"
    assert read_source(BytesIO(b"abc"), CONFIG) == b"abc"
    with pytest.raises(TypeError, match="binary"):
        read_source(StringIO("abc"), CONFIG)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "none", CONFIG)


def test_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_URL", "https://a.test/prefix/")
    monkeypatch.setenv("CDC_API_KEY", "secret")
    config = config_of(None, None, {})
    assert (config.base_url, config.api_key) == ("https://a.test/prefix", "secret")
    assert "secret" not in repr(config)
    assert config_of("http://b.test", "other", {}).api_key == "other"
    for values in ({"base_url": "ftp://x"}, {"max_retries": -1}, {"timeout": 0.0}, {"api_key": "a\nb"}):
        with pytest.raises(ValueError):  # noqa: PT011 - four different messages
            ClientConfig(**values)  # type: ignore[arg-type]


def test_a_file_that_the_service_reads_is_named_in_the_query() -> None:
    source = ServiceSource("s3://photos/cat.jpg")
    request = calls.encode_request(source, {"quality": 30})
    assert (request.body, dict(request.params)) == (b"", {"quality": "30", "source": "s3://photos/cat.jpg"})
    with pytest.raises(TypeError, match="cannot be inspected"):
        calls.inspect_request(source)
