"""Keys over HTTP: who gets in, how often, and whose jobs are whose."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.access.gate import Gate, RedisSlots
from service.access.keys import new_key
from service.access.stores import FileKeys
from service.api.app import create_app
from service.errors import KeysUnavailable, RateLimited
from service.jobs.connection import connect
from service.settings import Settings, SettingsError, load_settings
from tests.service.conftest import Clock, MakeClient, client_of, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_job_routes import ended

pytestmark = pytest.mark.anyio
FILE = make_file(40, 30)
SECRET = "9f8a7b6c5d4e3f2a1b0c9d8e7f6a5b4c"
MakeKey = Callable[..., Awaitable[dict[str, str]]]


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def make_key(keys: Path) -> MakeKey:
    """A function that makes a key and returns the header with its token."""

    async def make(*scopes: str, rate: str = "", concurrency: int = 0) -> dict[str, str]:
        key, token = new_key("test", scopes or ("encode", "decode"), rate, concurrency)
        await FileKeys(keys).add(key)
        return {"Authorization": f"Bearer {token}"}

    return make


@pytest.fixture
async def locked(make_client: MakeClient, keys: Path) -> httpx.AsyncClient:
    return await make_client(keys=str(keys), link_secrets=SECRET)


ROUTES = [
    ("POST", "/encode"),
    ("POST", "/decode"),
    ("POST", "/inspect"),
    ("GET", "/models"),
    ("POST", "/batches"),
    ("GET", "/batches/x"),
    ("DELETE", "/batches/x"),
    ("GET", "/batches/x/output"),
    ("GET", "/batches/x/errors"),
    ("GET", "/jobs"),
    ("GET", "/jobs/x/callback"),
    ("GET", "/jobs/x"),
    ("DELETE", "/jobs/x"),
    ("GET", "/jobs/x/result"),
    ("GET", "/jobs/x/events"),
    ("POST", "/jobs/x/links"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_of_work_needs_a_key(
    locked: httpx.AsyncClient, engine: FakeEngine, make_key: MakeKey, method: str, path: str
) -> None:
    good = (await make_key())["Authorization"]
    for header in (None, "Bearer", "Basic abc", "Bearer x", good[:-2] + "xx", good.replace("cdc_", "CDC_")):
        headers = {} if header is None else {"Authorization": header}
        answer = await locked.request(method, path, headers=headers, content=FILE if method == "POST" else None)
        assert answer.status_code == 401
        assert answer.json()["type"] == "/problems/not-authenticated"
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert engine.requests == []
    answer = await locked.request(method, path, headers={"Authorization": good})
    assert answer.status_code not in (401, 403)


def test_the_list_of_routes_is_whole(engine: FakeEngine) -> None:
    """A new route must be put here, or be one that anybody may use."""
    paths = create_app(Settings(), engine).openapi()["paths"]
    secured = {(m.upper(), p) for p, item in paths.items() for m, operation in item.items() if "security" in operation}
    assert {(method, path.replace("/x", "/{id}")) for method, path in ROUTES} == secured
    everybody = {"/livez", "/readyz", "/version", "/metrics", "/links/{token}"}
    assert set(paths) - {path for _, path in secured} == everybody


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/version", "/metrics", "/openapi.json"])
async def test_operation_needs_none(locked: httpx.AsyncClient, path: str) -> None:
    assert (await locked.get(path)).status_code == 200


async def test_scopes(locked: httpx.AsyncClient, make_key: MakeKey) -> None:
    encoder, decoder = await make_key("encode"), await make_key("decode")
    image = image_file(photograph())
    assert (await locked.post("/encode", content=image, headers=encoder)).status_code == 200
    assert (await locked.post("/decode", content=FILE, headers=decoder)).status_code == 200
    for headers, path, body in ((encoder, "/decode", FILE), (decoder, "/encode", image)):
        answer = await locked.post(path, content=body, headers=headers)
        assert (answer.status_code, answer.json()["type"]) == (403, "/problems/not-allowed")
    assert (await locked.get("/models", headers=encoder)).status_code == 200


async def test_rates_are_per_key(locked: httpx.AsyncClient, make_key: MakeKey) -> None:
    slow, free = await make_key(rate="3/m"), await make_key()
    answers = [await locked.get("/models", headers=slow) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert answers[-1].json()["type"] == "/problems/rate-limited"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
    assert (await locked.get("/models", headers=free)).status_code == 200


async def test_requests_at_the_same_time(locked: httpx.AsyncClient, engine: FakeEngine, make_key: MakeKey) -> None:
    engine.delay = 0.3
    key = await make_key(concurrency=2)
    answers = await asyncio.gather(
        *(locked.post("/decode", content=FILE, params={"seed": n}, headers=key) for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    engine.delay, engine.error = 0, RuntimeError("broken")
    for _ in range(4):  # slots come back after failures too
        assert (await locked.post("/decode", content=FILE, headers=key)).status_code == 500
    engine.error = None
    assert (await locked.post("/decode", content=FILE, headers=key)).status_code == 200


async def test_links(locked: httpx.AsyncClient, make_client: MakeClient, make_key: MakeKey, clock: Clock) -> None:
    ann, bob = await make_key(), await make_key()
    headers = {**ann, "Prefer": "respond-async"}
    location = (await locked.post("/decode", content=FILE, params={"steps": 1}, headers=headers)).headers["location"]
    await ended(locked, location, ann)
    assert (await locked.post(f"{location}/links", headers=bob)).status_code == 404
    made = (await locked.post(f"{location}/links", params={"ttl_s": 60}, headers=ann)).json()
    opened = await locked.get(made["href"])
    assert opened.status_code == 200
    assert opened.content == (await locked.get(f"{location}/result", headers=ann)).content
    assert (await locked.get(made["href"][:-4] + "AAAA")).json()["type"] == "/problems/link-invalid"
    clock.now += 1.1
    brief = (await locked.post(f"{location}/links", params={"ttl_s": 1}, headers=ann)).json()
    clock.now += 1.1
    assert (await locked.get(brief["href"])).json()["type"] == "/problems/link-expired"
    assert (await locked.post(f"{location}/links", params={"ttl_s": 10**9}, headers=ann)).status_code == 422
    without = await make_client()
    made_without = await without.post("/decode", content=FILE, headers={"Prefer": "respond-async"})
    answer = await without.post(f"{made_without.headers['location']}/links")
    assert (answer.status_code, answer.json()["type"]) == (403, "/problems/links-off")


@pytest.mark.parametrize("secret", ["short", "change-me-" * 5, "0123456789abcdef" * 4, "a" * 64, f"{SECRET},weak"])
def test_weak_secrets_stop_the_start(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(link_secrets=secret)
    assert "CDC_LINK_SECRETS" in str(caught.value)
    assert secret not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    both = load_settings(link_secrets=f"{SECRET},{SECRET[::-1]}")
    assert len(both.link_secrets) == 2
    assert SECRET not in repr(both)
    with pytest.raises(SettingsError, match="CDC_REDIS_URL"):
        load_settings(keys="redis")


async def test_logs_name_keys_and_hold_no_secret(
    locked: httpx.AsyncClient, make_key: MakeKey, caplog: pytest.LogCaptureFixture
) -> None:
    key = await make_key("encode")
    token = key["Authorization"].split()[1]
    with caplog.at_level(logging.DEBUG):
        await locked.get("/models", headers=key)
        await locked.post("/decode", content=FILE, headers=key)
        await locked.get("/models", headers={"Authorization": f"Bearer {token[:-1]}"})
    text = "\n".join(json.dumps(record.__dict__, default=str) for record in caplog.records)
    assert token.split("_")[1] in text
    assert token.split("_", 2)[2][:12] not in text
    refused = [record for record in caplog.records if record.name == "service.audit"]
    assert [record.__dict__["reason"] for record in refused] == ["lacks the scope decode", "not a key"]


async def test_a_store_that_cannot_be_read_is_503(locked: httpx.AsyncClient, make_key: MakeKey, keys: Path) -> None:
    key = await make_key()
    keys.write_text("{")
    answer = await locked.get("/models", headers=key)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/keys-unavailable")


@pytest.mark.redis
async def test_limits_over_processes_that_share_a_redis(redis_url: str, tmp_path: Path) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        store = FileKeys(tmp_path / "keys")
        key, token = new_key("ann", ("encode",), "4/m", 2)
        await store.add(key)
        gates = [Gate(store, redis) for _ in range(2)]
        async with gates[0].admit(token, "encode"), gates[1].admit(token, "encode"):
            with pytest.raises(RateLimited, match="at the same time"):
                async with gates[0].admit(token, "encode"):
                    pass
        async with gates[1].admit(token, "encode") as caller:
            assert caller.owner == f"key:{key.id}"
        with pytest.raises(RateLimited, match="4 requests a minute"):
            async with gates[0].admit(token, "encode"):
                pass
        assert await RedisSlots(redis).take(key.id, 1) is not None
        assert 0 < await redis.ttl(f"cdc:slots:{key.id}") <= 3700
    lost = Gate(store, connect("redis://127.0.0.1:9/0"))
    with pytest.raises(KeysUnavailable):
        async with lost.admit(token, "encode"):
            pass
    await lost.close()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["submit", "read", "result", "events", "cancel", "link"]),
        st.integers(0, 1),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS)
def test_no_key_ever_sees_the_jobs_of_another(actions: list[tuple[str, int, int]], tmp_path: Path) -> None:
    """Two keys do the same work on the same file, so that executions are shared; records never are."""

    async def play() -> None:
        store = FileKeys(tmp_path / "property.json")
        headers: list[dict[str, str]] = []
        for name in ("ann", "bob"):
            key, token = new_key(name, ("encode", "decode"))
            await store.add(key)
            headers.append({"Authorization": f"Bearer {token}"})
        app = create_app(Settings(keys=str(tmp_path / "property.json"), link_secrets=SECRET), FakeEngine())
        made: list[tuple[str, int]] = []
        async with app.router.lifespan_context(app), client_of(app) as client:
            for action, who, which in actions:
                if action == "submit" or not made:
                    prefer = {**headers[who], "Prefer": "respond-async", "Idempotency-Key": str(which)}
                    answer = await client.post("/decode", content=FILE, params={"seed": which}, headers=prefer)
                    assert answer.status_code == 202
                    location = answer.headers["location"]
                    assert all(owner == who for place, owner in made if place == location)
                    made.append((location, who))
                    continue
                location, owner = made[which % len(made)]
                method, path = {
                    "read": ("GET", location),
                    "result": ("GET", f"{location}/result"),
                    "events": ("GET", f"{location}/events"),
                    "cancel": ("DELETE", location),
                    "link": ("POST", f"{location}/links"),
                }[action]
                answer = await client.request(method, path, headers=headers[who])
                problem: dict[str, Any] = answer.json() if "json" in answer.headers["content-type"] else {}
                assert (answer.status_code == 404) == (owner != who), (action, problem)
                if owner != who:
                    stranger = await client.request(
                        method, "/jobs/none" + path.removeprefix(location), headers=headers[who]
                    )
                    kept = {k: v for k, v in problem.items() if k != "instance"}
                    assert kept == {k: v for k, v in stranger.json().items() if k != "instance"}

    asyncio.run(play())
