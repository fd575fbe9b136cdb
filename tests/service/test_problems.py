"""Every refusal: the right status, a stable type, and the form of RFC 9457."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from model import errors as codec_errors
from model.container import Section, SectionType
from service import errors as service_errors
from service.api import problems, refusals
from service.engine.port import EngineStatus
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file

pytestmark = pytest.mark.anyio

PNG = image_file(photograph())
CDC = make_file(32, 24)


def check(answer: httpx.Response, status: int, name: str) -> dict[str, Any]:
    """Assert that `answer` is the problem of that status and name; return its members."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    body: dict[str, Any] = answer.json()
    assert body["type"] == f"/problems/{name}", body
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["instance"] == answer.headers["x-request-id"]
    return body


def all_errors(base: type[Exception]) -> list[type[Exception]]:
    return [base, *(e for child in base.__subclasses__() for e in all_errors(child))]


@pytest.mark.parametrize("error", [*all_errors(codec_errors.CodecError), *all_errors(service_errors.ServiceError)])
def test_every_error_but_the_two_bases_is_in_the_table(error: type[Exception]) -> None:
    bases = {codec_errors.CodecError, service_errors.ServiceError}
    instance = error("text", 1.0) if issubclass(error, service_errors.Busy) else error("text")
    assert (problems.kind_of(instance) is problems.INTERNAL) == (error in bases)


def test_the_names_of_problems_mean_one_status_each() -> None:
    statuses: dict[str, set[int]] = {}
    for kind in problems.TABLE.values():
        statuses.setdefault(kind.name, set()).add(kind.status)
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.name)
    assert all(len(found) == 1 for found in statuses.values())


ENGINE_ERRORS: list[tuple[Exception, int, str]] = [
    (codec_errors.CorruptStream("x"), 422, "corrupt-stream"),
    (codec_errors.MalformedFile("x"), 422, "malformed-file"),
    (codec_errors.UnknownCodec("x"), 422, "unknown-codec"),
    (codec_errors.UnknownModel("x"), 422, "unknown-model"),
    (codec_errors.InvalidParameter("x"), 422, "invalid-parameter"),
    (codec_errors.LimitExceeded("x"), 422, "too-many-pixels"),
    (codec_errors.WeightsError("x"), 503, "not-ready"),
    (service_errors.Busy("x", 6.2), 429, "busy"),
    (service_errors.Draining("x"), 503, "draining"),
    (service_errors.NotReady("x"), 503, "not-ready"),
    (service_errors.WorkerFailed("x"), 503, "worker-failed"),
    (service_errors.DeadlineExceeded("x"), 504, "deadline-exceeded"),
    (service_errors.Cancelled("x"), 499, "cancelled"),
]


@pytest.mark.parametrize(("error", "status", "name"), ENGINE_ERRORS, ids=lambda v: getattr(v, "__class__", v).__name__)
async def test_errors_of_the_engine(
    client: httpx.AsyncClient, engine: FakeEngine, error: Exception, status: int, name: str
) -> None:
    engine.error = error
    answer = await client.post("/decode", content=CDC)
    check(answer, status, name)
    assert ("retry-after" in answer.headers) == (name in ("busy", "draining", "not-ready", "worker-failed"))


async def test_busy_says_when_to_come_back(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.error = service_errors.Busy("64 requests are waiting", 6.2)
    answer = await client.post("/encode", content=PNG)
    assert check(answer, 429, "busy")["detail"] == "64 requests are waiting"
    assert answer.headers["retry-after"] == "7"


async def test_an_unreachable_target(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.error = codec_errors.TargetUnreachable("the smallest file has 90 bytes")
    answer = await client.post("/encode?max_bytes=80", content=PNG)
    assert check(answer, 422, "target-unreachable")["detail"] == "the smallest file has 90 bytes"


async def test_an_unforeseen_error_shows_nothing_of_itself(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.error = RuntimeError("a secret at 0x1234")
    answer = await client.post("/encode", content=PNG)
    check(answer, 500, "internal-error")
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    ("path", "faulty"),
    [
        ("/encode?quality=0", "quality"),
        ("/encode?quality=101", "quality"),
        ("/encode?quality=best", "quality"),
        ("/encode?target_bpp=nan", "target_bpp"),
        ("/encode?target_bpp=0", "target_bpp"),
        ("/encode?max_bytes=-1", "max_bytes"),
        ("/encode?alpha=maybe", "alpha"),
        ("/encode?metadata=all", "metadata"),
        ("/encode?frame=last", "frame"),
        ("/encode?model=../../etc", "model"),
        ("/encode?qualty=90", "qualty"),
        ("/encode?quality=50&target_bpp=0.5", None),
        ("/encode?max_bytes=1000&target_bpp=0.5", None),
        ("/decode?steps=0", "steps"),
        ("/decode?steps=many", "steps"),
        ("/decode?steps=99999999999999999999", "steps"),
        ("/decode?gamma=2.1", "gamma"),
        ("/decode?gamma=-0.1", "gamma"),
        ("/decode?gamma=inf", "gamma"),
        ("/decode?seed=-1", "seed"),
        (f"/decode?seed={2**63}", "seed"),
        ("/decode?format=tiff", "format"),
    ],
)
async def test_invalid_parameters_are_named(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, faulty: str | None
) -> None:
    body = check(await client.post(path, content=PNG), 422, "invalid-parameter")
    assert [(e["in"], e["parameter"]) for e in body["errors"]] == [("query", faulty)]
    assert engine.requests == []


@pytest.mark.parametrize("path", ["/encode?model=nothing", "/decode?model=nothing", "/decode?model=other"])
async def test_a_model_that_is_not_there_or_does_not_fit(client: httpx.AsyncClient, path: str) -> None:
    check(await client.post(path, content=PNG if "encode" in path else CDC), 422, "unknown-model")


@pytest.mark.parametrize("path", ["/decode?steps=251", "/decode?steps=201"])
async def test_more_steps_than_the_service_or_the_model_takes(client: httpx.AsyncClient, path: str) -> None:
    assert "steps" in check(await client.post(path, content=CDC), 422, "invalid-parameter")["detail"]


def flipped(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]


FILES: list[tuple[Callable[[], bytes], int, str]] = [
    (lambda: b"", 400, "empty-body"),
    (lambda: b"hello, world", 415, "not-a-cdc-file"),
    (lambda: PNG, 415, "not-a-cdc-file"),
    (lambda: CDC[:4], 422, "truncated-file"),
    (lambda: CDC[:20], 422, "truncated-file"),
    (lambda: CDC[:-1], 422, "truncated-file"),
    (lambda: CDC + b"x", 422, "malformed-file"),
    (lambda: flipped(CDC, -8), 422, "checksum-mismatch"),
    (lambda: flipped(CDC, 8), 422, "unsupported-version"),
    (lambda: make_file(8, 8, sections=(Section(0x7F, b"new"),)), 422, "unsupported-version"),
]


@pytest.mark.parametrize("path", ["/decode", "/inspect"])
@pytest.mark.parametrize(("make", "status", "name"), FILES)
async def test_files_that_are_none(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, make: Callable[[], bytes], status: int, name: str
) -> None:
    check(await client.post(path, content=make()), status, name)
    assert engine.requests == []


async def test_every_cut_of_a_file_is_refused_and_never_a_500(client: httpx.AsyncClient) -> None:
    for length in range(1, len(CDC)):
        check(await client.post("/inspect", content=CDC[:length]), 422, "truncated-file")


async def test_every_flipped_byte_is_refused_and_never_a_500(client: httpx.AsyncClient) -> None:
    for index in range(len(CDC)):
        answer = await client.post("/inspect", content=flipped(CDC, index))
        assert answer.status_code in (415, 422), index
        check(answer, answer.status_code, answer.json()["type"].removeprefix("/problems/"))


async def test_an_unknown_codec_id(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    check(await client.post("/decode", content=make_file(8, 8, codec_id=bytes(8))), 422, "unknown-codec")
    assert engine.requests == []


async def test_too_many_pixels_by_the_header_of_the_file(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = check(await client.post("/decode?steps=1", content=make_file(65535, 65535)), 422, "too-many-pixels")
    assert "50000000" in body["detail"]
    assert engine.requests == []


async def test_too_much_work_says_how_many_steps_would_do(make_client: MakeClient, engine: FakeEngine) -> None:
    client = await make_client(max_pixel_steps=10_000)
    body = check(await client.post("/decode", content=make_file(50, 40)), 413, "too-much-work")
    assert "at most 5 steps" in body["detail"]
    assert (await client.post("/decode?steps=5", content=make_file(50, 40))).status_code == 200
    assert (
        "too large"
        in check(await client.post("/decode?steps=1", content=make_file(200, 200)), 413, "too-much-work")["detail"]
    )
    assert len(engine.requests) == 1


async def test_too_much_effort(make_client: MakeClient, engine: FakeEngine) -> None:
    client = await make_client(max_pixel_steps=32 * 24 * 8 * 7)
    png = {"content": image_file(photograph()), "headers": {"Content-Type": "image/png"}}
    body = check(await client.post("/encode?effort=8", **png), 413, "too-much-work")
    assert "less effort" in body["detail"]
    assert (await client.post("/encode?effort=7", **png)).status_code == 200
    check(await client.post("/encode?effort=7&max_bytes=500", **png), 413, "too-much-work")  # two rates are refined
    check(await client.post("/encode?effort=10", **png), 422, "invalid-parameter")
    check(await client.post("/encode?effort=2&model=other", **png), 422, "invalid-parameter")
    assert len(engine.requests) == 1


async def test_a_picture_too_wide_for_the_asked_format(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    body = check(await client.post("/decode?format=webp", content=make_file(16384, 1)), 422, "invalid-parameter")
    assert "png" in body["detail"]
    assert engine.requests == []


@pytest.mark.parametrize("accept", ["text/html", "application/json", "image/avif", "image/png;q=0", "*/*;q=0", "x"])
async def test_an_accept_header_that_excludes_all_formats(client: httpx.AsyncClient, accept: str) -> None:
    check(await client.post("/decode", content=CDC, headers={"Accept": accept}), 406, "not-acceptable")


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/encode", "text/plain"),
        ("/encode", "application/x-www-form-urlencoded2"),
        ("/decode", "image/png"),
        ("/decode", "application/json"),
        ("/inspect", "text/html"),
    ],
)
async def test_content_types_that_are_not_taken(client: httpx.AsyncClient, path: str, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    check(await client.post(path, content=PNG, headers=headers), 415, "unsupported-media-type")


async def test_a_compressed_body_is_not_taken(client: httpx.AsyncClient) -> None:
    headers = {"Content-Encoding": "gzip"}
    check(await client.post("/encode", content=PNG, headers=headers), 415, "unsupported-media-type")


def multipart(*parts: tuple[str, bytes], boundary: str = "edge", end: str = "--") -> bytes:
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in parts
    )
    return body + f"--{boundary}{end}\r\n".encode()


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", multipart(("file", PNG))),
        ("multipart/form-data; boundary=" + "e" * 300, multipart(("file", PNG), boundary="e" * 300)),
        ("multipart/form-data; boundary=edge", b"no parts at all"),
        ("multipart/form-data; boundary=edge", b""),
        ("multipart/form-data; boundary=edge", multipart(("picture", PNG))),
        ("multipart/form-data; boundary=edge", multipart(("file", PNG), ("file", PNG))),
        ("multipart/form-data; boundary=edge", multipart(("file", PNG), *[(f"f{i}", b"") for i in range(16)])),
        ("multipart/form-data; boundary=edge", multipart(("file", PNG))[:-40]),
        ("multipart/form-data; boundary=edge", multipart(("file", b"\r\n--edge\r" * 17))),
        ("multipart/form-data; boundary=edge; charset=idna", b"--edge\r\nContent-Disposition: ;;\r\n\r\n"),
        ("multipart/form-data; boundary=edge", b"--edge\r\n" + b"X" * 10000 + b": y\r\n\r\n"),
    ],
)
async def test_broken_multipart_bodies(client: httpx.AsyncClient, content_type: str, body: bytes) -> None:
    answer = await client.post("/encode", content=body, headers={"Content-Type": content_type})
    check(answer, 400, "malformed-request")


async def test_an_empty_part_is_an_empty_body(client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    check(await client.post("/encode", content=multipart(("file", b"")), headers=headers), 400, "empty-body")


async def test_addresses_and_methods_that_are_not_there(client: httpx.AsyncClient) -> None:
    check(await client.get("/nothing"), 404, "not-found")
    check(await client.get("/encode/"), 404, "not-found")
    answer = await client.get("/encode")
    check(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    assert (await client.put("/jobs/x")).headers["allow"] == "DELETE, GET, HEAD"


@pytest.mark.parametrize("path", ["/encode", "/decode", "/inspect"])
@pytest.mark.parametrize("name", ["draining", "not-ready"])
async def test_no_work_is_taken_while_loading_or_draining(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, name: str
) -> None:
    engine.state = EngineStatus(name == "draining", name == "draining", 0, 0, 0)
    answer = await client.post(path, content=PNG if path == "/encode" else CDC)
    check(answer, 503, name)
    assert int(answer.headers["retry-after"]) >= 1


async def test_models_are_not_known_while_loading(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    engine.state = EngineStatus(False, False, 0, 0, 0)
    check(await client.get("/models"), 503, "not-ready")


def test_a_framework_status_without_an_entry_is_named_by_its_phrase() -> None:
    assert problems.kind_of_status(431).name == "request-header-fields-too-large"
    assert problems.kind_of_status(599) == problems.Kind(599, "error", "Error")


def test_a_refusal_without_words_says_its_title() -> None:
    answer = problems.problem_of(refusals.EmptyBody())
    assert json.loads(bytes(answer.body))["detail"] == "The request has no body"


async def test_a_damaged_alpha_section_is_a_malformed_file(client: httpx.AsyncClient) -> None:
    data = make_file(8, 8, sections=(Section(SectionType.ALPHA, b"not a PNG"),))
    check(await client.post("/decode", content=data), 422, "malformed-file")
