"""Where the work of a command is done: by a service, or on this machine where a package for that is installed."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from cdc_client.client import Client
from cdc_client.command.terminal import Refused
from cdc_client.errors import CdcError
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.records import Decoded, Encoded

Precision = Literal["auto", "float32", "bfloat16"]
GROUP = "cdc_client.backends"


@dataclass(frozen=True)
class Made:
    """What became of a file: the bytes of the new one, and what there is to say of it."""

    data: bytes = field(repr=False)
    report: dict[str, Any]


class Backend(Protocol):
    """Does the work. `failures` are the errors of a single file, after which the next one is tried."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """Errors that say what is wrong with a file."""

    def encode(self, image: bytes, options: EncodeOptions) -> Made:
        """Compress an image file."""

    def decode(self, file: bytes, options: DecodeOptions) -> Made:
        """Decode a `.cdc` file."""

    def inspect(self, file: bytes) -> dict[str, Any]:
        """Say what a `.cdc` file is; `sections` maps names to lengths."""

    def symbols(self, file: bytes) -> str:
        """SHA-256 over the symbols of a `.cdc` file, in hexadecimal (FORMAT.md, "The symbols' hash")."""

    def close(self) -> None:
        """Give back what it holds."""


class Remote:
    """A service at `url`."""

    failures = (CdcError,)

    def __init__(self, url: str, api_key: str | None) -> None:
        try:
            self._client = Client(url, api_key)
        except ValueError as error:
            raise Refused(str(error)) from None

    def encode(self, image: bytes, options: EncodeOptions) -> Made:
        """See `Client.encode`."""
        made = self._client.encode(image, **options)
        target = {"target": made.target} if made.target else {}
        return Made(made.data, {**_size(made), "quality": made.quality, **target, **_origin(made)})

    def decode(self, file: bytes, options: DecodeOptions) -> Made:
        """See `Client.decode`."""
        made = self._client.decode(file, **options)
        values = {"steps": made.steps, "gamma": made.gamma, "seed": made.seed}
        return Made(made.data, {"width": made.width, "height": made.height, **values, **_origin(made)})

    def inspect(self, file: bytes) -> dict[str, Any]:
        """See `Client.inspect`."""
        found = self._client.inspect(file)
        names = ("width", "height", "codec_id", "rate", "quality", "bytes")
        values = {name: getattr(found, name) for name in names}
        return {**values, "bpp": round(found.bpp, 4), "sections": {s.name.lower(): s.bytes for s in found.sections}}

    def symbols(self, file: bytes) -> str:
        """Raises Refused: a service does not say."""
        raise Refused("--symbols is for work on this machine, and --url sends it to a service")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def backend_of(
    url: str | None, api_key: str | None, models_dir: Path | None, precision: Precision, quiet: bool
) -> Backend:
    """Return the service at `url`; without one, this machine. `quiet`: without a progress bar for each file.

    Raises:
        Refused: there is neither, or an option is for the other one.
    """
    if url is not None:
        return Remote(url, api_key)
    for entry in entry_points(group=GROUP):
        local: Backend = entry.load()(models_dir, precision, quiet=quiet)
        return local
    if find_spec("onnxruntime") is not None:
        from cdc_client.command.own import Own

        return Own()
    raise Refused(
        "say where the service is: --url http://127.0.0.1:8000, or the variable CDC_URL; "
        "to work on this machine: pip install 'cdc-codec[model]', or to decode alone 'cdc-client[decode]'"
    )


def _size(made: Encoded) -> dict[str, Any]:
    return {"width": made.width, "height": made.height, "bytes": len(made.data), "bpp": round(made.bpp, 4)}


def _origin(made: Encoded | Decoded) -> dict[str, Any]:
    return {"model": made.model, "seconds": round(sum(made.seconds.values()), 2)}
