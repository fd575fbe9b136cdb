"""Parameters: from the query or from the fields of a form, each once, none passed over."""

from __future__ import annotations

import httpx
import pytest

from service.engine.port import DecodeRequest
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

PNG = {"file": ("photo.png", image_file(photograph()), "image/png")}
CDC = {"file": ("photo.cdc", make_file(16, 16))}


async def test_fields_of_a_form_are_parameters(client: httpx.AsyncClient, engine: FakeEngine) -> None:
    encoded = await client.post("/encode", files=PNG, data={"quality": "80"})
    assert encoded.headers["x-cdc-quality"] == "80"
    fields = {"steps": "3", "gamma": "0.5", "format": "webp", "deterministic": "true"}
    decoded = await client.post("/decode?seed=9", files=CDC, data=fields)
    assert decoded.headers["content-type"] == "image/webp"
    assert [decoded.headers[f"x-cdc-{name}"] for name in ("steps", "gamma", "seed")] == ["3", "0.5", "9"]
    request = engine.requests[-1]
    assert isinstance(request, DecodeRequest)
    assert request.deterministic is True
    same = await client.post("/decode?steps=3&gamma=0.5&seed=9&format=webp&deterministic=true", files=CDC)
    assert same.content == decoded.content


@pytest.mark.parametrize(
    ("path", "fields", "faulty"),
    [
        ("/encode", {"note": "x"}, "note"),
        ("/encode", {"quality": "101"}, "quality"),
        ("/encode", {"quality": ""}, "quality"),
        ("/encode", {"qualty": "50"}, "qualty"),
        ("/encode", {"": "50"}, ""),
        ("/encode?quality=50", {"quality": "50"}, "quality"),
        ("/encode?quality=50", {"max_bytes": "5000"}, None),
        ("/decode", {"steps": "many"}, "steps"),
        ("/decode", {"quality": "50"}, "quality"),
        ("/decode?format=png", {"format": "webp"}, "format"),
        ("/inspect", {"steps": "3"}, "steps"),
    ],
)
async def test_a_field_that_cannot_be_obeyed_is_refused(
    client: httpx.AsyncClient, engine: FakeEngine, path: str, fields: dict[str, str], faulty: str | None
) -> None:
    body = check(await client.post(path, files=PNG if "encode" in path else CDC, data=fields), 422, "invalid-parameter")
    assert [(e["in"], e["parameter"]) for e in body["errors"]] == [("form", faulty or None)]
    assert engine.requests == []


@pytest.mark.parametrize("value", ["5" * 257, b"\xff\xfe"])
async def test_a_field_that_is_too_long_or_no_text(client: httpx.AsyncClient, value: str | bytes) -> None:
    check(await client.post("/encode", files={**PNG, "quality": (None, value)}), 400, "malformed-request")


async def test_a_field_given_twice(client: httpx.AsyncClient) -> None:
    body = check(await client.post("/encode", files=PNG, data={"quality": ["5", "6"]}), 400, "malformed-request")
    assert "'quality'" in body["detail"]


@pytest.mark.parametrize(
    ("method", "path", "faulty"),
    [
        ("POST", "/encode?quality=50&quality=60", "quality"),
        ("POST", "/encode?quality=50&quality=50", "quality"),
        ("POST", "/decode?steps=3&gamma=0&steps=4", "steps"),
        ("POST", "/jobs/x/links?ttl_s=1&ttl_s=2", "ttl_s"),
    ],
)
async def test_a_parameter_given_twice(client: httpx.AsyncClient, method: str, path: str, faulty: str) -> None:
    body = check(await client.request(method, path, content=PNG["file"][1]), 422, "invalid-parameter")
    assert [(e["in"], e["parameter"]) for e in body["errors"]] == [("query", faulty)]


async def test_inspect_has_no_parameters(client: httpx.AsyncClient) -> None:
    check(await client.post("/inspect?steps=3", content=CDC["file"][1]), 422, "invalid-parameter")
