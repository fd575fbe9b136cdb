"""The blocking client."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
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


class Client:
    """Talks to a CDC service. Threads may share one; it holds a connection pool, so close it or use `with`.

    Every call tries again what may pass (no connection, 429, 502, 503), obeying `Retry-After`, and raises a `CdcError`
    (see `cdc_client.errors`) otherwise. Interrupting a call cancels its work in the service within one step.

    >>> from cdc_client import Client
    >>> with Client(url) as cdc:
    ...     small = cdc.encode(photo, quality=50)
    ...     picture = cdc.decode(small.data, steps=4)
    >>> small.media_type, picture.media_type
    ('image/x-cdc', 'image/png')
    >>> picture.width == small.width, small.bpp < 8
    (True, True)
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        **options: Any,
    ) -> None:
        """
        Args:
            base_url: of the service; None: the variable CDC_URL, else http://127.0.0.1:8000.
            api_key: None: the variable CDC_API_KEY, else none.
            transport: replaces the network, for tests.
            options: the other fields of `ClientConfig`.

        Raises:
            ValueError: an option out of range.
        """
        self.config: ClientConfig = config_of(base_url, api_key, **options)
        self._caller = Caller(self.config)
        timeout = httpx.Timeout(self.config.timeout_s, connect=self.config.connect_timeout_s)
        self._http = httpx.Client(timeout=timeout, transport=transport, headers=self._caller.headers())

    def encode(self, image: Source, **options: Unpack[EncodeOptions]) -> Encoded:
        """Compress an image file: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or PPM, as bytes, path or open file.

        Raises:
            CdcError: see `cdc_client.errors`.
            OSError: the file cannot be read.
        """
        request = calls.encode_request(read_source(image), options)
        return self._drive(calls.work(self._caller, request, calls.encoded_in))

    def decode(self, file: Source, **options: Unpack[DecodeOptions]) -> Decoded:
        """Decode a `.cdc` file, given as bytes, path or open file, into an image file.

        Raises:
            CdcError: see `cdc_client.errors`.
            OSError: the file cannot be read.
        """
        request = calls.decode_request(read_source(file), options)
        return self._drive(calls.work(self._caller, request, calls.decoded_in))

    def decode_many(
        self, files: Iterable[Source], *, concurrency: int = 8, **options: Unpack[DecodeOptions]
    ) -> Iterator[Decoded]:
        """Decode files side by side; yields pictures in the order of the files, which are read as needed.

        At most `concurrency` are under way; a 429 holds all of them back for as long as the service wants. The first
        failure is raised in its place and ends the iteration. `options` are those of `decode`.
        """
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        pending: deque[Future[Decoded]] = deque()
        with ThreadPoolExecutor(concurrency) as threads:
            try:
                for file in files:
                    if len(pending) >= concurrency:
                        yield pending.popleft().result()
                    pending.append(threads.submit(self.decode, file, **options))
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    def submit_encode(self, image: Source, **options: Unpack[EncodeOptions]) -> Job:
        """Hand an encode over as a job."""
        return self._submit(calls.encode_request(read_source(image), options))

    def submit_decode(self, file: Source, *, previews: bool = False, **options: Unpack[DecodeOptions]) -> Job:
        """Hand a decode over as a job; `previews` sends the picture of each step as an event.

        >>> from cdc_client import Client
        >>> with Client(url) as cdc:
        ...     job = cdc.submit_decode(cdc.encode(photo).data, steps=3, previews=True)
        ...     steps = [event.step for event in job.events() if event.type == "preview"]
        ...     picture = job.result()
        >>> steps, picture.steps
        ([1, 2, 3], 3)
        """
        return self._submit(calls.decode_request(read_source(file), options, previews=previews))

    def job(self, id: str) -> Job:
        """Return a job by its id, as of another process. Raises NotFound, Gone."""
        return Job(self, self._drive(calls.wait(self._caller, id, 0)))

    def inspect(self, file: Source) -> Inspection:
        """Say what a `.cdc` file is, without decoding it."""
        request = calls.inspect_request(read_source(file))
        return calls.inspection_in(self._drive(calls.exchange(self._caller, request)))

    def models(self) -> tuple[Model, ...]:
        """Return the installed models, the default first."""
        return calls.models_in(self._drive(calls.exchange(self._caller, Request("GET", "/models"))))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

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
            answer = self._http.send(self._http.build_request(**calls.arguments(self.config, request)))
        except httpx.TransportError as error:
            return ConnectionFailed(f"{request.method} {request.path}: {type(error).__name__}: {error}")
        return Response(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)


class Job:
    """Work the service does on its own. `status` is what was last heard of it."""

    def __init__(self, client: Client, status: JobStatus) -> None:
        self._client = client
        self.status = status

    @property
    def id(self) -> str:
        """Its id, by which `Client.job` finds it again."""
        return self.status.id

    def refresh(self) -> JobStatus:
        """Ask how it stands."""
        self.status = self._drive(calls.wait(self._client._caller, self.id, 0))
        return self.status

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Wait until it has ended. An interrupt (Ctrl-C) cancels the job.

        Raises:
            WaitTimeout: it has not within `timeout_s`; it goes on.
        """
        try:
            self.status = self._drive(calls.wait(self._client._caller, self.id, timeout_s))
        except KeyboardInterrupt:
            self._give_up()
            raise
        if not self.status.ended:
            raise WaitTimeout(f"job {self.id} was not done within {timeout_s:g} s")
        return self.status

    def result(self, timeout_s: float | None = None) -> Encoded | Decoded:
        """Wait for the result and return it.

        Raises:
            WaitTimeout, JobCancelled: as named.
            ApiError: why it failed; Gone when the result is no longer kept.
        """
        status = self.wait(timeout_s)
        return calls.file_in(self._drive(calls.result(self._client._caller, status)))

    def cancel(self) -> JobStatus:
        """Cancel it, within one denoising step; one that has ended stays as it is."""
        response = self._drive(calls.exchange(self._client._caller, Request("DELETE", f"/jobs/{self.id}")))
        self.status = calls.status_in(response)
        return self.status

    def link(self, ttl_s: int = 3600) -> Link:
        """Return a link to the result that needs no key, for `ttl_s` seconds. The service must have a secret for it."""
        request = calls.link_request(self.id, ttl_s)
        return calls.link_in(self._drive(calls.exchange(self._client._caller, request)))

    def events(self) -> Iterator[JobEvent]:
        """Follow the job from its beginning to its end: every event once, also when the connection breaks meanwhile.

        An interrupt (Ctrl-C) cancels the job.

        Raises:
            ConnectionFailed, ApiError: when trying again did not help either.
        """
        client, reader, tried = self._client, EventReader(), 0
        while True:
            try:
                request = calls.events_request(self.id, reader.last_id)
                built = client._http.build_request(**calls.arguments(client.config, request))
                answer = client._http.send(built, stream=True)
                with contextlib.closing(answer):
                    if answer.status_code != 200:
                        raise error_of(answer.status_code, answer.read(), answer.headers)
                    for line in answer.iter_lines():
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
            except KeyboardInterrupt:
                self._give_up()
                raise
            if tried >= client.config.max_retries:
                raise failure
            reader.restart()
            time.sleep(calls.backoff(client.config, tried))
            tried += 1

    def _give_up(self) -> None:
        with contextlib.suppress(CdcError):
            self.cancel()

    def _drive(self, call: Call[T]) -> T:
        return self._client._drive(call)
