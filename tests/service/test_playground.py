"""The web page at / as files; what it does is tested in tests/browser."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service import playground
from service.images import baselines
from tests.service.conftest import MakeClient, image_file, photograph
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio

FOLDER = Path(playground.__file__).parent
SCRIPTS = sorted(p.name for p in FOLDER.glob("*.js"))
TYPES = {"style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}


def policy_of(answer: httpx.Response) -> dict[str, str]:
    parts = (part.strip().partition(" ") for part in answer.headers["content-security-policy"].split(";"))
    return {name: value for name, _, value in parts}


async def test_the_root_is_the_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.startswith("<!doctype html>")
    assert policy_of(answer) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "worker-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"  # for threads that share memory
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", [*SCRIPTS, *TYPES])
async def test_files_have_their_type_and_the_policy(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/playground/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPES.get(name, "text/javascript; charset=utf-8")
    assert answer.content == (FOLDER / name).read_bytes()
    assert policy_of(answer)["default-src"] == "'none'"


async def test_unchanged_files_are_not_sent_again(client: httpx.AsyncClient) -> None:
    for path in ("/", "/playground/app.js"):
        first = await client.get(path)
        etag = first.headers["etag"]
        assert re.fullmatch(r'"[0-9a-f]{64}"', etag)
        assert first.headers["cache-control"] == "no-cache"
        for known in (etag, f'"other", W/{etag}', "*"):
            again = await client.get(path, headers={"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize("name", ["__init__.py", "nothing.js", "..%2Fsettings.py", "%2e%2e%2fversion.py", "a" * 65])
async def test_nothing_else_is_served(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/playground/{name}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_what_the_page_is_told(make_client: MakeClient) -> None:
    about = (await (await make_client()).get("/playground/about")).json()
    assert about["docs"] is True
    bare = await make_client(docs=False)
    assert (await bare.get("/")).status_code == 200
    assert (await bare.get("/playground/about")).json()["docs"] is False
    check(await bare.get("/docs"), 404, "not-found")


async def test_the_samples_are_photographs_whose_source_is_named(client: httpx.AsyncClient) -> None:
    names = (await client.get("/playground/about")).json()["samples"]
    sources = (FOLDER / playground.PHOTOGRAPHS / "SOURCES.md").read_text()
    assert len(names) >= 4
    for name in names:
        answer = await client.get(f"/playground/{name}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.content[:3] == b"\xff\xd8\xff"
        assert f"| `{name}` |" in sources
    assert {p.name for p in (FOLDER / playground.PHOTOGRAPHS).iterdir()} == {*names, "SOURCES.md"}


async def test_the_page_is_told_the_defaults_of_the_model(client: httpx.AsyncClient) -> None:
    assert (await client.get("/playground/about")).json()["model"] == {
        "name": "lite",
        "default_steps": 17,
        "default_gamma": 0.0,
        "max_steps": 200,
        "max_effort": 9,
    }


async def test_an_estimate_grows_with_pixels_steps_and_effort(client: httpx.AsyncClient) -> None:
    async def seconds(width: int, height: int, steps: int, effort: int = 1) -> dict[str, float]:
        values = {"width": width, "height": height, "steps": steps, "effort": effort}
        return dict((await client.get("/playground/estimate", params=values)).json())

    small, large, long = [await seconds(*values) for values in ((64, 64, 1), (4000, 3000, 1), (4000, 3000, 17))]
    assert small["encode"] <= large["encode"] == long["encode"]
    assert small["decode"] <= large["decode"] <= long["decode"]
    refined = await seconds(4000, 3000, 1, 9)
    assert refined["encode"] > large["encode"]
    assert refined["decode"] == large["decode"]
    check(await client.get("/playground/estimate?width=0&height=1&steps=1"), 422, "invalid-parameter")


@pytest.mark.parametrize("format", ["jpeg", "webp", "avif"])
async def test_other_codecs_within_as_many_bytes(client: httpx.AsyncClient, format: str) -> None:
    photo = image_file(photograph(128, 96))
    sizes = []
    for max_bytes in (600, 900):
        answer = await client.post(f"/playground/compare?format={format}&max_bytes={max_bytes}", content=photo)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == f"image/{format}"
        assert answer.headers["x-fits"] == "true"
        with Image.open(BytesIO(answer.content)) as image:
            assert (image.format, image.size) == (format.upper(), (128, 96))
        assert len(answer.content) <= max_bytes
        sizes.append((len(answer.content), int(answer.headers["x-quality"])))
    assert sizes[0] <= sizes[1]
    answer = await client.post(f"/playground/compare?format={format}&max_bytes=20", content=photo)
    assert (answer.headers["x-fits"], answer.headers["x-quality"]) == ("false", "0")


async def test_comparisons_that_are_refused(make_client: MakeClient) -> None:
    client = await make_client(max_pixels=100)
    photo = image_file(photograph())
    check(await client.post("/playground/compare?format=avif&max_bytes=100", content=photo), 422, "too-many-pixels")
    check(await client.post("/playground/compare?format=avif&max_bytes=1", content=b"no"), 415, "unsupported-image")
    for query in ("format=gif&max_bytes=1", "format=jpeg", "format=jpeg&max_bytes=0", "format=jpeg&max_bytes=1&x=1"):
        check(await client.post(f"/playground/compare?{query}", content=photo), 422, "invalid-parameter")


async def test_a_comparison_ends_with_its_caller() -> None:
    asked = 0

    def go_on() -> bool:
        nonlocal asked
        asked += 1
        return asked < 3

    photo = image_file(photograph())
    assert baselines.compare_with("jpeg", photo, 500, max_pixels=10**6, go_on=go_on) is None
    assert asked == 3


async def test_off_by_setting(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CDC_PLAYGROUND", "false")
    client = await make_client()
    for path in ("/playground/app.js", "/playground/about"):
        check(await client.get(path), 404, "not-found")
    assert (await client.get("/")).headers["location"] == "docs"


async def test_the_documentation_stays(client: httpx.AsyncClient) -> None:
    assert (await client.get("/docs")).status_code == 200
    assert not [path for path in (await client.get("/openapi.json")).json()["paths"] if "playground" in path]


def test_the_page_needs_nothing_from_elsewhere_and_nothing_inline() -> None:
    html = (FOLDER / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", html)
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.S) == [""]
    named = set(re.findall(r'(?:src|href)="playground/([^"]+)"', html))
    for script in SCRIPTS:
        text = (FOLDER / script).read_text()
        named |= set(re.findall(r'(?:from |new URL\()"\./([^"]+)"', text))
        assert "innerHTML" not in text
    assert named == {*SCRIPTS, *TYPES}
    for path in FOLDER.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            assert not re.findall(r"https?://", path.read_text()), path.name


def test_every_problem_has_its_advice() -> None:
    from service.api.problems import TABLE

    names = {kind.name for kind in TABLE.values()}
    advised = set(re.findall(r'^  "([a-z0-9-]+)":', (FOLDER / "problems.js").read_text(), re.M))
    # These have no sensible advice of their own: the page cannot cause them, or their status says it.
    without = {
        "address-not-allowed",
        "cancelled",
        "idempotency-key-reused",
        "job-error",
        "job-not-finished",
        "link-expired",
        "link-invalid",
        "links-off",
        "malformed-request",
        "not-acceptable",
        "too-large",
        "unknown-model",
        "unsupported-media-type",
        "unusable-file",
        "unusable-image",
        "source-failed",
        "unknown-batch",
    }
    assert names - advised == without
    assert advised <= names
