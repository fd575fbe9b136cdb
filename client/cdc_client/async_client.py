"""The client for asyncio: the same calls as `Client`, awaited."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sized
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, overload

import httpx

from cdc_client import answers, calls
from cdc_client.answers import Response
from cdc_client.async_job import AsyncJob
from cdc_client.calls import Call, Caller, Gate, Pause, Request
from cdc_client.config import ClientConfig, ClientOptions, config_of
from cdc_client.errors import ConnectionFailed
from cdc_client.many import ITEM_ERRORS, Progress
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.records import Decoded, Encoded, Inspection, JobStatus, Model
from cdc_client.saving import FileSink
from cdc_client.sources import Body, Source, read_source
from cdc_client.tracing import client_span

T = TypeVar("T")


class AsyncClient:
    """`Client` for asyncio. Cancelling the task of a call cancels its work in the service within one step.

    >>> import asyncio
    >>> from cdc_client import AsyncClient
    >>> async def main():
    ...     async with AsyncClient(url) as cdc:
    ...         small = await cdc.encode(photo, quality=30)
    ...         return [image.steps async for image in cdc.decode_many([small.data] * 3, steps=1, gamma=0)]
    >>> asyncio.run(main())
    [1, 1, 1]
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """See `Client`."""
        self.config: ClientConfig = config_of(base_url, api_key, options)
        self._gate = Gate()
        self._http = httpx.AsyncClient(transport=transport)

    def __repr__(self) -> str:
        return f"AsyncClient({self.config.base_url!r})"

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """See `Client.with_options`."""
        other = copy(self)
        other.config = replace(self.config, **options)
        return other

    async def encode(
        self,
        image: Source,
        *,
        out: str | Path | None = None,
        timeout: float | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Encoded:
        """See `Client.encode`."""
        client = self._within(timeout)
        request = calls.encode_request(await self._read(image), options, calls.file_of(out))
        return await client._drive(calls.work(client._caller, request, answers.encoded_in))

    async def decode(
        self,
        file: Source,
        *,
        out: str | Path | None = None,
        timeout: float | None = None,
        **options: Unpack[DecodeOptions],
    ) -> Decoded:
        """See `Client.decode`."""
        client = self._within(timeout)
        request = calls.decode_request(await self._read(file), options, out=calls.file_of(out))
        return await client._drive(calls.work(client._caller, request, answers.decoded_in))

    @overload
    def encode_many(
        self,
        images: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[False] = ...,
        **options: Unpack[EncodeOptions],
    ) -> AsyncGenerator[Encoded]: ...

    @overload
    def encode_many(
        self,
        images: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[True],
        **options: Unpack[EncodeOptions],
    ) -> AsyncGenerator[Encoded | Exception]: ...

    async def encode_many(
        self,
        images: Iterable[Source],
        *,
        concurrency: int = 8,
        progress: Progress | None = None,
        return_errors: bool = False,
        **options: Unpack[EncodeOptions],
    ) -> AsyncGenerator[Encoded | Exception]:
        """See `Client.encode_many`. Close the iterator (`aclose`) to cancel what is under way."""
        many = self._many(lambda source: self.encode(source, **options), images, concurrency, progress, return_errors)
        async with contextlib.aclosing(many):
            async for made in many:
                yield made

    @overload
    def decode_many(
        self,
        files: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[False] = ...,
        **options: Unpack[DecodeOptions],
    ) -> AsyncGenerator[Decoded]: ...

    @overload
    def decode_many(
        self,
        files: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[True],
        **options: Unpack[DecodeOptions],
    ) -> AsyncGenerator[Decoded | Exception]: ...

    async def decode_many(
        self,
        files: Iterable[Source],
        *,
        concurrency: int = 8,
        progress: Progress | None = None,
        return_errors: bool = False,
        **options: Unpack[DecodeOptions],
    ) -> AsyncGenerator[Decoded | Exception]:
        """See `Client.decode_many`. Close the iterator (`aclose`) to cancel what is under way."""
        many = self._many(lambda source: self.decode(source, **options), files, concurrency, progress, return_errors)
        async with contextlib.aclosing(many):
            async for made in many:
                yield made

    async def submit_encode(self, image: Source, **options: Unpack[EncodeOptions]) -> AsyncJob:
        """See `Client.submit_encode`."""
        return await self._submit(calls.encode_request(await self._read(image), options))

    async def submit_decode(
        self, file: Source, *, previews: bool = False, **options: Unpack[DecodeOptions]
    ) -> AsyncJob:
        """See `Client.submit_decode`."""
        return await self._submit(calls.decode_request(await self._read(file), options, previews=previews))

    async def job(self, id: str) -> AsyncJob:
        """See `Client.job`."""
        return AsyncJob(self, await self._drive(calls.wait(self._caller, id, 0)))

    async def jobs(self) -> AsyncGenerator[JobStatus, None]:
        """See `Client.jobs`."""
        after: str | None = None
        while True:
            found, after = await self._drive(calls.page(self._caller, after))
            for status in found:
                yield status
            if after is None:
                return

    async def inspect(self, file: Source, *, timeout: float | None = None) -> Inspection:
        """See `Client.inspect`."""
        client = self._within(timeout)
        request = calls.inspect_request(await self._read(file))
        return answers.inspection_in(await client._drive(calls.exchange(client._caller, request)))

    async def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """See `Client.models`."""
        client = self._within(timeout)
        return answers.models_in(await client._drive(calls.exchange(client._caller, Request("GET", "/models"))))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def _caller(self) -> Caller:
        return Caller(self.config, self._gate)

    def _within(self, timeout: float | None) -> Self:
        return self if timeout is None else self.with_options(timeout=timeout)

    async def _read(self, source: Source) -> Body:
        return source if isinstance(source, bytes) else await asyncio.to_thread(read_source, source, self.config)

    async def _many(
        self,
        work: Callable[[Source], Coroutine[Any, Any, T]],
        sources: Iterable[Source],
        concurrency: int,
        progress: Progress | None,
        return_errors: bool,
    ) -> AsyncGenerator[T | Exception]:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        total, done = len(sources) if isinstance(sources, Sized) else None, 0
        left = iter(sources)
        pending: deque[asyncio.Task[T]] = deque()
        try:
            while True:
                pending.extend(asyncio.create_task(work(source)) for source in islice(left, concurrency - len(pending)))
                if not pending:
                    return
                outcome: T | Exception
                try:
                    outcome = await pending.popleft()
                except ITEM_ERRORS as error:
                    if not return_errors:
                        raise
                    outcome = error
                done += 1
                if progress is not None:
                    progress(done, total)
                yield outcome
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

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
            with client_span(request.method, request.path) as more:
                async with self._http.stream(**calls.arguments(self.config, request, more)) as answer:
                    headers = calls.headers_in(answer.headers)
                    if request.out is None or answer.status_code != 200:
                        return Response(answer.status_code, headers, await answer.aread())
                    with FileSink(request.out, headers.get("etag", "")) as sink:
                        async for chunk in answer.aiter_bytes():
                            await asyncio.to_thread(sink.write, chunk)
                    return Response(answer.status_code, headers, request.out)
        except httpx.TransportError as error:
            return calls.failed(request, error)
        except ConnectionFailed as error:
            return error
