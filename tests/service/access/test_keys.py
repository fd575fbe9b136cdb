"""Keys, their stores and links."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cdc_client.command.app import make_app
from service.access.keys import ApiKey, KeyStore, new_key, split_token
from service.access.links import Links
from service.access.stores import FileKeys, RedisKeys, store_of
from service.errors import KeysUnavailable, LinkExpired, LinkInvalid, LinksOff
from service.jobs.connection import connect

pytestmark = pytest.mark.anyio
SECRETS = ("first" * 8, "other" * 8)


def test_a_token_is_recognised_by_its_key_alone() -> None:
    key, token = new_key("ann", ("decode",), "10 / s", 2)
    other, _ = new_key("bob", ("decode", "encode"))
    parts = split_token(token)
    assert parts is not None
    assert parts[0] == key.id
    assert key.matches(parts[1])
    assert not other.matches(parts[1])
    assert not key.matches("")
    assert (key.scopes, key.rate, other.scopes) == (("decode",), "10/second", ("encode", "decode"))
    assert parts[1] not in repr(key)


@pytest.mark.parametrize("token", ["", "x", "cdc_", "cdc_a_b", "cdc_" + "0" * 12 + "_" + "é" * 43, "a" * 100_000])
def test_what_is_no_token(token: str) -> None:
    assert split_token(token) is None


@pytest.mark.parametrize(
    ("name", "scopes", "rate", "concurrency"),
    [
        ("", ("encode",), "", 0),
        ("a\nb", ("encode",), "", 0),
        ("a", ("admin",), "", 0),
        ("a", ("encode",), "10", 0),
        ("a", ("encode",), "0/s", 0),
        ("a", ("encode",), "1/fortnight", 0),
        ("a", ("encode",), "", -1),
    ],
)
def test_keys_that_cannot_be(name: str, scopes: tuple[str, ...], rate: str, concurrency: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own message
        new_key(name, scopes, rate, concurrency)


async def check_store(store: KeyStore, same: KeyStore) -> None:
    assert await store.all() == []
    assert await store.get("0" * 12) is None
    keys: list[ApiKey] = []
    for name in ("ann", "bob"):
        key, _ = new_key(name, ("encode", "decode"), "5/m", 3)
        await store.add(key)
        keys.append(key)
    assert await same.get(keys[0].id) == keys[0]
    assert {key.id for key in await same.all()} == {key.id for key in keys}
    assert await same.remove(keys[0].id)
    assert not await same.remove(keys[0].id)
    assert [key.id for key in await store.all()] == [keys[1].id]


async def test_keys_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "keys.json"
    await check_store(FileKeys(path), FileKeys(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("{")
    with pytest.raises(KeysUnavailable):
        await FileKeys(path).get("0" * 12)
    path.write_text(json.dumps({"keys": [{"id": "x"}]}))
    with pytest.raises(KeysUnavailable):
        await FileKeys(path).all()


async def test_a_revoked_key_is_forgotten_at_once_by_others(tmp_path: Path) -> None:
    serving, operator = FileKeys(tmp_path / "keys"), FileKeys(tmp_path / "keys")
    key, _ = new_key("ann", ("encode",))
    await operator.add(key)
    assert await serving.get(key.id) == key
    await operator.remove(key.id)
    assert await serving.get(key.id) is None


@pytest.mark.redis
async def test_keys_in_redis(redis_url: str) -> None:
    async with connect(redis_url) as redis:
        await redis.flushdb()
        now = [0.0]
        cached = RedisKeys(redis, lambda: now[0])
        await check_store(cached, RedisKeys(redis))
        key, _ = new_key("ann", ("encode",))
        await cached.add(key)
        assert await cached.get(key.id) == key
        await redis.delete("cdc:keys")
        assert await cached.get(key.id) == key
        now[0] = 2.1
        assert await cached.get(key.id) is None
        for number in range(10_050):
            cached._known[str(number)] = (0.0, None)
        await cached.get("0" * 12)
        assert len(cached._known) < 100
    async with connect("redis://127.0.0.1:9/0") as lost:
        with pytest.raises(KeysUnavailable):
            await RedisKeys(lost).get(key.id)
    with pytest.raises(KeysUnavailable):
        store_of("redis", None)


def test_the_command(tmp_path: Path) -> None:
    runner = CliRunner()
    place = ["--keys", str(tmp_path / "keys.json")]
    made = runner.invoke(make_app()[0], ["keys", "add", "web shop", "--scope", "decode", "--rate", "10/s", *place])
    assert made.exit_code == 0
    token = made.stdout.strip().splitlines()[-1]
    parts = split_token(token)
    assert parts is not None
    assert parts[1] not in (tmp_path / "keys.json").read_text()
    listed = runner.invoke(make_app()[0], ["keys", "list", *place]).output
    assert parts[0] in listed
    assert "web shop" in listed
    assert "10/second" in listed
    assert runner.invoke(make_app()[0], ["keys", "revoke", parts[0], *place]).exit_code == 0
    assert runner.invoke(make_app()[0], ["keys", "revoke", parts[0], *place]).exit_code == 1
    assert runner.invoke(make_app()[0], ["keys", "add", "a", "--rate", "often", *place]).exit_code == 2


def test_links_open_with_their_secret_until_they_end() -> None:
    now = [1000.0]
    links = Links(SECRETS[:1], lambda: now[0])
    token, expires = links.sign("job", 60)
    assert expires == 1060
    assert links.open(token) == "job"
    rotated = Links((SECRETS[1], SECRETS[0]), lambda: now[0])
    assert rotated.open(token) == "job"
    with pytest.raises(LinkInvalid):
        Links(SECRETS[1:], lambda: now[0]).open(token)
    now[0] = 1060
    with pytest.raises(LinkExpired):
        links.open(token)
    with pytest.raises(LinksOff):
        Links(()).sign("job", 1)
    with pytest.raises(LinkInvalid):
        Links(()).open(token)


def test_every_changed_character_breaks_a_link() -> None:
    links = Links(SECRETS)
    token, _ = links.sign("job", 60)
    for place in range(len(token) - 1):  # the last character has bits that stand for nothing
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(LinkInvalid):
            links.open(changed)
    for text in ("", ".", "a.b", "a.b.c", "é.é", "A" * 5000, token.split(".")[0], "." + token):
        with pytest.raises(LinkInvalid):
            links.open(text)


def test_a_link_tells_nothing_of_its_owner() -> None:
    """Without keys an owner is a hash of a token: whoever had it could try tokens against it."""
    token, _ = Links(SECRETS).sign("job", 60)
    payload = base64.urlsafe_b64decode(token.split(".")[0] + "==")
    assert json.loads(payload)[0] == "job"
    assert len(json.loads(payload)) == 2
