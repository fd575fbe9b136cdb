"""Decoding on this machine by onnxruntime, where neither a service nor cdc-codec is there (extra `decode`)."""

from __future__ import annotations

import time
from io import BytesIO
from typing import Any, NoReturn

from cdc_client.command.backend import Made
from cdc_client.command.terminal import Refused
from cdc_client.decoder import Decoder, parse
from cdc_client.decoder.images import image_of
from cdc_client.errors import CdcError
from cdc_client.options import DecodeOptions, EncodeOptions

NAMES = {1: "hyper", 2: "latent", 3: "alpha", 4: "colour", 128: "exif", 129: "xmp"}


class Own:
    """The decoder of this package. Raises DecoderUnavailable when it is made without the decoder's files."""

    failures = (CdcError,)

    def __init__(self) -> None:
        self._decoder: Decoder | None = None

    def encode(self, image: bytes, options: EncodeOptions) -> NoReturn:
        """Raises Refused."""
        raise Refused("an encode needs a service (--url, CDC_URL) or the codec: pip install 'cdc-codec[model]'")

    def decode(self, file: bytes, options: DecodeOptions) -> Made:
        """Decode a file. Raises CdcError."""
        start = time.perf_counter()
        steps = options.get("steps")
        assert steps != "auto"  # of a service alone
        try:
            decoded = self._made().decode(file, steps, options.get("gamma"), options.get("seed"))
        except ValueError as error:
            raise Refused(str(error)) from error
        image, out = image_of(decoded), BytesIO()
        format = options.get("format", "png")
        if format == "jpeg":
            image = image.convert("RGB")
        given: dict[str, Any] = {"exif": b"Exif\0\0" + decoded.exif if decoded.exif else b""}
        if format != "png":
            given["quality"] = 95
        image.save(out, format, **given, icc_profile=decoded.icc_profile)
        seconds = round(time.perf_counter() - start, 2)
        return Made(out.getvalue(), {"width": image.width, "height": image.height, "seconds": seconds})

    def inspect(self, file: bytes) -> dict[str, Any]:
        """Say what a file is. Raises UnreadableFile."""
        found = parse(file)
        return {
            "width": found.width,
            "height": found.height,
            "codec_id": found.codec_id.hex(),
            "rate": found.rate,
            "bytes": len(file),
            "bpp": round(8 * len(file) / (found.width * found.height), 4),
            "sections": {NAMES.get(kind, f"type {kind}"): len(data) for kind, data in found.sections.items()},
        }

    def symbols(self, file: bytes) -> str:
        """SHA-256 over the symbols. Raises CdcError."""
        return self._made().symbols(file)

    def close(self) -> None:
        """Forget the networks."""
        self._decoder = None

    def _made(self) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder()
        return self._decoder
