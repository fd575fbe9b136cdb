"""The client: needs httpx and pydantic alone, neither torch nor a web framework.

`Client` blocks, `AsyncClient` is for asyncio; both have the same calls. `CdcError` is the base of what they raise.
"""

from service.client.async_client import AsyncClient, AsyncJob
from service.client.client import Client, Job
from service.client.config import ClientConfig
from service.client.errors import (
    ApiError,
    BadRequest,
    Busy,
    CdcError,
    Conflict,
    ConnectionFailed,
    DamagedFile,
    DeadlineExceeded,
    Gone,
    InvalidParameter,
    JobCancelled,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ServerFailed,
    TooLarge,
    Unavailable,
    UnknownCodec,
    Unusable,
    WaitTimeout,
)
from service.client.options import DecodeOptions, EncodeOptions
from service.client.records import Decoded, Encoded, File, Inspection, JobEvent, JobStatus, Link, Model

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJob",
    "BadRequest",
    "Busy",
    "CdcError",
    "Client",
    "ClientConfig",
    "Conflict",
    "ConnectionFailed",
    "DamagedFile",
    "DeadlineExceeded",
    "DecodeOptions",
    "Decoded",
    "EncodeOptions",
    "Encoded",
    "File",
    "Gone",
    "Inspection",
    "InvalidParameter",
    "Job",
    "JobCancelled",
    "JobEvent",
    "JobStatus",
    "Link",
    "Model",
    "NotAllowed",
    "NotAuthenticated",
    "NotFound",
    "ServerFailed",
    "TooLarge",
    "Unavailable",
    "UnknownCodec",
    "Unusable",
    "WaitTimeout",
]
