"""The OpenAPI document: up to date, and true to what the service answers."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.api import documentation as docs
from service.api import openapi
from service.version import __version__
from tests.service.conftest import image_file, photograph
from tests.service.fake_engine import make_file

ROOT = Path(__file__).parents[2]
DOCUMENT: dict[str, Any] = json.loads((ROOT / "openapi" / "openapi.json").read_text())


def test_the_stored_document_is_up_to_date(tmp_path: Path) -> None:
    assert openapi.main(["--check", str(ROOT / "openapi" / "openapi.json")]) == 0
    other = tmp_path / "new" / "openapi.json"
    assert openapi.main(["--check", str(other)]) == 1
    assert openapi.main([str(other)]) == 0
    assert openapi.main(["--check", str(other)]) == 0
    other.write_text(other.read_text().replace("Encode an image", "Encode a file"))
    assert openapi.main(["--check", str(other)]) == 1


def test_the_document_does_not_depend_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_METRICS_PORT", "9100")
    monkeypatch.setenv("CDC_DOCS", "false")
    assert json.loads(openapi.render()) == DOCUMENT


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert DOCUMENT["info"]["version"] == __version__ == project["version"]


def test_all_routes_are_documented() -> None:
    assert {(path, method) for path, item in DOCUMENT["paths"].items() for method in item} == {
        ("/encode", "post"),
        ("/decode", "post"),
        ("/inspect", "post"),
        ("/models", "get"),
        ("/jobs/{id}", "get"),
        ("/jobs/{id}", "delete"),
        ("/batches", "post"),
        ("/batches/{id}", "get"),
        ("/batches/{id}", "delete"),
        ("/batches/{id}/output", "get"),
        ("/batches/{id}/errors", "get"),
        ("/jobs", "get"),
        ("/jobs/{id}/callback", "get"),
        ("/jobs/{id}/result", "get"),
        ("/jobs/{id}/events", "get"),
        ("/jobs/{id}/links", "post"),
        ("/links/{token}", "get"),
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/version", "get"),
        ("/metrics", "get"),
    }


def test_every_operation_has_a_verb_and_a_tag_that_is_described() -> None:
    operations = [operation for item in DOCUMENT["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    verbs = {"encode", "decode", "inspect", "list", "get", "cancel", "create", "follow", "check"}
    assert {id.split("_")[0] for id in ids} <= verbs
    assert all("_" in id for id in ids)
    described = {tag["name"] for tag in DOCUMENT["tags"] if tag["description"]}
    assert {tag for operation in operations for tag in operation["tags"]} == described
    assert DOCUMENT["servers"] == [{"url": "/", "description": "This service"}]


@pytest.mark.parametrize(
    ("path", "raw"), [("/encode", "image/*"), ("/decode", "image/x-cdc"), ("/inspect", "image/x-cdc")]
)
def test_uploads_are_described_as_files(path: str, raw: str) -> None:
    body = DOCUMENT["paths"][path]["post"]["requestBody"]
    assert body.get("required", False) is (path == "/inspect")  # elsewhere a source may stand for it
    assert set(body["content"]) == {"multipart/form-data", raw, "application/octet-stream"}
    form = body["content"]["multipart/form-data"]["schema"]
    assert form["required"] == ["file"]
    assert form["properties"]["file"]["format"] == "binary"


def test_parameters_are_described() -> None:
    def names(path: str) -> set[str]:
        parameters = DOCUMENT["paths"][path]["post"]["parameters"]
        assert all(p.get("description") for p in parameters)
        return {p["name"] for p in parameters}

    common = {"model", "X-Deadline-Ms", "Prefer", "Idempotency-Key"}
    assert names("/encode") == common | {
        "quality",
        "target_bpp",
        "max_bytes",
        "effort",
        "alpha",
        "metadata",
        "frame",
        "drawing",
        "colour",
        "source",
        "callback",
    }
    assert names("/decode") == common | {
        *("steps", "gamma", "seed", "format", "deterministic", "preview"),
        *("region", "width", "height", "fit", "colour", "source", "callback"),
    }


@pytest.mark.parametrize(
    ("path", "errors"), [("/encode", docs.ENCODE), ("/decode", docs.DECODE), ("/inspect", docs.INSPECT)]
)
def test_problems_are_described(path: str, errors: tuple[type[Exception], ...]) -> None:
    expected = docs.problem_answers(*errors)
    responses = DOCUMENT["paths"][path]["post"]["responses"]
    accepted = set() if path == "/inspect" else {"202"}
    assert set(responses) == {"200", *accepted, *(str(status) for status in expected)}
    for status in expected:
        content = responses[str(status)]["content"]
        assert list(content) == ["application/problem+json"]
        assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_every_reference_leads_somewhere() -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [r for value in node.values() for r in references(value)]
        return [r for value in node for r in references(value)] if isinstance(node, list) else []

    found = set(references(DOCUMENT))
    assert "#/components/schemas/Problem" in found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in DOCUMENT["components"]["schemas"]


@pytest.mark.anyio
async def test_files_are_bytes_for_whoever_takes_no_type_of_image(client: httpx.AsyncClient) -> None:
    bodies = {"/encode": image_file(photograph()), "/decode": make_file(8, 8)}
    for path, body in bodies.items():
        content = DOCUMENT["paths"][path]["post"]["responses"]["200"]["content"]
        assert content["application/octet-stream"]["schema"] == {"type": "string", "format": "binary"}
        answer = await client.post(path, content=body, headers={"Accept": "application/octet-stream"})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
        assert answer.content == (await client.post(path, content=body)).content


@pytest.mark.anyio
async def test_the_answers_carry_the_headers_that_are_described(client: httpx.AsyncClient) -> None:
    bodies = {"/encode": image_file(photograph()), "/decode": make_file(8, 8)}
    for path, body in bodies.items():
        answer = await client.post(path, content=body)
        described = {name.lower() for name in DOCUMENT["paths"][path]["post"]["responses"]["200"]["headers"]}
        assert {name for name in answer.headers if name.startswith("x-cdc-")} <= described
        assert described <= {*answer.headers, "x-cdc-target"}  # which answers to target_bpp and max_bytes alone have
    sized = await client.post("/encode?max_bytes=100000", content=bodies["/encode"])
    assert sized.headers["x-cdc-target"] == "met"


@pytest.mark.anyio
async def test_a_problem_has_the_members_that_are_described(client: httpx.AsyncClient) -> None:
    schema = DOCUMENT["components"]["schemas"]["Problem"]
    body = (await client.post("/encode?quality=0", content=b"x")).json()
    assert set(schema["required"]) <= set(body) <= set(schema["properties"])
    fault = DOCUMENT["components"]["schemas"]["ParameterFault"]
    assert set(body["errors"][0]) == set(fault["properties"])
