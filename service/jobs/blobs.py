"""Where the bytes of jobs lie: uploads, results and previews. Records and queues never hold them."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Protocol

import anyio.to_thread
from redis.asyncio import Redis

PREFIX = "cdc:blob:"


class BlobStore(Protocol):
    """Named bytes that vanish after a time. A blob is there whole or not at all."""

    async def put(self, name: str, data: bytes, ttl_s: float) -> None:
        """Write a blob, to be kept at least `ttl_s` seconds."""

    async def get(self, name: str) -> bytes | None:
        """Return the bytes, None where there are none."""

    async def delete(self, name: str) -> None:
        """Remove a blob if it is there."""

    async def sweep(self) -> None:
        """Remove what is past its time, where the store does not do so by itself."""


class RedisBlobs:
    """Blobs as Redis strings that expire by themselves."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def put(self, name: str, data: bytes, ttl_s: float) -> None:
        """See `BlobStore.put`."""
        await self._redis.set(PREFIX + name, data, px=max(1, round(1000 * ttl_s)))

    async def get(self, name: str) -> bytes | None:
        """See `BlobStore.get`."""
        data = await self._redis.get(PREFIX + name)
        return data if isinstance(data, bytes) else None

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""
        await self._redis.delete(PREFIX + name)

    async def sweep(self) -> None:
        """Redis does it."""


class FileBlobs:
    """Blobs as files of any fsspec file system: a shared folder, or an object store (`s3://bucket/prefix`).

    A blob's name on disk begins with the second it expires at, so that a sweep needs no index. Writes go to the final
    name in one piece: object stores do so by nature, for folders fsspec renames a finished file.
    """

    def __init__(self, url: str, **options: Any) -> None:
        """`options` go to the file system. Needs the extra `s3` for object stores."""
        import fsspec

        self._files, self._root = fsspec.core.url_to_fs(url, **options)
        self._root = self._root.rstrip("/")

    async def put(self, name: str, data: bytes, ttl_s: float) -> None:
        """See `BlobStore.put`."""
        until = int(time.time() + ttl_s) + 1

        def write() -> None:
            folder = f"{self._root}/{name}"
            self._files.makedirs(folder, exist_ok=True)
            with self._files.transaction, self._files.open(f"{folder}/{until}", "wb") as file:
                file.write(data)

        await anyio.to_thread.run_sync(write)

    async def get(self, name: str) -> bytes | None:
        """See `BlobStore.get`."""

        def read() -> bytes | None:
            for path in self._versions(name):
                if int(path.rsplit("/", 1)[1]) > time.time():
                    with contextlib.suppress(FileNotFoundError):
                        data: bytes = self._files.cat_file(path)
                        return data
            return None

        return await anyio.to_thread.run_sync(read)

    async def delete(self, name: str) -> None:
        """See `BlobStore.delete`."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm(f"{self._root}/{name}", recursive=True)

        await anyio.to_thread.run_sync(remove)

    async def sweep(self) -> None:
        """See `BlobStore.sweep`."""

        def remove() -> None:
            for path in self._files.find(self._root):
                until = path.rsplit("/", 1)[1]
                if until.isdecimal() and int(until) <= time.time():
                    with contextlib.suppress(FileNotFoundError):
                        self._files.rm_file(path)

        await anyio.to_thread.run_sync(remove)

    def _versions(self, name: str) -> list[str]:
        """Files of a blob, the latest to expire first; a list fresh from the store."""
        self._files.invalidate_cache()
        with contextlib.suppress(FileNotFoundError):
            paths: list[str] = self._files.ls(f"{self._root}/{name}", detail=False)
            return sorted((p for p in paths if p.rsplit("/", 1)[1].isdecimal()), reverse=True)
        return []


def store_of(url: str, redis: Redis) -> BlobStore:
    """Return the blob store of `CDC_BLOBS_URL`: "redis", or the address of an fsspec file system."""
    return RedisBlobs(redis) if url == "redis" else FileBlobs(url)
