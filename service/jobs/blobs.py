"""Where the bytes of jobs lie: uploads, results and previews. Records and queues never hold them."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
from redis.asyncio import Redis

PREFIX = "cdc:blob:"
PART = ".part-"


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

    A file is named for the second its blob expires at, so that a sweep needs no index. It appears in one piece: object
    stores do so by nature; in a folder it is written under another name beside it, and renamed.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time, **options: Any) -> None:
        """`options` go to the file system. Needs the extra `s3` for object stores."""
        self._clock = clock
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        self._files, self._root = fsspec.core.url_to_fs(url, **options)
        self._root = self._root.rstrip("/")
        self._is_folder = isinstance(self._files, LocalFileSystem)

    async def put(self, name: str, data: bytes, ttl_s: float) -> None:
        """See `BlobStore.put`."""
        until = int(self._clock() + ttl_s) + 1

        def write() -> None:
            path = f"{self._root}/{name}/{until}"
            if not self._is_folder:
                self._files.pipe_file(path, data)
                return
            part = Path(f"{path}{PART}{secrets.token_hex(8)}")
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            part.replace(path)

        await anyio.to_thread.run_sync(write)

    async def get(self, name: str) -> bytes | None:
        """See `BlobStore.get`."""

        def read() -> bytes | None:
            for path in self._versions(name):
                if int(path.rsplit("/", 1)[1]) > self._clock():
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
                until = path.rsplit("/", 1)[1].split(PART)[0]  # parts too: of writers that were killed
                if until.isdecimal() and int(until) <= self._clock():
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
