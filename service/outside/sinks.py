"""`result=`: where a line of a batch has its result put."""

from __future__ import annotations

import anyio.to_thread

from service.errors import AddressNotAllowed, OutsideFailed
from service.outside.fetching import object_path
from service.outside.http import OutsideClient, Rules
from service.settings import Settings

MAX_ANSWER = 1 << 16


class Sinks:
    """Puts results to presigned addresses (by PUT) or into buckets, within what the operator allows."""

    def __init__(self, client: OutsideClient, buckets: tuple[str, ...], seconds: float) -> None:
        """`buckets`: `bucket` or `bucket/prefix`, written with the service's own credentials."""
        self._client = client
        self._buckets = buckets
        self._seconds = seconds

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def check(self, target: str) -> None:
        """Raise AddressNotAllowed for what is refused by its looks."""
        if target.startswith("s3://"):
            object_path(target, self._buckets)
        else:
            self._client.rules.check(target)

    async def put(self, target: str, data: bytes, media_type: str) -> None:
        """Write a result; twice is as good as once.

        Raises:
            AddressNotAllowed, OutsideFailed: as `Sources.read`.
        """
        if not target.startswith("s3://"):
            headers = {"Content-Type": media_type}
            await self._client.send(
                "PUT", target, headers=headers, body=data, max_bytes=MAX_ANSWER, seconds=self._seconds, redirects=0
            )
            return
        path = object_path(target, self._buckets)

        def write() -> None:
            import fsspec

            with fsspec.open(f"s3://{path}", "wb") as file:
                file.write(data)

        try:
            with anyio.fail_after(self._seconds):
                await anyio.to_thread.run_sync(write, abandon_on_cancel=True)
        except TimeoutError:
            raise OutsideFailed(f"the object was not written within {self._seconds:g} seconds") from None
        except AddressNotAllowed:
            raise
        except Exception as error:  # each store has errors of its own kinds
            raise OutsideFailed(f"the object cannot be written ({type(error).__name__})") from None


def sinks_of(settings: Settings) -> Sinks:
    """What the settings allow."""
    client = OutsideClient(Rules(settings.sink_hosts, settings.private_addresses))
    return Sinks(client, settings.sink_buckets, settings.body_timeout_s)
