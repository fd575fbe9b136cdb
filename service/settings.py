"""Configuration: one tree of values, each from an environment variable `CDC_<NAME>`, all checked at the start."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "CDC_"
# Read by other parts of the project, which may share an environment with the service.
_OTHER_TOOLS = (
    "API_KEY",
    "CHROMIUM",
    "CONTRACT_FILES",
    "REQUIRE_PROGRAMS",
    "DATA",
    "DECODER",
    "EVALUATION_CACHE",
    "MUTATIONS",
    "PUBLISH",
    "SHARED",
    "URL",
    "VTM_CONFIG",
)
# What Kubernetes adds for a Service named cdc-NAME, where enableServiceLinks is left on.
_SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)?)")
Names = Annotated[tuple[str, ...], NoDecode]
_PLACEHOLDERS = ("change", "secret", "example", "default", "password", "0123456789")


class SettingsError(ValueError):
    """A setting is out of its range. The message names every variable concerned, never its value."""


class Settings(BaseSettings):
    """What an operator can choose. Frozen: nothing changes while the service runs."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", validate_default=True)

    host: str = Field(default="127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    root_path: str = Field(
        default="",
        pattern=r"^(/[A-Za-z0-9._~-]+)*$",
        description="Path prefix that a proxy takes away before it passes a request on, such as `/codec`; unset: none.",
    )
    keep_alive_s: int = Field(
        default=75,
        ge=1,
        le=3600,
        description="Seconds an idle connection is kept. More than the proxy's before the service, often 60: else that "
        "one sends requests into connections that are being closed.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    docs: bool = Field(default=True, description="Serve the interactive documentation at /docs and the schema.")
    playground: bool = Field(
        default=True, description="Serve the web page at /; off: / leads to /docs, where there is documentation."
    )
    browser_dir: Path | None = Field(
        default=None,
        description="Folder of the scripts that decode in a browser (`make browser`); unset: the one of this package, "
        "where they have been built. Without them the page leaves decoding to the service.",
    )
    cors_origins: Names = Field(
        default=(), description="Origins, comma-separated, whose pages may call the service; `*` for any."
    )
    keys: str | None = Field(
        default=None,
        min_length=1,
        description="Where API keys are: a file, or `redis`; unset: no key is needed.",
    )
    link_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Secrets of 32 characters or more, comma-separated, for links to results; the first signs. "
        "Unset: no links.",
    )
    webhook_secrets: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Secrets, comma-separated, that webhooks of jobs are signed with, each of them: `whsec_` and 24 to "
        "64 random bytes in base64. Unset: no webhooks.",
    )
    webhook_hosts: Names = Field(
        default=("*",), description="Hosts, comma-separated, that webhooks may go to; `*`: any at a public address."
    )
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="Port of its own for /metrics; unset: the port of the service."
    )

    max_body_bytes: int = Field(default=64 * 1024**2, ge=1024, description="Largest body of a request, in bytes.")
    body_timeout_s: float = Field(default=60.0, gt=0, le=3600, description="Seconds a caller has for sending a body.")
    min_body_rate: float = Field(
        default=1024.0, gt=0, description="Bytes a second at which a body must arrive; 10 s behind that, it is refused."
    )
    max_uploads_per_client: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Unfinished uploads of one address; beyond it those that have stalled give way.",
    )
    max_upload_bytes: int = Field(
        default=1024**3,
        ge=1024,
        description="Bytes of all the bodies held at the same time, unfinished ones too; one body is always let in.",
    )
    source_hosts: Names = Field(
        default=(),
        description="Hosts, comma-separated, whose https:// addresses `source=` may name: `images.example.org`, "
        "`*.example.org`, or `*` for any public one; unset: none.",
    )
    source_buckets: Names = Field(
        default=(),
        description="Buckets, comma-separated, that `source=s3://...` may name, also `bucket/prefix`; read with the "
        "service's own credentials (extra `s3`). Unset: none.",
    )
    sink_hosts: Names = Field(
        default=(), description="Hosts, comma-separated, whose presigned addresses `result=` may name; unset: none."
    )
    sink_buckets: Names = Field(
        default=(), description="Buckets, comma-separated, that `result=s3://...` may name, also `bucket/prefix`."
    )
    private_addresses: bool = Field(
        default=False,
        description="Connect to private and loopback addresses too, and by http://, where a host is allowed.",
    )
    max_pixels: int = Field(default=50_000_000, ge=1, le=65535**2, description="Largest image, in pixels.")
    max_steps: int = Field(default=250, ge=1, le=20_000, description="Most denoising steps of one decode.")
    max_pixel_steps: int = Field(
        default=850_000_000,
        ge=1,
        description="Most work of one decode, pixels x steps, or refined encode, which counts 8 a round. The default "
        "lets the largest image take 17 steps.",
    )
    max_concurrent_uploads: int = Field(
        default=128,
        ge=1,
        le=100_000,
        description="Requests in work at the same time; one whose body has not arrived does not count.",
    )
    max_pixels_in_flight: int = Field(
        default=200_000_000,
        ge=1,
        description="Pixels of all the images held at the same time; one image is always let in.",
    )
    max_connections: int = Field(
        default=2048,
        ge=8,
        le=1_000_000,
        description="Requests in flight, event streams too; a further one is answered 503, but for health and metrics. "
        "Of twice as many connections idle ones are closed.",
    )
    image_threads: int = Field(default=2, ge=1, le=256, description="Threads which read and write image files.")

    default_deadline_s: float = Field(
        default=300.0, gt=0, description="Seconds a request may take when it sends no X-Deadline-Ms."
    )
    max_deadline_s: float = Field(
        default=3600.0, gt=0, description="Longest deadline; a later X-Deadline-Ms is cut to it."
    )
    max_waiting: int = Field(default=256, ge=0, le=100_000, description="Requests in flight on a device before a 429.")
    max_backlog_s: float = Field(
        default=120.0,
        gt=0,
        description="Estimated device seconds that may wait on a device before a 429; of refinements as many again.",
    )
    memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory for the images in work on a device before a 429; 0: half of what there is.",
    )
    grace_s: float = Field(
        default=30.0, ge=0, le=3600, description="Seconds running work has left once the service stops."
    )

    max_sync_pixel_steps: int = Field(
        default=0,
        ge=0,
        description="Most work, pixels x steps or rounds of refinement, that is answered at once; 0: no bound but "
        "max_pixel_steps.",
    )
    over_sync: Literal["refuse", "job"] = Field(
        default="refuse", description="What a larger one gets: 413, or 202 and a job."
    )
    job_result_ttl_s: float = Field(
        default=3600.0, ge=1, le=30 * 86400, description="Seconds the result of a job is kept; then 410."
    )
    job_gone_ttl_s: float = Field(
        default=86400.0, ge=0, le=365 * 86400, description="Seconds after that until a job is forgotten; then 404."
    )
    max_queued_jobs: int = Field(default=1000, ge=1, le=1_000_000, description="Jobs that may wait before a 429.")
    max_running_jobs: int = Field(default=16, ge=1, le=10_000, description="Jobs of this process in the engine.")
    max_job_bytes: int = Field(
        default=512 * 1024**2, ge=1 << 20, description="Uploads, results and previews of jobs kept in this process."
    )

    redis_url: SecretStr | None = Field(
        default=None,
        description="Redis that carries all work to `cdc worker` processes; unset: work is done in this process.",
    )
    blobs_url: str = Field(
        default="redis",
        min_length=1,
        description="Where bytes of jobs lie: `redis`, or a shared folder or object store (`s3://bucket/prefix`).",
    )
    lease_s: float = Field(
        default=12.0, ge=1, le=600, description="Seconds after which a silent worker's jobs go to another."
    )

    models_dir: Path | None = Field(
        default=None, description="Folder with further weights files; unset: the shipped model alone."
    )
    canary: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}:(100|[0-9]{1,2})$",
        description="`NAME:PERCENT`: the model NAME takes this share of the encodes and decodes that name none, "
        "the same files each time; unset: none.",
    )
    models_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Weights a worker keeps in memory, in bytes; beyond it the least recently used model is unloaded. "
        "0: all.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(default="auto", description="Arithmetic of the networks.")
    threads: int = Field(
        default=0, ge=0, le=1024, description="CPU threads of the worker; 0: all CPUs of the container or machine."
    )
    devices: str = Field(
        default="auto",
        pattern=r"^(auto|(cpu|cuda:\d+)(,\s*(cpu|cuda:\d+))*)$",
        description="Devices, one worker each: `cpu`, `cuda:0,cuda:1`, or `auto` for all GPUs, else the CPU.",
    )
    cache_dir: Path = Field(
        default=Path("~/.cache/cdc").expanduser(), description="Folder of measured speed profiles; may be unwritable."
    )
    tick_s: float = Field(default=0.5, gt=0, le=60, description="Longest time of one forward pass, in seconds.")

    acceleration: Literal["none", "graphs", "compile"] = Field(
        default="none",
        description="What a GPU's worker prepares at its start for small tiles: nothing, CUDA graphs, or graphs of "
        "compiled networks (minutes longer).",
    )

    @field_validator(
        "cors_origins", "source_hosts", "source_buckets", "webhook_hosts", "sink_hosts", "sink_buckets", mode="before"
    )
    @classmethod
    def _split_names(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("link_secrets", mode="before")
    @classmethod
    def _check_secrets(cls, value: Any) -> Any:
        parts = [p.strip() for p in value.split(",") if p.strip()] if isinstance(value, str) else list(value)
        for part in parts:
            text = part.get_secret_value() if isinstance(part, SecretStr) else str(part)
            if len(text) < 32 or len(set(text)) < 8 or any(word in text.lower() for word in _PLACEHOLDERS):
                raise ValueError("a secret must be random and of 32 characters or more: openssl rand -hex 32")
        return tuple(SecretStr(p) if isinstance(p, str) else p for p in parts)

    @field_validator("webhook_secrets", mode="before")
    @classmethod
    def _check_webhook_secrets(cls, value: Any) -> Any:
        parts = [p.strip() for p in value.split(",") if p.strip()] if isinstance(value, str) else list(value)
        texts = [p.get_secret_value() if isinstance(p, SecretStr) else str(p) for p in parts]
        if not all(re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}", text) for text in texts):
            raise ValueError("a secret is whsec_ and 24 to 64 random bytes: echo whsec_$(openssl rand -base64 32)")
        return tuple(SecretStr(text) for text in texts)

    @model_validator(mode="after")
    def _check_keys(self) -> Settings:
        if self.keys == "redis" and self.redis_url is None:
            raise ValueError("CDC_KEYS=redis needs CDC_REDIS_URL")
        return self

    @field_validator("models_dir")
    @classmethod
    def _check_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("is not a folder")
        return value


def load_settings(**values: Any) -> Settings:
    """Return the settings from the environment, `values` taking precedence.

    Raises:
        SettingsError: a value is missing or out of range, or a variable names no setting; the message names it.
    """
    _check_names(os.environ)
    try:
        return Settings(**values)
    except ValidationError as error:
        faults = (f"{PREFIX}{'.'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError("; ".join(faults)) from None


def _check_names(variables: Iterable[str]) -> None:
    """Refuse a variable that looks like a setting and is none: a limit that was misspelt would not be in force."""
    known = [name.upper() for name in Settings.model_fields]
    faults = []
    for variable in sorted(variables):
        name = variable.upper().removeprefix(PREFIX)
        if variable.upper() == name or name in (*known, *_OTHER_TOOLS) or _SERVICE_LINK.fullmatch(name):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        faults.append(
            f"{variable}: there is no such setting" + (f"; did you mean {PREFIX}{close[0]}?" if close else "")
        )
    if faults:
        raise SettingsError("; ".join(faults))
