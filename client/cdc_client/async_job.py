"""A job as the client for asyncio sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from cdc_client import answers, calls
from cdc_client.calls import Request
from cdc_client.errors import ApiError, CdcError, ConnectionFailed, WaitTimeout, error_of
from cdc_client.records import Decoded, Encoded, JobEvent, JobStatus, Link
from cdc_client.sse import EventReader

if TYPE_CHECKING:
    from cdc_client.async_client import AsyncClient


class AsyncJob:
    """`Job` for asyncio: cancelling the task that waits for it or follows it cancels the job."""

    def __init__(self, client: AsyncClient, status: JobStatus) -> None:
        self._client = client
        self.status = status

    def __repr__(self) -> str:
        return calls.shown("AsyncJob", self.status)

    @property
    def id(self) -> str:
        """See `Job.id`."""
        return self.status.id

    async def refresh(self) -> JobStatus:
        """See `Job.refresh`."""
        self.status = await self._client._drive(calls.wait(self._client._caller, self.id, 0))
        return self.status

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """See `Job.wait`."""
        try:
            self.status = await self._client._drive(calls.wait(self._client._caller, self.id, timeout))
        except asyncio.CancelledError:
            await self._give_up()
            raise
        if not self.status.ended:
            raise WaitTimeout(f"job {self.id} was not done within {timeout:g} s")
        return self.status

    async def result(self, timeout: float | None = None, *, out: str | Path | None = None) -> Encoded | Decoded:
        """See `Job.result`."""
        status = await self.wait(timeout)
        return answers.file_in(
            await self._client._drive(calls.result(self._client._caller, status, calls.file_of(out)))
        )

    async def cancel(self) -> JobStatus:
        """See `Job.cancel`."""
        request = Request("DELETE", f"/jobs/{self.id}")
        self.status = answers.status_in(await self._client._drive(calls.exchange(self._client._caller, request)))
        return self.status

    async def link(self, ttl_s: int = 3600) -> Link:
        """See `Job.link`."""
        request = calls.link_request(self.id, ttl_s)
        return answers.link_in(await self._client._drive(calls.exchange(self._client._caller, request)))

    async def events(self) -> AsyncIterator[JobEvent]:
        """See `Job.events`. Cancelling the task that follows it cancels the job; leaving the loop does not."""
        client, reader, tried = self._client, EventReader(), 0
        while True:
            try:
                request = calls.events_request(self.id, reader.last_id)
                built = client._http.build_request(**calls.arguments(client.config, request))
                answer = await client._http.send(built, stream=True)
                async with contextlib.aclosing(answer):
                    if answer.status_code != 200:
                        raise error_of(answer.status_code, await answer.aread(), answer.headers)
                    async for line in answer.aiter_lines():
                        if (event := reader.feed(line)) is None:
                            continue
                        tried = 0
                        self.status = event.status or self.status
                        yield event
                        if event.status is not None and event.status.ended:
                            return
                failure: CdcError = ConnectionFailed("the events ended before the job")
            except httpx.TransportError as error:
                failure = ConnectionFailed(f"{type(error).__name__}: {error}")
            except ApiError as error:
                if calls.is_final(error):
                    raise
                failure = error
            except asyncio.CancelledError:
                await self._give_up()
                raise
            if tried >= client.config.max_retries:
                raise failure
            reader.restart()
            await asyncio.sleep(calls.backoff(client.config, tried))
            tried += 1

    async def _give_up(self) -> None:
        """Cancel the job although this task is being cancelled itself."""
        with contextlib.suppress(CdcError, TimeoutError):
            async with asyncio.timeout(self._client.config.connect_timeout):
                await asyncio.shield(asyncio.ensure_future(self.cancel()))
