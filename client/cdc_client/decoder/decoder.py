"""From a file to pixels by onnxruntime: what `model.codec` does with torch, in float32."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_client.decoder.container import ALPHA, COLOUR, EXIF, HYPER, LATENT, File, parse
from cdc_client.decoder.latents import LatentDecoder
from cdc_client.decoder.profiles import profile_of
from cdc_client.decoder.weights import DecoderFiles, find_files
from cdc_client.errors import DecoderUnavailable, UnreadableFile

MAX_PIXELS = 1 << 25  # some 2 GB
MAX_GAMMA, MAX_SEED = 2.0, (1 << 63) - 1
STRIDE = 16
Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Slices = tuple[slice, slice]


@dataclass(frozen=True)
class Decoded:
    """An image: uint8 [height, width, 3]; its alpha plane as a PNG file and its EXIF, where the file has them.

    `icc_profile` is of the space of the pixels, None for sRGB.
    """

    pixels: Pixels
    alpha: bytes | None
    exif: bytes | None
    icc_profile: bytes | None


class Decoder:
    """Decodes the files of one codec id; networks are loaded when they are first needed."""

    def __init__(self, files: DecoderFiles | None = None, *, threads: int = 0) -> None:
        """`files`: None looks for them (`find_files`). `threads`: 0 takes all cores. Raises DecoderUnavailable."""
        self.files = find_files() if files is None else files
        self._latents = LatentDecoder(self.files.integers())
        self._threads = threads
        self._sessions: dict[str, Any] = {}

    def decode(
        self,
        data: bytes,
        steps: int | None = None,
        gamma: float | None = None,
        seed: int | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
    ) -> Decoded:
        """Decode a file.

        Args:
            data: the file.
            steps: 1..8193, None for the model's default; of no effect at gamma 0.
            gamma: 0..2, None for the model's default.
            seed: of the noise, 0..2**63-1; None for the file's own.
            max_pixels: more are refused before anything is allocated.

        Raises:
            UnreadableFile: what is wrong with the file.
            ValueError: a parameter is out of range.
        """
        steps = int(self.files.manifest["default_steps"]) if steps is None else steps
        gamma = float(self.files.manifest["default_gamma"]) if gamma is None else gamma
        length = int(self.files.manifest["schedule"]["length"])
        if not (1 <= steps <= length and 0 <= gamma <= MAX_GAMMA and 0 <= (seed or 0) <= MAX_SEED):
            raise ValueError(f"steps must be 1..{length}, gamma 0..{MAX_GAMMA:g} and seed 0..2**63-1")
        file = parse(data, max_pixels)
        base, context = self._synthesise(file, keep_context=gamma > 0)
        if gamma > 0:
            noise = normal_noise(seed_of(file) if seed is None else seed, *base.shape[1:])
            x = self._sample(noise, context, file.rate / 255, steps)
            base += gamma * self._residual_size(file.rate / 255) * x
        pixels = np.empty((file.height, file.width, 3), np.uint8)
        for top in range(0, file.height, 512):
            rows = base[:, top : min(top + 512, file.height), : file.width]
            pixels[top : top + 512] = np.rint(rows * 127.5 + 127.5).clip(0, 255).transpose(1, 2, 0)
        alpha, exif = file.sections.get(ALPHA), file.sections.get(EXIF)
        return Decoded(pixels, alpha, exif, profile_of(file.sections.get(COLOUR)))

    def symbols(self, data: bytes) -> str:
        """SHA-256 over the symbols of a file (FORMAT.md, "The symbols' hash"). Raises UnreadableFile."""
        latents = self._decode_latents(parse(data, MAX_PIXELS))
        return hashlib.sha256(latents.z.astype("<i4").tobytes() + latents.y.astype("<i4").tobytes()).hexdigest()

    def _decode_latents(self, file: File) -> Any:
        if file.codec_id != self.files.codec_id:
            found, known = file.codec_id.hex(), self.files.codec_id.hex()
            raise UnreadableFile("unknown-codec", f"codec id {found}; this decoder decodes {known}")
        return self._latents.decode(file)

    def _synthesise(self, file: File, *, keep_context: bool) -> tuple[Float, Float]:
        """The image of least error on its canvas, [3, H, W], and the denoiser's context, [C, H/8, W/8] or empty."""
        latents = self._decode_latents(file)
        rows, columns = self._canvas_side(file.height), self._canvas_side(file.width)
        beyond = (0, 0), (0, rows // STRIDE - latents.y.shape[1]), (0, columns // STRIDE - latents.y.shape[2])
        y_hat, mean, index = (
            np.pad(v, beyond, mode="edge").astype(np.float32)
            for v in (latents.y + latents.means / 16, latents.means / 16, latents.indices)
        )
        q = np.array([file.rate / 255], np.float32)
        base = np.empty((3, rows, columns), np.float32)
        context = np.empty(0, np.float32)
        for tile in self._tiles(rows, columns):
            window = tile.window(STRIDE)
            feeds = {name: v[None, :, *window] for name, v in (("y_hat", y_hat), ("mean", mean), ("index", index))}
            made = self._run("synthesis", {**feeds, "q": q})
            base[:, *tile.centre()] = made[0][0][:, *tile.inner()]
            if keep_context:
                if not context.size:
                    context = np.empty((made[1].shape[1], rows // 8, columns // 8), np.float32)
                context[:, *tile.centre(8)] = made[1][0][:, *tile.inner(8)]
        return base, context

    def _sample(self, x: Float, context: Float, q: float, steps: int) -> Float:
        """DDIM (Song et al. 2021) from noise [3, H, W] to the residual in units of its standard deviation."""
        schedule = self.files.manifest["schedule"]
        last = schedule["length"] - 1
        indices = [last] if steps == 1 else [k * last // (steps - 1) for k in range(steps - 1, -1, -1)]
        levels = [_alpha_bar(schedule, index) for index in indices] + [1.0]
        for index, a, a_to in zip(indices, levels, levels[1:], strict=False):
            x0 = np.empty_like(x)
            for tile in self._tiles(*x.shape[1:]):
                feeds = {
                    "x": x[None, :, *tile.window()],
                    "context": context[None, :, *tile.window(8)],
                    "t": np.array([(index + 1) / schedule["length"]], np.float32),
                    "q": np.array([q], np.float32),
                }
                x0[:, *tile.centre()] = self._run("denoiser", feeds)[0][0][:, *tile.inner()]
            eps = (x - np.float32(math.sqrt(a)) * x0) / np.float32(math.sqrt(1 - a))
            x = np.float32(math.sqrt(a_to)) * x0 + np.float32(math.sqrt(1 - a_to)) * eps
        return x

    def _residual_size(self, q: float) -> float:
        table: list[float] = self.files.manifest["log_residual"]
        position = q * (len(table) - 1)
        low = min(int(position), len(table) - 2)
        return math.exp(table[low] + (table[low + 1] - table[low]) * (position - low))

    def _canvas_side(self, side: int) -> int:
        sides: list[int] = self.files.manifest["sides"]
        return next((s for s in sides if s >= side), -(-side // 64) * 64)

    def _tiles(self, rows: int, columns: int) -> Iterator[Tile]:
        tile, margin = self.files.manifest["tile"], self.files.manifest["margin"]
        for y, x in product(_spans(rows, tile, margin), _spans(columns, tile, margin)):
            yield Tile(y, x)

    def _run(self, part: str, feeds: dict[str, Any]) -> list[Any]:
        if part not in self._sessions:
            try:
                import onnxruntime
            except ModuleNotFoundError as error:
                raise DecoderUnavailable("decoding needs onnxruntime: pip install 'cdc-client[decode]'") from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            data = self.files.read(part)
            self._sessions[part] = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        made: list[Any] = self._sessions[part].run(None, {k: np.ascontiguousarray(v) for k, v in feeds.items()})
        return made


@dataclass(frozen=True)
class Tile:
    """Per axis: origin and size of what is read, start and stop of what is kept, in pixels."""

    y: tuple[int, int, int, int]
    x: tuple[int, int, int, int]

    def window(self, stride: int = 1) -> Slices:
        """What it reads, on a map with `stride` pixels a side."""
        return self._slices(lambda o, size, a, b: (o, o + size), stride)

    def centre(self, stride: int = 1) -> Slices:
        """What it keeps, on the whole map."""
        return self._slices(lambda o, size, a, b: (a, b), stride)

    def inner(self, stride: int = 1) -> Slices:
        """What it keeps, within its window."""
        return self._slices(lambda o, size, a, b: (a - o, b - o), stride)

    def _slices(self, ends: Any, stride: int) -> Slices:
        (top, bottom), (left, right) = ends(*self.y), ends(*self.x)
        return slice(top // stride, bottom // stride), slice(left // stride, right // stride)


def _spans(length: int, tile: int, margin: int) -> list[tuple[int, int, int, int]]:
    """Cover `length` pixels by tiles whose centres keep `margin` from inner edges; the last one is shifted inside."""
    if length <= tile:
        return [(0, length, 0, length)]
    out, start = [], 0
    while start < length:
        origin = min(max(0, start - margin), length - tile)
        stop = length if origin + tile == length else origin + tile - margin
        out.append((origin, tile, start, stop))
        start = stop
    return out


def _alpha_bar(schedule: dict[str, Any], index: int) -> float:
    """The cosine schedule (Nichol & Dhariwal 2021, Eq. 17), rounded to float32 as trained."""
    s = schedule["shift"]

    def f(u: float) -> float:
        return math.cos((u + s) / (1 + s) * math.pi / 2) ** 2

    return float(np.float32(max(f((index + 1) / schedule["length"]) / f(0), schedule["floor"])))


def seed_of(file: File) -> int:
    """The noise seed of a file: the first 8 bytes of the SHA-256 over its streams, little-endian, less the top bit."""
    digest = hashlib.sha256(file.sections[HYPER] + file.sections[LATENT]).digest()
    return int.from_bytes(digest[:8], "little") & MAX_SEED


def normal_noise(seed: int, height: int, width: int) -> Float:
    """Standard normal noise, float32 [3, height, width], a function of seed and position.

    Each row is a stretch of the counter of Philox 4x64 (Salmon et al. 2011); a pixel takes two 64-bit words, whose
    halves Box-Muller turns into normals, in float64.
    """
    out = np.empty((3, height, width), np.float32)
    for row in range(height):
        generator = np.random.Philox(key=seed, counter=[0, row, 0, 0])
        words = np.asarray(generator.random_raw(2 * width + 2 * (width % 2)), np.uint64)[: 2 * width].reshape(width, 2)
        radius = np.sqrt(-2.0 * np.log(((words >> np.uint64(32)).astype(np.float64) + 1) * 2.0**-32))
        angle = (words & np.uint64(0xFFFFFFFF)).astype(np.float64) * (2.0 * np.pi * 2.0**-32)
        out[0, row], out[1, row] = (radius * np.cos(angle)).T
        out[2, row] = radius[:, 0] * np.sin(angle[:, 0])
    return out
