"""Blob stores: Redis, a folder, an object store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from service.errors import QueueUnavailable
from service.jobs.blobs import BlobStore, FileBlobs, RedisBlobs, store_of
from service.jobs.connection import connect
from service.jobs.limits import JobLimits
from service.jobs.queue import Enqueuer
from service.jobs.redis import RedisStore
from service.jobs.service import Jobs
from tests.programs import need
from tests.service.conftest import BUCKET, Clock
from tests.service.jobs.conftest import FakeExecutor, jobs_of, work_of
from tests.service.jobs.redis_server import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[
        "folder",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("s3", marks=pytest.mark.slow),
    ]
)
async def blobs(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[BlobStore]:
    if request.param == "folder":
        yield FileBlobs(str(tmp_path), clock)
    elif request.param == "s3":
        yield FileBlobs(f"s3://{BUCKET}/jobs", clock, **request.getfixturevalue("s3"))
    else:
        async with connect(request.getfixturevalue("redis_url")) as redis:
            yield RedisBlobs(redis)


async def test_a_blob_is_kept_and_removed(blobs: BlobStore) -> None:
    assert await blobs.get("result/one/1") is None
    await blobs.put("result/one/1", b"\0abc" * 1000, 60)
    await blobs.put("result/one/2", b"other", 60)
    assert await blobs.get("result/one/1") == b"\0abc" * 1000
    await blobs.delete("result/one/1")
    await blobs.delete("result/one/1")
    assert await blobs.get("result/one/1") is None
    assert await blobs.get("result/one/2") == b"other"


async def test_a_blob_is_replaced_whole(blobs: BlobStore, clock: Clock) -> None:
    await blobs.put("body/x", b"first", 60)
    clock.now += 1.1  # another second is in another file's name
    await blobs.put("body/x", b"second", 60)
    assert await blobs.get("body/x") == b"second"


async def test_puts_at_the_same_time_are_each_of_one_piece(blobs: BlobStore) -> None:
    """200 at once, half of them to one name: none raises, and what is read was written by one of them."""
    bodies = [bytes([number]) * 20_000 for number in range(200)]
    names = [f"body/{number}" if number % 2 else "body/same" for number in range(200)]
    pairs = list(zip(names, bodies, strict=True))
    await asyncio.gather(*(blobs.put(name, body, 60) for name, body in pairs))
    for name, body in pairs[1::2]:
        assert await blobs.get(name) == body
    assert await blobs.get("body/same") in bodies[::2]


async def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    blobs = FileBlobs(str(tmp_path))
    left = tmp_path / "body" / "e" / "1.part-00"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert await blobs.get("body/e") is None
    await blobs.sweep()
    assert not left.exists()


async def test_a_blob_expires(blobs: BlobStore, clock: Clock) -> None:
    await blobs.put("body/y", b"soon gone", 0.1)
    await blobs.put("body/z", b"stays", 60)
    clock.now += 2.1
    if isinstance(blobs, RedisBlobs):
        await asyncio.sleep(0.2)  # whose clock is its own
    assert await blobs.get("body/y") is None
    await blobs.sweep()
    assert await blobs.get("body/z") == b"stays"


async def test_a_sweep_removes_the_files(tmp_path: Path, clock: Clock) -> None:
    blobs = FileBlobs(str(tmp_path), clock)
    await blobs.put("body/y", b"soon gone", 0.0)
    await blobs.put("body/z", b"stays", 60)
    clock.now += 1.1
    await blobs.sweep()
    files = [p.parent.name for p in tmp_path.rglob("*") if p.is_file()]
    assert files == ["z"]


def test_the_address_chooses_the_store(tmp_path: Path) -> None:
    redis = connect("redis://127.0.0.1:1")
    assert isinstance(store_of("redis", redis), RedisBlobs)
    assert isinstance(store_of(str(tmp_path), redis), FileBlobs)


async def submit_all(jobs: Jobs, bodies: Iterable[bytes]) -> None:
    for body in bodies:
        await jobs.submit(work_of(body), "ann")


@pytest.mark.redis
async def test_a_full_redis_refuses_whole_jobs_and_recovers(tmp_path: Path) -> None:
    need("redis-server")
    server = RedisServer(tmp_path, "--maxmemory", "8mb", "--maxmemory-policy", "noeviction")
    server.start()
    try:
        async with connect(server.url) as redis:
            jobs = jobs_of(RedisStore(redis, Enqueuer(server.url), RedisBlobs(redis)), FakeExecutor(), JobLimits())
            await jobs.start()
            bodies = (bytes([number]) * (1 << 20) for number in range(20))
            with pytest.raises(QueueUnavailable):
                await submit_all(jobs, bodies)
            before = await redis.keys("cdc:*")
            with pytest.raises(QueueUnavailable):
                await jobs.submit(work_of(b"x" * (1 << 20)), "ann")
            assert sorted(await redis.keys("cdc:*")) == sorted(before)  # nothing half-written
            for key in await redis.keys("cdc:blob:*"):
                await redis.delete(key)
            await jobs.submit(work_of(b"x" * (1 << 20)), "ann")
            await jobs.stop(0)
    finally:
        server.stop()
