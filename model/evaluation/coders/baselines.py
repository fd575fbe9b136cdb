"""Baseline codecs with real files: through Pillow, through their own binaries, and CompressAI's networks."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import PIL
from PIL import Image, features

from model.errors import InvalidParameter
from model.evaluation.coders.models import Coder, Decoded, Encoded, Parameters, timed_decode, timed_encode
from model.types import Pixels

TIMEOUT_S = 1800


@dataclass(frozen=True)
class PillowCoder:
    """A file format that Pillow writes. `options` are passed on to `Image.save` beside the parameters."""

    name: str
    label: str
    format: str
    feature: str
    points: Sequence[Parameters]
    options: tuple[tuple[str, Any], ...] = ()
    heavy: bool = False

    @property
    def version(self) -> str:
        """Of Pillow and of the library below it, with the fixed options."""
        options = ",".join(f"{k}={v}" for k, v in self.options)
        return f"pillow {PIL.__version__}, {self.feature} {features.version(self.feature)}, {options}"

    @property
    def missing(self) -> str | None:
        """Why it cannot be used, None if it can."""
        return None if features.check(self.feature) else f"Pillow was built without {self.feature}"

    def encode(self, pixels: Pixels, parameters: Parameters) -> Encoded:
        """Write the file in memory."""
        image = Image.fromarray(pixels)
        values: dict[str, Any] = {**dict(self.options), **parameters}
        if "ratio" in values:  # JPEG 2000 is steered by its compression ratio
            values["quality_layers"] = [values.pop("ratio")]

        def save() -> bytes:
            out = io.BytesIO()
            image.save(out, self.format, **values)
            return out.getvalue()

        return timed_encode(save)

    def decode(self, data: bytes, parameters: Parameters) -> Decoded:
        """Read the file."""
        return timed_decode(lambda: np.array(Image.open(io.BytesIO(data)).convert("RGB")))


@dataclass(frozen=True)
class BinaryCoder:
    """A codec in two programs that read and write PNG files: `encoder -o FILE PNG`, `decoder -o PNG FILE` or alike."""

    name: str
    label: str
    programs: tuple[str, str]
    points: Sequence[Parameters]
    encode_line: Callable[[Parameters, Path, Path], list[str]]
    decode_line: Callable[[Path, Path], list[str]]
    version_option: str
    heavy: bool = False

    @property
    def version(self) -> str:
        """First line that the encoder says of itself."""
        program = shutil.which(self.programs[0])
        if program is None:
            return "missing"
        done = subprocess.run(  # noqa: S603
            [program, self.version_option], capture_output=True, text=True, timeout=60, check=False
        )
        return ((done.stdout or done.stderr).strip().splitlines() or ["unknown"])[0]

    @property
    def missing(self) -> str | None:
        """Why it cannot be used, None if it can."""
        gone = [p for p in self.programs if shutil.which(p) is None]
        return f"not installed: {', '.join(gone)}" if gone else None

    def encode(self, pixels: Pixels, parameters: Parameters) -> Encoded:
        """Run the encoder on a temporary PNG; the seconds include reading it."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.png", Path(folder) / "file"
            Image.fromarray(pixels).save(source, compress_level=1)
            line = self.encode_line(parameters, source, target)
            return timed_encode(lambda: _output(line, target))

    def decode(self, data: bytes, parameters: Parameters) -> Decoded:
        """Run the decoder."""
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "file", Path(folder) / "out.png"
            source.write_bytes(data)

            def read() -> Pixels:
                return np.array(
                    Image.open(io.BytesIO(_output(self.decode_line(source, target), target))).convert("RGB")
                )

            return timed_decode(read)


def _output(line: list[str], target: Path) -> bytes:
    done = subprocess.run(line, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    if done.returncode or not target.is_file():
        raise InvalidParameter(f"{line[0]} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return target.read_bytes()


def _qualities(*values: int) -> tuple[Parameters, ...]:
    return tuple({"quality": v} for v in values)


def _bpg_encode(p: Parameters, source: Path, target: Path) -> list[str]:
    return ["bpgenc", "-q", str(p["qp"]), "-f", "444", "-m", "9", "-o", str(target), str(source)]


def _jxl_encode(p: Parameters, source: Path, target: Path) -> list[str]:
    return ["cjxl", str(source), str(target), "-d", str(p["distance"]), "-e", "7", "--quiet", "--container=0"]


def _bpg_decode(source: Path, target: Path) -> list[str]:
    return ["bpgdec", "-o", str(target), str(source)]


def _jxl_decode(source: Path, target: Path) -> list[str]:
    return ["djxl", str(source), str(target), "--quiet"]


JPEG = PillowCoder("jpeg", "JPEG", "JPEG", "jpg", _qualities(5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90))
WEBP = PillowCoder("webp", "WebP", "WEBP", "webp", _qualities(5, 10, 20, 30, 40, 50, 60, 70, 80, 90))
AVIF = PillowCoder(
    "avif",
    "AVIF",
    "AVIF",
    "avif",
    _qualities(15, 25, 35, 45, 55, 65, 75, 85),
    # One thread: files are then the same everywhere, and images are coded side by side anyway.
    (("speed", 6), ("subsampling", "4:4:4"), ("max_threads", 1)),
)
JPEG2000 = PillowCoder(
    "jpeg2000",
    "JPEG 2000",
    "JPEG2000",
    "jpg_2000",
    tuple({"ratio": v} for v in (240, 120, 80, 60, 40, 30, 20, 15)),
    (("quality_mode", "rates"), ("irreversible", True), ("mct", 1)),
)
JPEG_XL = BinaryCoder(
    "jpegxl",
    "JPEG XL",
    ("cjxl", "djxl"),
    tuple({"distance": v} for v in (15, 10, 7, 5, 3.5, 2.5, 1.5, 1)),
    _jxl_encode,
    _jxl_decode,
    "--version",
)
BPG = BinaryCoder(
    "bpg",
    "BPG 4:4:4",
    ("bpgenc", "bpgdec"),
    tuple({"qp": v} for v in (47, 44, 41, 38, 35, 32, 28, 24)),
    _bpg_encode,
    _bpg_decode,
    "-h",
)


class Baseline(Coder, Protocol):
    """A coder that may be unavailable here."""

    @property
    def missing(self) -> str | None: ...


@cache
def all_baselines() -> dict[str, Baseline]:
    """Every baseline by name, whether or not it can be used here: see `missing`."""
    from model.evaluation.coders.networks import NETWORKS
    from model.evaluation.coders.vtm import VTM

    baselines: tuple[Baseline, ...] = (JPEG, WEBP, AVIF, JPEG_XL, JPEG2000, BPG, VTM, *NETWORKS)
    return {r.name: r for r in baselines}
