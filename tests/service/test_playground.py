"""The web page at / as files; what it does is tested in tests/browser."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from service import playground
from tests.service.conftest import MakeClient
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
        "style-src": "'self'",
        "img-src": "'self' blob: data:",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
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


async def test_the_sample_is_the_photograph_of_matplotlib(client: httpx.AsyncClient) -> None:
    pytest.importorskip("matplotlib")
    assert (await client.get("/playground/about")).json()["samples"] == ["portrait.jpg"]
    answer = await client.get("/playground/portrait.jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content[:3] == b"\xff\xd8\xff"


async def test_without_matplotlib_there_is_no_photograph(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playground, "find_photograph", lambda: None)
    client = await make_client()
    assert (await client.get("/playground/about")).json()["samples"] == []
    check(await client.get("/playground/portrait.jpg"), 404, "not-found")


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
        named |= set(re.findall(r'from "\./([^"]+)"', text))
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
    }
    assert names - advised == without
    assert advised <= names
