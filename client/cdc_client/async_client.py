"""The client for asyncio: the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from cdc_client import calls
from cdc_client.calls import Call, Caller, Pause, Request, Response
from cdc_client.config import ClientConfig, config_of
from cdc_client.errors import ApiError, CdcError, ConnectionFailed, WaitTimeout, error_of
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.records import Decoded, Encoded, Inspection, JobEvent, JobStatus, Link, Model
from cdc_client.sources import Source, read_source
from cdc_client.sse import EventReader

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio. Cancelling the task of a call cancels its work in the service within one step.

    >>> import asyncio
    >>> from cdc_client import AsyncClient
    >>> async def main():
    ...     async with AsyncClient(url) as cdc:
    ...         small = await cdc.encode(photo, quality=30)
    ...         return [picture.steps async for picture in cdc.decode_many([small.data] * 3, steps=1, gamma=0)]
    >>> asyncio.run(main())
    [1, 1, 1]
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Any,
    ) -> None:
        """See `Client`."""
        self.config: ClientConfig = config_of(base_url, api_key, **options)
        self._caller = Caller(self.config)
        timeout = httpx.Timeout(self.config.timeout_s, connect=self.config.connect_timeout_s)
        self._http = httpx.AsyncClient(timeout=timeout, transport=transport, headers=self._caller.headers())

    async def encode(self, image: Source, **options: Unpack[EncodeOptions]) -> Encoded:
        """See `Client.encode`."""
        request = calls.encode_request(await _read(image), options)
        return await self._drive(calls.work(self._caller, request, calls.encoded_in))

    async def decode(self, file: Source, **options: Unpack[DecodeOptions]) -> Decoded:
        """See `Client.decode`."""
        request = calls.decode_request(await _read(file), options)
        return await self._drive(calls.work(self._caller, request, calls.decoded_in))

    async def decode_many(
        self, files: Iterable[Source], *, concurrency: int = 8, **options: Unpack[DecodeOptions]
    ) -> AsyncIterator[Decoded]:
        """See `Client.decode_many`. Close the iterator (`aclose`) to cancel what is under way."""
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        pending: deque[asyncio.Task[Decoded]] = deque()
        try:
            for file in files:
                if len(pending) >= concurrency:
                    yield await pending.popleft()
                pending.append(asyncio.create_task(self.decode(file, **options)))
            while pending:
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def submit_encode(self, image: Source, **options: Unpack[EncodeOptions]) -> AsyncJob:
        """See `Client.submit_encode`."""
        return await self._submit(calls.encode_request(await _read(image), options))

    async def submit_decode(
        self, file: Source, *, previews: bool = False, **options: Unpack[DecodeOptions]
    ) -> AsyncJob:
        """See `Client.submit_decode`."""
        return await self._submit(calls.decode_request(await _read(file), options, previews=previews))

    async def job(self, id: str) -> AsyncJob:
        """See `Client.job`."""
        return AsyncJob(self, await self._drive(calls.wait(self._caller, id, 0)))

    async def inspect(self, file: Source) -> Inspection:
        """See `Client.inspect`."""
        request = calls.inspect_request(await _read(file))
        return calls.inspection_in(await self._drive(calls.exchange(self._caller, request)))

    async def models(self) -> tuple[Model, ...]:
        """See `Client.models`."""
        return calls.models_in(await self._drive(calls.exchange(self._caller, Request("GET", "/models"))))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _submit(self, request: Request) -> AsyncJob:
        return AsyncJob(self, await self._drive(calls.submit(self._caller, request)))

    async def _drive(self, call: Call[T]) -> T:
        outcome: Response | ConnectionFailed | None = None
        while True:
            try:
                action = call.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(action, Pause):
                await asyncio.sleep(action.seconds)
                outcome = None
            else:
                outcome = await self._send(action)

    async def _send(self, request: Request) -> Response | ConnectionFailed:
        try:
            answer = await self._http.send(self._http.build_request(**calls.arguments(self.config, request)))
        except httpx.TransportError as error:
            return ConnectionFailed(f"{request.method} {request.path}: {type(error).__name__}: {error}")
        return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)


class AsyncJob:
    """`Job` for asyncio: cancelling the task that waits for it or follows it cancels the job."""

    def __init__(self, client: AsyncClient, status: JobStatus) -> None:
        self._client = client
        self.status = status

    @property
    def id(self) -> str:
        """See `Job.id`."""
        return self.status.id

    async def refresh(self) -> JobStatus:
        """See `Job.refresh`."""
        self.status = await self._client._drive(calls.wait(self._client._caller, self.id, 0))
        return self.status

    async def wait(self, timeout_s: float | None = None) -> JobStatus:
        """See `Job.wait`."""
        try:
            self.status = await self._client._drive(calls.wait(self._client._caller, self.id, timeout_s))
        except asyncio.CancelledError:
            await self._give_up()
            raise
        if not self.status.ended:
            raise WaitTimeout(f"job {self.id} was not done within {timeout_s:g} s")
        return self.status

    async def result(self, timeout_s: float | None = None) -> Encoded | Decoded:
        """See `Job.result`."""
        status = await self.wait(timeout_s)
        return calls.file_in(await self._client._drive(calls.result(self._client._caller, status)))

    async def cancel(self) -> JobStatus:
        """See `Job.cancel`."""
        request = Request("DELETE", f"/jobs/{self.id}")
        self.status = calls.status_in(await self._client._drive(calls.exchange(self._client._caller, request)))
        return self.status

    async def link(self, ttl_s: int = 3600) -> Link:
        """See `Job.link`."""
        request = calls.link_request(self.id, ttl_s)
        return calls.link_in(await self._client._drive(calls.exchange(self._client._caller, request)))

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
            async with asyncio.timeout(self._client.config.connect_timeout_s):
                await asyncio.shield(asyncio.ensure_future(self.cancel()))


async def _read(source: Source) -> bytes:
    return source if isinstance(source, bytes) else await asyncio.to_thread(read_source, source)
