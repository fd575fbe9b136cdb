"""What may be handed to a call: bytes, a path, a file opened in binary, a PIL image, a numpy array, or an https URL."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias, runtime_checkable

import httpx

from cdc_client.config import ClientConfig
from cdc_client.errors import SourceFailed

MAX_REDIRECTS = 5
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> colour type (PNG, 11.2.2)


@runtime_checkable
class PILImage(Protocol):
    """What is used of a `PIL.Image.Image`."""

    @property
    def mode(self) -> str:
        """Its mode."""

    def save(self, fp: Any, format: str | None = ..., **params: Any) -> None:
        """Write it."""

    def convert(self, mode: str | None = ...) -> Any:
        """Change its mode."""

    def getexif(self) -> Any:
        """Its EXIF, orientation included."""


@runtime_checkable
class Array(Protocol):
    """What is used of a `numpy.ndarray`: uint8 [height, width], or [height, width, 1, 2, 3 or 4 channels]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width, channels."""

    @property
    def dtype(self) -> Any:
        """Type of its values."""

    def __array__(self) -> Any:
        """As an array."""


@dataclass(frozen=True)
class ServiceSource:
    """A file that the service reads itself, at an https:// address or s3://bucket/key, where it allows that."""

    address: str


Source: TypeAlias = bytes | bytearray | memoryview | str | Path | IO[bytes] | PILImage | Array | ServiceSource
Body: TypeAlias = bytes | ServiceSource


def read_source(source: Source, config: ClientConfig) -> Body:
    """Return the bytes of a file; blocks. A `str` is a path, or an address that begins with https://.

    A PIL image and an array become a PNG file, without loss; of a PIL image its profile and EXIF are kept.

    Raises:
        OSError: the file cannot be read.
        SourceFailed: the address cannot be fetched.
        TypeError: a file opened as text, an array of another type, or something else.
        ValueError: an http:// address, or an array of another shape.
    """
    if isinstance(source, bytes | ServiceSource):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        return fetch(source, config)
    if isinstance(source, str | Path):
        return Path(source).read_bytes()
    if isinstance(source, PILImage):
        return png_of_image(source)
    if isinstance(source, Array):
        return _png_of_array(source)
    if not hasattr(source, "read"):
        raise TypeError(f"an image is bytes, a path, a file, a PIL image, a numpy array or a URL, not {type(source)}")
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError("the file must be opened in binary mode")
    return data


def fetch(url: str, config: ClientConfig) -> bytes:
    """Return what an https:// address holds, after at most 5 redirects, and at most `config.max_fetch_bytes`.

    The service's API key is not sent there.

    Raises:
        SourceFailed: not reached, not found, too large.
        ValueError: the address is not https://.
    """
    if not url.startswith("https://"):
        raise ValueError(f"only https:// addresses are fetched, not {url!r}")
    data = bytearray()
    try:
        with (
            httpx.Client(
                timeout=httpx.Timeout(config.timeout, connect=config.connect_timeout),
                headers={"User-Agent": config.user_agent},
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                event_hooks={"request": [_https_alone]},
            ) as http,
            http.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise SourceFailed(f"{url}: answered {answer.status_code} {answer.reason_phrase}".rstrip())
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > config.max_fetch_bytes:
                    raise SourceFailed(f"{url}: has more than {config.max_fetch_bytes} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceFailed(f"{url}: {type(error).__name__}: {error}") from error
    return bytes(data)


def _https_alone(request: httpx.Request) -> None:
    if request.url.scheme != "https":
        raise SourceFailed(f"redirected to {request.url}, which is not https://")


def png_of_image(image: PILImage, *, exif: Any = None, icc_profile: bytes | None = None) -> bytes:
    """A PNG of a PIL image, without loss, with its own EXIF and profile where none are given."""
    out = BytesIO()
    exif = exif or image.getexif()
    given = {} if icc_profile is None else {"icc_profile": icc_profile}
    if image.mode in _PNG_MODES:
        image.save(out, "PNG", compress_level=1, exif=exif, **given)
    else:  # CMYK and the like, whose profile does not fit what they become
        image.convert("RGB").save(out, "PNG", compress_level=1, exif=exif, icc_profile=None)
    return out.getvalue()


def _png_of_array(array: Any) -> bytes:
    """A PNG (ISO/IEC 15948) whose rows hold differences to the pixel on the left, which photographs pack better by."""
    if str(array.dtype) != "uint8":
        raise TypeError(f"an array must be uint8, 0 to 255, not {array.dtype}")
    pixels = array.reshape(*array.shape, 1) if len(array.shape) == 2 else array
    if len(pixels.shape) != 3 or pixels.shape[2] not in _COLOUR_TYPES or 0 in pixels.shape:
        raise ValueError(f"an array must be [height, width] or [height, width, 1 to 4 channels], not {array.shape}")
    height, width, channels = pixels.shape
    rows = pixels.copy()
    rows[:, 1:] -= pixels[:, :-1]
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(b"\x01" + row.tobytes()) for row in rows) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
