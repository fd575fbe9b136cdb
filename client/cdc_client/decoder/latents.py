"""Hyper-decoder and context model in exact integers, as FORMAT.md describes them: streams to symbols, means, indices.

Sums are integers below 2^53, so products in float64 are exact whatever the order of summation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cdc_client.decoder.container import HYPER, LATENT, File
from cdc_client.decoder.streams import Int, Stream, Tables

ACTIVATION_LIMIT, FINE_LIMIT, OUTPUT_LIMIT, Z_LIMIT = (1 << 24) - 1, 1 << 24, 1 << 20, 1 << 17
STRIP = 1 << 13  # positions that a context network sees at a time: bounds the memory of its windows
Float = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Latents:
    """Symbols of z [C, h/4, w/4] and of y [M, h, w]; means of y in 1/16, and scale indices 0..63."""

    z: Int
    y: npt.NDArray[np.int32]
    means: npt.NDArray[np.int32]
    indices: npt.NDArray[np.uint8]


class _Layer:
    """A layer: kernel, bias with its half, 2^-shift, clamp."""

    def __init__(self, integers: Mapping[str, npt.NDArray[Any]], name: str, low: int, high: int) -> None:
        self.kernel = integers[f"{name}.kernel"].astype(np.float64)
        shift = integers[f"{name}.shift"].astype(np.int64)
        self.offset = (integers[f"{name}.bias"] + (np.int64(1) << shift >> 1)).astype(np.float64)[:, None]
        self.scale = np.ldexp(1.0, -shift.astype(np.int32))[:, None]
        self.low, self.high = low, high

    def rescale(self, sums: Float) -> Float:
        out: Float = np.floor((sums + self.offset) * self.scale).clip(self.low, self.high)
        return out

    def matrix(self, columns: Float) -> Float:
        return self.rescale(self.kernel.reshape(len(self.offset), -1) @ columns)

    def transposed(self, x: Float) -> Float:
        """Transposed 5x5 convolution of stride 2: [in, h, w] -> [out, 2 h, 2 w]."""
        _, h, w = x.shape
        out = len(self.offset)
        taps = (self.kernel.reshape(len(x), -1).T @ x.reshape(len(x), -1)).reshape(out, 5, 5, h, w)
        sums = np.zeros((out, 2 * h + 4, 2 * w + 4))
        for k in range(5):
            for j in range(5):
                sums[:, k : k + 2 * h : 2, j : j + 2 * w : 2] += taps[:, k, j]
        cut = sums[:, 2 : 2 + 2 * h, 2 : 2 + 2 * w].reshape(out, -1)
        return self.rescale(cut).reshape(out, 2 * h, 2 * w)


class LatentDecoder:
    """The integers of one codec id, ready to decode. Holds no state of any file."""

    def __init__(self, integers: Mapping[str, npt.NDArray[Any]]) -> None:
        self._hyper, self._latent = Tables(integers, "hyper"), Tables(integers, "latent")
        self._medians = integers["medians"].astype(np.int64)
        self._gain = integers["gain_to_index"].astype(np.int64)
        self._groups: list[int] = integers["context.groups"].tolist()
        self._silent = int(integers["silent"][0]) if "silent" in integers else 0
        self._up = [_Layer(integers, f"head.{i}", 0, ACTIVATION_LIMIT) for i in range(2)]
        self._last = _Layer(integers, "head.2", -FINE_LIMIT, FINE_LIMIT)
        limits = ((0, ACTIVATION_LIMIT), (0, ACTIVATION_LIMIT), (-FINE_LIMIT, FINE_LIMIT))
        self._nets = [
            [_Layer(integers, f"context.{k}.{i}", *limit) for i, limit in enumerate(limits)]
            for k in range(2 * len(self._groups) - 1)
        ]

    def decode(self, file: File) -> Latents:
        """The symbols of a file and what its prior knew. Raises UnreadableFile, "corrupt-stream"."""
        rows, columns = -(-file.height // 64), -(-file.width // 64)
        stream = Stream(file.sections[HYPER], self._hyper)
        z = stream.part(np.repeat(np.arange(self._medians.size), rows * columns)).reshape(-1, rows, columns)
        stream.finish()
        x = (256 * z + self._medians[:, None, None]).clip(-Z_LIMIT, Z_LIMIT).astype(np.float64)
        for layer in self._up:
            x = layer.transposed(x)
        h, w = x.shape[1:]
        means, scales = np.split(self._last.matrix(x.reshape(len(x), -1)).astype(np.int32).reshape(-1, h, w), 2)
        rate = np.full((1, h, w), float(file.rate + (file.rate >= 128)))
        seen = np.concatenate([np.floor((x + 8) / 16), rate])

        stream = Stream(file.sections[LATENT], self._latent)
        y, indices = np.zeros(means.shape, np.int32), np.zeros(means.shape, np.uint8)
        known = np.zeros((len(means), h + 2, w + 2), np.float32)  # integers below 2^24
        odd = np.add.outer(np.arange(h), np.arange(w)) % 2 == 1
        start = 0
        for number in range(2 * len(self._groups)):
            size, parity = self._groups[number // 2], number % 2
            own, here = slice(start, start + size), odd if parity else ~odd
            mean, scale = means[own, here], scales[own, here]
            if number:
                correction = self._correct(number - 1, known[: start + (size if parity else 0)], seen, here)
                mean, scale = mean + correction[:size], scale + correction[size:]
            mean = (mean + 8 >> 4).clip(-OUTPUT_LIMIT, OUTPUT_LIMIT)
            index = (scale + self._gain[file.rate, own][:, None] + 128 >> 8).clip(0, 63)
            coded = index >= self._silent
            symbols = np.zeros(index.shape, np.int64)
            symbols[coded] = stream.part(index[coded])
            y[own, here], means[own, here], indices[own, here] = symbols, mean, index
            known[own, 1:-1, 1:-1][:, here] = (4 * (16 * symbols + mean)).clip(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)
            start += size if parity else 0
        stream.finish()
        return Latents(z, y, means, indices)

    def _correct(self, number: int, known: npt.NDArray[np.float32], seen: Float, here: npt.NDArray[np.bool_]) -> Int:
        """What a pass adds to means and scale numbers, int64 [2 m, n]. Channels that are all zero are left out."""
        first, *others = self._nets[number]
        live = np.flatnonzero(known.any(axis=(1, 2)))
        taps = first.kernel[:, : 9 * len(known)].reshape(len(first.kernel), -1, 9)[:, live]
        windows = np.ascontiguousarray(taps.transpose(2, 0, 1))  # or BLAS is not what multiplies
        rows, columns = np.nonzero(here)
        out = []
        for start in range(0, rows.size, STRIP):
            r, c = rows[start : start + STRIP], columns[start : start + STRIP]
            sums = first.kernel[:, 9 * len(known) :] @ seen[:, r, c]
            for tap in range(9):
                down, right = divmod(tap, 3)
                sums += windows[tap] @ known[live[:, None], r + down, c + right].astype(np.float64)
            v = first.rescale(sums)
            for layer in others:
                v = layer.matrix(v)
            out.append(v)
        return np.concatenate(out, axis=1).astype(np.int64)
