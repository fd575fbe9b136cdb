"""Answers of the service, and the records in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cdc_client.errors import CdcError
from cdc_client.json import read_json
from cdc_client.records import Decoded, Encoded, Inspection, JobStatus, Link, Model

T = TypeVar("T")
CDC_TYPE = "image/x-cdc"


@dataclass(frozen=True)
class Response:
    """An HTTP answer; names of headers in lower case. `body` is the file it was written to, if there is one."""

    status: int
    headers: Mapping[str, str]
    body: bytes | Path = field(repr=False)


def encoded_in(response: Response) -> Encoded:
    """Read the answer of an encode."""
    quality = response.headers.get("x-cdc-quality")
    target = response.headers.get("x-cdc-target")
    return Encoded(**_file(response), quality=None if quality is None else int(quality), target=target)


def decoded_in(response: Response) -> Decoded:
    """Read the answer of a decode."""
    h = response.headers
    return Decoded(
        **_file(response), steps=int(h["x-cdc-steps"]), gamma=float(h["x-cdc-gamma"]), seed=int(h["x-cdc-seed"])
    )


def file_in(response: Response) -> Encoded | Decoded:
    """Read the result of a job of either kind."""
    return encoded_in(response) if response.headers.get("content-type") == CDC_TYPE else decoded_in(response)


def status_in(response: Response) -> JobStatus:
    """Read a job."""
    return _read(JobStatus, response)


def inspection_in(response: Response) -> Inspection:
    """Read the answer of an inspection."""
    return _read(Inspection, response)


def models_in(response: Response) -> tuple[Model, ...]:
    """Read the list of models."""
    return _read(_Models, response).models


def link_in(response: Response) -> Link:
    """Read a link."""
    return _read(Link, response)


def bytes_of(response: Response) -> bytes:
    """The body, from its file where it went to one."""
    return response.body if isinstance(response.body, bytes) else response.body.read_bytes()


@dataclass(frozen=True)
class Page:
    """Jobs, the newest first, and what the next page begins after; None on the last one."""

    jobs: tuple[JobStatus, ...]
    next: str | None


@dataclass(frozen=True)
class _Models:
    models: tuple[Model, ...]


def page_in(response: Response) -> Page:
    """Read a page of jobs."""
    return _read(Page, response)


def _read(record: type[T], response: Response) -> T:
    return read_json(record, bytes_of(response))


def _file(response: Response) -> dict[str, Any]:
    h = response.headers
    try:
        return {
            "content": response.body,
            "media_type": h["content-type"],
            "width": int(h["x-cdc-width"]),
            "height": int(h["x-cdc-height"]),
            "bpp": float(h["x-cdc-bpp"]),
            "model": h["x-cdc-model"],
            "seconds": _timings(h.get("server-timing", "")),
            "digest": h["etag"].strip('"'),
            "request_id": h.get("x-request-id"),
        }
    except KeyError as error:
        raise CdcError(f"the answer lacks its header {error}: is this a CDC service?") from None


def _timings(header: str) -> dict[str, float]:
    """Server-Timing (W3C) in seconds."""
    parts = (part.strip().partition(";dur=") for part in header.split(","))
    return {name: float(milliseconds) / 1000 for name, _, milliseconds in parts if milliseconds}
