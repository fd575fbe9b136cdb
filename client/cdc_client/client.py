"""The blocking client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload

import httpx

from cdc_client import answers, calls
from cdc_client.answers import Response
from cdc_client.calls import Call, Caller, Gate, Pause, Request
from cdc_client.config import ClientConfig, ClientOptions, config_of
from cdc_client.errors import ConnectionFailed
from cdc_client.job import Job
from cdc_client.many import ITEM_ERRORS, Progress, in_order
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.records import Decoded, Encoded, Inspection, JobStatus, Model
from cdc_client.saving import FileSink
from cdc_client.sources import Source, read_source
from cdc_client.tracing import client_span

T = TypeVar("T")


class Client:
    """Talks to a CDC service. Threads may share one; it holds a connection pool, so close it or use `with`.

    Every call tries again what may pass (no connection, 429, 502, 503), obeying `Retry-After`, and raises a `CdcError`
    (see `cdc_client.errors`) otherwise. Interrupting a call cancels its work in the service within one step.

    `timeout` of a call is in seconds without a byte of an answer; None: the client's own. `out` is a file that the
    result is written to as it comes, without being held in memory: whole, checked, or not at all.

    >>> from cdc_client import Client
    >>> with Client(url) as cdc:
    ...     small = cdc.encode(photo, quality=50)
    ...     image = cdc.decode(small.data, steps=1)
    >>> small.media_type, image.media_type
    ('image/x-cdc', 'image/png')
    >>> image.width == small.width, small.bpp < 8
    (True, True)
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """
        Args:
            base_url: of the service; None: the variable CDC_URL, else http://127.0.0.1:8000.
            api_key: None: the variable CDC_API_KEY, else none.
            transport: replaces the network, for tests.
            options: see `ClientConfig`.

        Raises:
            ValueError: an option out of range.
        """
        self.config: ClientConfig = config_of(base_url, api_key, options)
        self._gate = Gate()
        self._http = httpx.Client(transport=transport)

    def __repr__(self) -> str:
        return f"Client({self.config.base_url!r})"

    def with_options(self, **options: Unpack[ClientOptions]) -> Self:
        """Return a client that differs in these options. It shares the connections, which end with either.

        >>> from cdc_client import Client
        >>> with Client(url) as cdc:
        ...     cdc.with_options(timeout=20, max_retries=0).models()[0].name
        'cdc-lite'
        """
        other = copy(self)
        other.config = replace(self.config, **options)
        return other

    def encode(
        self,
        image: Source,
        *,
        out: str | Path | None = None,
        timeout: float | None = None,
        **options: Unpack[EncodeOptions],
    ) -> Encoded:
        """Compress an image: a path, bytes, an open file, an https:// address, a PIL image or a numpy array.

        Files may be PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM; see `cdc_client.sources.read_source`.

        Raises:
            CdcError: see `cdc_client.errors`.
            OSError: the file cannot be read, or `out` not be written.
            TypeError, ValueError: an array of another type or shape; a source of another kind.
        """
        client = self._within(timeout)
        request = calls.encode_request(read_source(image, self.config), options, calls.file_of(out))
        return client._drive(calls.work(client._caller, request, answers.encoded_in))

    def decode(
        self,
        file: Source,
        *,
        out: str | Path | None = None,
        timeout: float | None = None,
        **options: Unpack[DecodeOptions],
    ) -> Decoded:
        """Decode a `.cdc` file, given as path, bytes, open file or https:// address, into an image file.

        Its format is `format`, else by the ending of `out`, else PNG.

        Raises:
            CdcError: see `cdc_client.errors`.
            OSError: the file cannot be read, or `out` not be written.
        """
        client = self._within(timeout)
        request = calls.decode_request(read_source(file, self.config), options, out=calls.file_of(out))
        return client._drive(calls.work(client._caller, request, answers.decoded_in))

    @overload
    def encode_many(
        self,
        images: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[False] = ...,
        **options: Unpack[EncodeOptions],
    ) -> Iterator[Encoded]: ...

    @overload
    def encode_many(
        self,
        images: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[True],
        **options: Unpack[EncodeOptions],
    ) -> Iterator[Encoded | Exception]: ...

    def encode_many(
        self,
        images: Iterable[Source],
        *,
        concurrency: int = 8,
        progress: Progress | None = None,
        return_errors: bool = False,
        **options: Unpack[EncodeOptions],
    ) -> Iterator[Encoded | Exception]:
        """Compress images side by side; yields files in the order of the images, which are read as needed.

        At most `concurrency` are under way; a 429 holds all of them back for as long as the service wants.

        Args:
            images: any number of them.
            concurrency: how many calls at the same time, at least 1.
            progress: called after each image with the number done and, where `images` has a length, that.
            return_errors: an error takes the place of its image and the others go on; else it is raised and ends
                the iteration.
            options: of `encode`.

        >>> from cdc_client import Client
        >>> with Client(url) as cdc:
        ...     files = cdc.encode_many([photo, b"no image"], return_errors=True, progress=print)
        ...     [type(file).__name__ for file in files]
        1 2
        2 2
        ['Encoded', 'Unusable']
        """
        yield from self._many(lambda image: self.encode(image, **options), images, concurrency, progress, return_errors)

    @overload
    def decode_many(
        self,
        files: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[False] = ...,
        **options: Unpack[DecodeOptions],
    ) -> Iterator[Decoded]: ...

    @overload
    def decode_many(
        self,
        files: Iterable[Source],
        *,
        concurrency: int = ...,
        progress: Progress | None = ...,
        return_errors: Literal[True],
        **options: Unpack[DecodeOptions],
    ) -> Iterator[Decoded | Exception]: ...

    def decode_many(
        self,
        files: Iterable[Source],
        *,
        concurrency: int = 8,
        progress: Progress | None = None,
        return_errors: bool = False,
        **options: Unpack[DecodeOptions],
    ) -> Iterator[Decoded | Exception]:
        """Decode `.cdc` files side by side, as `encode_many` encodes images. `options` are those of `decode`."""
        yield from self._many(lambda file: self.decode(file, **options), files, concurrency, progress, return_errors)

    def submit_encode(self, image: Source, **options: Unpack[EncodeOptions]) -> Job:
        """Hand an encode over as a job."""
        return self._submit(calls.encode_request(read_source(image, self.config), options))

    def submit_decode(self, file: Source, *, previews: bool = False, **options: Unpack[DecodeOptions]) -> Job:
        """Hand a decode over as a job; `previews` sends the image of each step as an event.

        >>> from cdc_client import Client
        >>> with Client(url) as cdc:
        ...     job = cdc.submit_decode(cdc.encode(photo).data, steps=3, previews=True)
        ...     steps = [event.step for event in job.events() if event.type == "progress"]
        ...     image = job.result()
        >>> steps[-1], image.steps
        (3, 3)
        """
        return self._submit(calls.decode_request(read_source(file, self.config), options, previews=previews))

    def job(self, id: str) -> Job:
        """Return a job by its id, as of another process. Raises NotFound, Gone."""
        return Job(self, self._drive(calls.wait(self._caller, id, 0)))

    def jobs(self) -> Iterator[JobStatus]:
        """Yield the jobs that were sent with this client's key, the newest first, as they stand. Needs a key."""
        after: str | None = None
        while True:
            found, after = self._drive(calls.page(self._caller, after))
            yield from found
            if after is None:
                return

    def inspect(self, file: Source, *, timeout: float | None = None) -> Inspection:
        """Say what a `.cdc` file is, without decoding it."""
        client = self._within(timeout)
        request = calls.inspect_request(read_source(file, self.config))
        return answers.inspection_in(client._drive(calls.exchange(client._caller, request)))

    def models(self, *, timeout: float | None = None) -> tuple[Model, ...]:
        """Return the installed models, the default first."""
        client = self._within(timeout)
        return answers.models_in(client._drive(calls.exchange(client._caller, Request("GET", "/models"))))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def _caller(self) -> Caller:
        return Caller(self.config, self._gate)

    def _within(self, timeout: float | None) -> Self:
        return self if timeout is None else self.with_options(timeout=timeout)

    def _many(
        self,
        work: Callable[[Source], T],
        sources: Iterable[Source],
        concurrency: int,
        progress: Progress | None,
        return_errors: bool,
    ) -> Iterator[T | Exception]:
        total = len(sources) if isinstance(sources, Sized) else None
        for done, future in enumerate(in_order(work, sources, concurrency), 1):
            error = future.exception()
            if error is not None and not (return_errors and isinstance(error, ITEM_ERRORS)):
                raise error
            if progress is not None:
                progress(done, total)
            yield future.result() if error is None else error

    def _submit(self, request: Request) -> Job:
        return Job(self, self._drive(calls.submit(self._caller, request)))

    def _drive(self, call: Call[T]) -> T:
        outcome: Response | ConnectionFailed | None = None
        while True:
            try:
                action = call.send(outcome)
            except StopIteration as end:
                result: T = end.value
                return result
            if isinstance(action, Pause):
                time.sleep(action.seconds)
                outcome = None
            else:
                outcome = self._send(action)

    def _send(self, request: Request) -> Response | ConnectionFailed:
        try:
            with (
                client_span(request.method, request.path) as more,
                self._http.stream(**calls.arguments(self.config, request, more)) as answer,
            ):
                headers = calls.headers_in(answer.headers)
                if request.out is None or answer.status_code != 200:
                    return Response(answer.status_code, headers, answer.read())
                with FileSink(request.out, headers.get("etag", "")) as sink:
                    for chunk in answer.iter_bytes():
                        sink.write(chunk)
                return Response(answer.status_code, headers, request.out)
        except httpx.TransportError as error:
            return calls.failed(request, error)
        except ConnectionFailed as error:
            return error
