"""Webhooks of jobs: signed as Standard Webhooks say, tried again, given up, seen."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from service.jobs import hooks
from service.outside.webhooks import key_of, signature
from service.settings import Settings, SettingsError, load_settings
from tests.service.conftest import Clock, MakeClient, image_file, photograph
from tests.service.fake_engine import FakeEngine, make_file
from tests.service.test_problems import check

pytestmark = pytest.mark.anyio
SECRETS = tuple("whsec_" + base64.b64encode(bytes([k]) * 32).decode() for k in (1, 2))
ASYNC = {"Prefer": "respond-async"}
SETTINGS: dict[str, Any] = {"webhook_secrets": SECRETS, "private_addresses": True}


class Receiver:
    """A site that takes webhooks; `statuses` are answered one after the other, the last one for ever."""

    def __init__(self) -> None:
        self.statuses = [204]
        self.got: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(hooks, "POLL_S", 0.01)
    monkeypatch.setattr(hooks, "FIRST_WAIT_S", 0.02)
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


async def submit(client: httpx.AsyncClient, url: str, **params: Any) -> str:
    answer = await client.post("/decode", params={"callback": url, **params}, content=make_file(16, 16), headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


async def until(client: httpx.AsyncClient, id: str, state: str, clock: Clock | None = None) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while True:
            if clock is not None:
                clock.now += 1
            found: dict[str, Any] = (await client.get(f"/jobs/{id}/callback")).json()
            if found["state"] == state:
                return found
            await asyncio.sleep(0.01)


def test_the_published_example() -> None:
    """Of the Standard Webhooks specification and its libraries."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = signature([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_webhook_tells_the_end(make_client: MakeClient, receiver: Receiver) -> None:
    client = await make_client(**SETTINGS)
    id = await submit(client, receiver.url)
    assert await until(client, id, "delivered") == {"state": "delivered", "attempts": 1, "error": None}
    [(headers, body)] = receiver.got
    told = json.loads(body)
    assert told["type"] == "job.succeeded"
    assert told["data"] == (await client.get(f"/jobs/{id}")).json()
    assert headers["webhook-id"] == f"msg_{id}"
    signed = f"msg_{id}.{headers['webhook-timestamp']}.".encode() + body
    expected = [
        "v1," + base64.b64encode(hmac.new(key_of(s), signed, hashlib.sha256).digest()).decode() for s in SECRETS
    ]
    assert headers["webhook-signature"].split() == expected


async def test_failures_and_cancels_are_told(make_client: MakeClient, receiver: Receiver, engine: FakeEngine) -> None:
    client = await make_client(**SETTINGS)
    engine.gate.clear()
    id = await submit(client, receiver.url)
    await client.delete(f"/jobs/{id}")
    await until(client, id, "delivered")
    engine.gate.set()
    engine.error = MemoryError()
    other = await submit(client, receiver.url, seed=2)
    await until(client, other, "delivered")
    assert [json.loads(body)["type"] for _, body in receiver.got] == ["job.cancelled", "job.failed"]


async def test_identical_work_tells_each_of_its_jobs(make_client: MakeClient, receiver: Receiver) -> None:
    client = await make_client(**SETTINGS)
    ids = [await submit(client, receiver.url) for _ in range(3)]  # the later ones join what is done already
    for id in ids:
        await until(client, id, "delivered")
    assert {headers["webhook-id"] for headers, _ in receiver.got} == {f"msg_{id}" for id in ids}


async def test_it_is_tried_again(make_client: MakeClient, receiver: Receiver, clock: Clock) -> None:
    client = await make_client(**SETTINGS)
    receiver.statuses = [500, 302, 404, 200]
    id = await submit(client, receiver.url)
    assert (await until(client, id, "delivered", clock))["attempts"] == 4
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


async def test_it_is_given_up_and_seen(
    make_client: MakeClient, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await make_client(**SETTINGS)
    receiver.statuses = [410]
    id = await submit(client, receiver.url)
    assert (await until(client, id, "dead"))["error"] == "http://127.0.0.1 answered 410"
    receiver.statuses = [500]
    monkeypatch.setattr(hooks, "GIVE_UP_S", 0.0)
    id = await submit(client, receiver.url, seed=2)
    assert (await until(client, id, "dead"))["attempts"] == 1
    assert 'cdc_webhooks_total{outcome="dead"} 2.0' in (await client.get("/metrics")).text


def test_waits_double_up_to_two_hours() -> None:
    for attempts, longest in ((1, 5), (2, 10), (5, 80), (12, 7200), (1000, 7200)):
        assert longest / 2 <= hooks.wait_after(attempts) <= longest


async def test_private_addresses_are_refused(make_client: MakeClient, receiver: Receiver) -> None:
    client = await make_client(webhook_secrets=SECRETS)
    answer = await client.post("/decode", params={"callback": receiver.url}, content=make_file(8, 8), headers=ASYNC)
    check(answer, 422, "address-not-allowed")
    id = await submit(client, receiver.url.replace("http:", "https:"))  # by its looks it may be public
    assert "not at a public address" in (await until(client, id, "dead"))["error"]
    assert receiver.got == []


async def test_hosts_can_be_listed(make_client: MakeClient) -> None:
    client = await make_client(webhook_secrets=SECRETS, webhook_hosts=("hooks.example.org",))
    params = {"callback": "https://other.example.org/"}
    answer = await client.post("/decode", params=params, content=make_file(8, 8), headers=ASYNC)
    check(answer, 422, "address-not-allowed")


async def test_without_secrets_there_are_none(client: httpx.AsyncClient) -> None:
    params = {"callback": "https://example.org/"}
    image = image_file(photograph())
    check(await client.post("/encode", params=params, content=image, headers=ASYNC), 422, "address-not-allowed")


async def test_a_callback_is_of_a_job(make_client: MakeClient, receiver: Receiver) -> None:
    client = await make_client(**SETTINGS)
    answer = await client.post("/decode", params={"callback": receiver.url}, content=make_file(8, 8))
    check(answer, 422, "invalid-parameter")
    job = (await client.post("/decode", content=make_file(8, 8), headers=ASYNC)).json()["id"]
    check(await client.get(f"/jobs/{job}/callback"), 404, "unknown-job")


async def test_a_callback_is_its_owners(make_client: MakeClient, receiver: Receiver) -> None:
    client = await make_client(**SETTINGS)
    headers = {**ASYNC, "Authorization": "Bearer mine"}
    answer = await client.post("/decode", params={"callback": receiver.url}, content=make_file(8, 8), headers=headers)
    id = answer.json()["id"]
    check(await client.get(f"/jobs/{id}/callback"), 404, "unknown-job")
    assert (await client.get(f"/jobs/{id}/callback", headers={"Authorization": "Bearer mine"})).status_code == 200


@pytest.mark.parametrize("secret", ["short", "whsec_", "whsec_AAAA", "whsec_" + "!" * 40, SECRETS[0][6:]])
def test_bad_secrets_stop_the_start(secret: str) -> None:
    with pytest.raises(SettingsError, match="CDC_WEBHOOK_SECRETS"):
        load_settings(webhook_secrets=secret)
    assert SECRETS[0] not in repr(Settings(webhook_secrets=SECRETS))


async def test_jobs_are_listed_by_page(client: httpx.AsyncClient) -> None:
    mine, other = ({"Authorization": f"Bearer {name}", **ASYNC} for name in ("mine", "other"))
    ids = []
    for k in range(5):
        answer = await client.post(f"/decode?seed={k}", content=make_file(8, 8), headers=mine)
        ids.append(answer.json()["id"])
    await client.post("/decode", content=make_file(8, 8), headers=other)
    seen: list[str] = []
    params: dict[str, Any] = {"limit": 2}
    while True:
        page = (await client.get("/jobs", params=params, headers=mine)).json()
        seen += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        params["after"] = page["next"]
    assert sorted(seen) == sorted(ids)
    check(await client.get("/jobs"), 401, "not-authenticated")
    check(await client.get("/jobs?limit=0", headers=mine), 422, "invalid-parameter")
