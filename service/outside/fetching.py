"""`source=`: the file that a request names instead of sending it."""

from __future__ import annotations

import re

import anyio.to_thread

from service.errors import AddressNotAllowed, OutsideFailed
from service.outside.http import OutsideClient, Rules
from service.settings import Settings

SOURCE_PATTERN = r"^(?:https?|s3)://[!-~]{1,2040}$"
_OBJECT = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([!-~]{1,1024})")


class Sources:
    """Reads what callers name, within what the operator allows."""

    def __init__(self, client: OutsideClient, buckets: tuple[str, ...], max_bytes: int, seconds: float) -> None:
        """
        Args:
            client: with the hosts that are allowed.
            buckets: `bucket` or `bucket/prefix/` that is allowed, read with the service's own credentials.
            max_bytes, seconds: of one file.
        """
        self._client = client
        self._buckets = buckets
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._concurrent = anyio.CapacityLimiter(8)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def check(self, source: str) -> None:
        """Raise AddressNotAllowed for what is refused by its looks."""
        if source.startswith("s3://"):
            object_path(source, self._buckets)
        else:
            self._client.rules.check(source)

    async def read(self, source: str) -> bytes:
        """Return a file.

        Raises:
            AddressNotAllowed: not among what is allowed, or it leads elsewhere.
            OutsideFailed: not reached, not found, or too large.
        """
        async with self._concurrent:
            if source.startswith("s3://"):
                return await self._read_object(source)
            answer = await self._client.send("GET", source, max_bytes=self._max_bytes, seconds=self._seconds)
            return answer.body

    async def _read_object(self, source: str) -> bytes:
        path = object_path(source, self._buckets)

        def read() -> bytes:
            import fsspec

            with fsspec.open(f"s3://{path}", "rb") as file:
                data: bytes = file.read(self._max_bytes + 1)
                return data

        try:
            with anyio.fail_after(self._seconds):
                data = await anyio.to_thread.run_sync(read, abandon_on_cancel=True)
        except TimeoutError:
            raise OutsideFailed(f"the object was not read within {self._seconds:g} seconds") from None
        except Exception as error:  # each store has errors of its own kinds
            raise OutsideFailed(f"the object cannot be read ({type(error).__name__})") from None
        if len(data) > self._max_bytes:
            raise OutsideFailed(f"the object has more than {self._max_bytes} bytes")
        return data


def object_path(address: str, buckets: tuple[str, ...]) -> str:
    """s3://BUCKET/KEY -> BUCKET/KEY. Raises AddressNotAllowed where that is not in one of the buckets or prefixes."""
    found = _OBJECT.fullmatch(address)
    # fsspec chains addresses at "::", and would open another object than the one that was checked.
    if found is None or "::" in address or ".." in address.split("/"):
        raise AddressNotAllowed("an object is s3://BUCKET/KEY")
    path = f"{found[1]}/{found[2]}"
    if not any(path.startswith(allowed.rstrip("/") + "/") for allowed in buckets):
        raise AddressNotAllowed("the bucket is not among those that this service uses")
    return path


def sources_of(settings: Settings) -> Sources:
    """What the settings allow."""
    client = OutsideClient(Rules(settings.source_hosts, settings.private_addresses))
    return Sources(client, settings.source_buckets, settings.max_body_bytes, settings.body_timeout_s)
