"""A job as the blocking client sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx

from cdc_client import answers, calls
from cdc_client.calls import Call, Request
from cdc_client.errors import ApiError, CdcError, ConnectionFailed, WaitTimeout, error_of
from cdc_client.records import Decoded, Encoded, JobEvent, JobStatus, Link
from cdc_client.sse import EventReader

if TYPE_CHECKING:
    from cdc_client.client import Client

T = TypeVar("T")


class Job:
    """Work the service does on its own. `status` is what was last heard of it."""

    def __init__(self, client: Client, status: JobStatus) -> None:
        self._client = client
        self.status = status

    def __repr__(self) -> str:
        return calls.shown("Job", self.status)

    @property
    def id(self) -> str:
        """Its id, by which `Client.job` finds it again."""
        return self.status.id

    def refresh(self) -> JobStatus:
        """Ask how it stands."""
        self.status = self._drive(calls.wait(self._client._caller, self.id, 0))
        return self.status

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait until it has ended. An interrupt (Ctrl-C) cancels the job.

        Raises:
            WaitTimeout: it has not within `timeout` seconds; it goes on.
        """
        try:
            self.status = self._drive(calls.wait(self._client._caller, self.id, timeout))
        except KeyboardInterrupt:
            self._give_up()
            raise
        if not self.status.ended:
            raise WaitTimeout(f"job {self.id} was not done within {timeout:g} s")
        return self.status

    def result(self, timeout: float | None = None, *, out: str | Path | None = None) -> Encoded | Decoded:
        """Wait for the result, for at most `timeout` seconds, and return it; `out` as for `Client.decode`.

        Raises:
            WaitTimeout, JobCancelled: as named.
            ApiError: why it failed; Gone when the result is no longer kept.
        """
        status = self.wait(timeout)
        return answers.file_in(self._drive(calls.result(self._client._caller, status, calls.file_of(out))))

    def cancel(self) -> JobStatus:
        """Cancel it, within one denoising step; one that has ended stays as it is."""
        response = self._drive(calls.exchange(self._client._caller, Request("DELETE", f"/jobs/{self.id}")))
        self.status = answers.status_in(response)
        return self.status

    def link(self, ttl_s: int = 3600) -> Link:
        """Return a link to the result that needs no key, for `ttl_s` seconds. The service must have a secret for it."""
        request = calls.link_request(self.id, ttl_s)
        return answers.link_in(self._drive(calls.exchange(self._client._caller, request)))

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
