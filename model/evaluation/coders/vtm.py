"""VTM, the reference software of H.266/VVC, where its binaries and its intra configuration are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.errors import InvalidParameter
from model.evaluation.coders.models import Decoded, Encoded, Parameters, timed_decode, timed_encode
from model.types import Pixels

CONFIGURATION = "CDC_VTM_CONFIG"
TIMEOUT_S = 3600
KR, KB = 0.2126, 0.0722  # ITU-R BT.709


@dataclass(frozen=True)
class VtmCoder:
    """Intra coding of 8-bit Y'CbCr 4:4:4 (BT.709, full range), 10 bits inside; size and stream are the whole file."""

    name: str = "vtm"
    label: str = "VTM"
    points: Sequence[Parameters] = tuple({"qp": q} for q in (47, 42, 37, 32, 27, 22))
    heavy: bool = False

    @property
    def version(self) -> str:
        """First line of the encoder's banner."""
        program = _program("Encoder")
        if program is None:
            return "missing"
        done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
        return (done.stdout.strip().splitlines() or ["unknown"])[0]

    @property
    def missing(self) -> str | None:
        """Why it cannot be used, None if it can."""
        if _program("Encoder") is None or _program("Decoder") is None:
            return "not installed: EncoderAppStatic, DecoderAppStatic"
        if not Path(os.environ.get(CONFIGURATION, "")).is_file():
            return f"{CONFIGURATION} does not name encoder_intra_vtm.cfg"
        return None

    def encode(self, pixels: Pixels, parameters: Parameters) -> Encoded:
        """Run the encoder; the file starts with height and width, two bytes each."""
        height, width = pixels.shape[:2]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in.yuv").write_bytes(ycbcr(pixels).tobytes())
            options = [
                *("-c", os.environ[CONFIGURATION], "-i", str(folder / "in.yuv"), "-b", str(folder / "out.bin")),
                *("-o", "/dev/null", "-q", str(parameters["qp"]), "-wdt", str(width), "-hgt", str(height)),
                *("-fr", "1", "-f", "1", "--InputChromaFormat=444", "--InputBitDepth=8", "--InternalBitDepth=10"),
                "--ConformanceWindowMode=1",
            ]
            size = height.to_bytes(2, "little") + width.to_bytes(2, "little")
            return timed_encode(lambda: size + _output("Encoder", options, folder / "out.bin"))

    def decode(self, data: bytes, parameters: Parameters) -> Decoded:
        """Run the decoder."""
        height, width = (int.from_bytes(data[i : i + 2], "little") for i in (0, 2))
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in.bin").write_bytes(data[4:])
            options = ["-b", str(folder / "in.bin"), "-o", str(folder / "out.yuv"), "-d", "8"]

            def read() -> Pixels:
                planes = np.frombuffer(_output("Decoder", options, folder / "out.yuv"), np.uint8)
                return rgb(planes.reshape(3, height, width))

            return timed_decode(read)


def ycbcr(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """Uint8 RGB [H, W, 3] -> uint8 planes Y', Cb, Cr [3, H, W], BT.709, full range."""
    red, green, blue = np.moveaxis(pixels.astype(np.float64), 2, 0)
    luma = KR * red + (1 - KR - KB) * green + KB * blue
    planes = np.stack([luma, (blue - luma) / (2 - 2 * KB) + 128, (red - luma) / (2 - 2 * KR) + 128])
    return np.asarray(planes.round().clip(0, 255), dtype=np.uint8)


def rgb(planes: npt.NDArray[np.uint8]) -> Pixels:
    """The inverse of `ycbcr`, up to rounding."""
    luma, cb, cr = planes.astype(np.float64)
    red, blue = luma + (2 - 2 * KR) * (cr - 128), luma + (2 - 2 * KB) * (cb - 128)
    green = (luma - KR * red - KB * blue) / (1 - KR - KB)
    return np.asarray(np.stack([red, green, blue], axis=2).round().clip(0, 255), dtype=np.uint8)


def _program(kind: str) -> str | None:
    return shutil.which(f"{kind}AppStatic") or shutil.which(f"{kind}App")


def _output(kind: str, options: list[str], target: Path) -> bytes:
    program = _program(kind) or kind
    done = subprocess.run([program, *options], capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode or not target.is_file():
        raise InvalidParameter(f"{program} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return target.read_bytes()


VTM = VtmCoder()
