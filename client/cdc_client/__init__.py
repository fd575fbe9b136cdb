"""The client: needs httpx and pydantic alone, neither torch nor a web framework.

`Client` blocks, `AsyncClient` is for asyncio; both have the same calls. `CdcError` is the base of what they raise.
"""

from cdc_client.async_client import AsyncClient
from cdc_client.async_job import AsyncJob
from cdc_client.client import Client
from cdc_client.config import ClientConfig, ClientOptions
from cdc_client.errors import (
    ApiError,
    BadRequest,
    Busy,
    CdcError,
    Conflict,
    ConnectionFailed,
    DamagedFile,
    DeadlineExceeded,
    DecoderUnavailable,
    Gone,
    InvalidParameter,
    JobCancelled,
    NotAllowed,
    NotAuthenticated,
    NotFound,
    ServerFailed,
    SourceFailed,
    TimedOut,
    TooLarge,
    Unavailable,
    UnknownCodec,
    UnreadableFile,
    Unusable,
    WaitTimeout,
)
from cdc_client.job import Job
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.records import Decoded, Encoded, File, Inspection, JobEvent, JobStatus, Link, Model
from cdc_client.sources import ServiceSource, Source
from cdc_client.version import __version__

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncJob",
    "BadRequest",
    "Busy",
    "CdcError",
    "Client",
    "ClientConfig",
    "ClientOptions",
    "Conflict",
    "ConnectionFailed",
    "DamagedFile",
    "DeadlineExceeded",
    "DecodeOptions",
    "Decoded",
    "DecoderUnavailable",
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
    "ServiceSource",
    "Source",
    "SourceFailed",
    "TimedOut",
    "TooLarge",
    "Unavailable",
    "UnknownCodec",
    "UnreadableFile",
    "Unusable",
    "WaitTimeout",
    "__version__",
]
