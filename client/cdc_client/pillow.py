"""Pillow reads and writes `.cdc` files after `import cdc_client.pillow`.

>>> from PIL import Image
>>> import cdc_client.pillow
>>> image = Image.open("photo.cdc")  # doctest: +SKIP
>>> image.save("again.cdc", quality=60)  # doctest: +SKIP

`Image.open` reads the header alone: size, mode, and in `info` the ICC profile, EXIF and XMP, as other plugins do. An
image without a profile is sRGB, and `info["srgb"]` says so as for a PNG. `save` keeps Display P3, Adobe RGB (1998) and
ProPhoto RGB, and converts from other profiles to sRGB. The work is done by the service at
CDC_URL (key: CDC_API_KEY); without one by an installed `cdc-codec[model]`; without that, onnxruntime decodes
(`cdc-client[decode]`). `save` takes `quality` 1..100, `target_bpp`, `max_bytes`, `effort`, `drawing` and `exif`.
`steps`, `gamma` and `seed` of a decode are attributes of the opened image, to be set before it is loaded.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from importlib.util import find_spec
from io import BytesIO
from typing import IO, Any

from PIL import Image, ImageFile

from cdc_client.client import Client
from cdc_client.decoder.container import (
    ALPHA,
    COLOUR,
    EXIF,
    HEADER_BYTES,
    MAGIC,
    MAX_SECTIONS,
    XMP,
    read_header,
    read_varint,
)
from cdc_client.decoder.profiles import profile_of
from cdc_client.errors import CdcError, UnreadableFile
from cdc_client.options import DecodeOptions, EncodeOptions
from cdc_client.sources import png_of_image

FORMAT = "CDC"
LONGEST = 1 << 40  # bytes of a section; no file has one so long
MAX_METADATA = 1 << 24  # bytes of EXIF or XMP
SAVED = ("quality", "target_bpp", "max_bytes", "effort", "drawing")  # options of `save` that are the encode's own
DRAFTS = (8, 4, 2)  # by which a decode is scaled down
BACKENDS = "cdc_client.backends"


class CdcImageError(OSError):
    """A `.cdc` file cannot be read or written; the cause is the error of whoever did the work."""


class CdcImageFile(ImageFile.ImageFile):
    """An opened `.cdc` file; it is decoded when its pixels are first asked for."""

    format = FORMAT
    format_description = "CDC conditional-diffusion image"
    steps: int | None = None
    gamma: float | None = None
    seed: int | None = None
    _scale = 1

    @property
    def _file(self) -> IO[bytes]:
        if self.fp is None:
            raise CdcImageError("the file is closed")
        return self.fp

    def _open(self) -> None:
        try:
            header, at = read_header(self._file.read(HEADER_BYTES))
            types = self._sections(at)
        except CdcError as error:
            raise CdcImageError(str(error)) from error
        self._size = header.width, header.height
        self._mode = "RGBA" if ALPHA in types else "RGB"
        self.info.update(codec_id=header.codec_id.hex(), rate=header.rate)
        if COLOUR not in types:
            self.info["srgb"] = 0  # PNG, 11.3.2.5: perceptual
        self._pending = True

    def _sections(self, at: int) -> set[int]:
        """Types of the sections, the data of which is skipped; profile and metadata go to `info`."""
        types: set[int] = set()
        for _ in range(MAX_SECTIONS + 1):
            self._file.seek(at)
            head = self._file.read(10)
            if not head or head[0] == 0:
                break
            length, used = read_varint(head, 1)
            if length > LONGEST:
                raise UnreadableFile("truncated-file", "a section is longer than the rest of the file")
            types.add(head[0])
            at += used
            if head[0] in (COLOUR, EXIF, XMP) and length <= MAX_METADATA:
                self._file.seek(at)
                self._note(head[0], self._file.read(length))
            at += length
        return types

    def _note(self, kind: int, data: bytes) -> None:
        if kind == COLOUR:
            self.info["icc_profile"] = profile_of(data)
        elif kind == EXIF:
            self.info["exif"] = b"Exif\0\0" + data
        else:
            self.info["xmp"] = data

    def draft(self, mode: str | None, size: tuple[int, int] | None) -> tuple[str, tuple[int, int, float, float]] | None:
        """Scale the decode down by 2, 4 or 8 to no less than `size`; `mode` is left alone."""
        if not self._pending or size is None or self._scale > 1:
            return None
        width, height = self.size
        self._scale = next((s for s in DRAFTS if width // s >= size[0] and height // s >= size[1]), 1)
        self._size = -(-width // self._scale), -(-height // self._scale)
        return self.mode, (0, 0, width / self._scale, height / self._scale)

    def load(self) -> Any:
        """Decode. Raises CdcImageError."""
        if self._pending:
            self._file.seek(0)
            options: DecodeOptions = {"steps": self.steps, "gamma": self.gamma, "seed": self.seed, "format": "png"}
            try:
                image = _decode(self._file.read(), options)
            except Exception as error:
                raise CdcImageError(str(error)) from error
            image = image.convert(self.mode)
            if self._scale > 1:
                image = image.reduce(self._scale)
            self._pending = False
            if self._exclusive_fp:
                self._file.close()
            self.fp = BytesIO(image.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        return super().load()


def _decode(data: bytes, options: DecodeOptions) -> Image.Image:
    """By the service, the codec on this machine, or onnxruntime."""
    url = os.environ.get("CDC_URL")
    if url:
        with Client(url, os.environ.get("CDC_API_KEY")) as client:
            return Image.open(BytesIO(client.decode(data, **options).data))
    local = _local()
    if local is not None:
        return Image.open(BytesIO(local.decode(data, options).data))
    from cdc_client.decoder import Decoder
    from cdc_client.decoder.images import image_of

    steps = options.get("steps")
    assert steps != "auto"  # of a service alone
    return image_of(Decoder().decode(data, steps, options.get("gamma"), options.get("seed")))


def _local() -> Any:
    """The codec on this machine, None where it is not installed."""
    if find_spec("torch") is not None:
        for entry in entry_points(group=BACKENDS):
            return entry.load()(None, "auto", quiet=True)
    return None


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    given = image.encoderinfo
    options: EncodeOptions = {name: given[name] for name in SAVED if name in given}  # type: ignore[assignment]
    if given.get("exif"):
        options["metadata"] = "keep"
    url = os.environ.get("CDC_URL")
    try:
        data = png_of_image(image, exif=given.get("exif"), icc_profile=given.get("icc_profile"))
        if url:
            with Client(url, os.environ.get("CDC_API_KEY")) as client:
                made = client.encode(data, **options).data
        else:
            local = _local()
            if local is None:
                raise CdcImageError("saving needs a service (CDC_URL) or the codec: pip install 'cdc-codec[model]'")
            made = local.encode(data, options).data
    except CdcImageError:
        raise
    except Exception as error:
        raise CdcImageError(str(error)) from error
    fp.write(made)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


Image.register_open(FORMAT, CdcImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, ".cdc")
Image.register_mime(FORMAT, "image/x-cdc")
