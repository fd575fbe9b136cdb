"""Transparency by key at the file's own depth, and what a GIF's frame leaves free."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import photograph
from tests.service.images.builders import chunk, png, read, saved

WIDTH, HEIGHT = 40, 8


def key_of(*values: int) -> bytes:
    return chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def ramp(depth: int, channels: int = 1) -> np.ndarray:
    """Integers [8, 40, C] of `depth` bits; those of the last channel grow by 1 to the right."""
    samples = np.full((HEIGHT, WIDTH, channels), (1 << depth) // 3)
    samples[..., -1] = np.arange(WIDTH) % (1 << depth)
    return samples


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("last", [False, True])
def test_grey_keys(depth: int, last: bool) -> None:
    samples = ramp(depth)[..., 0]
    if depth == 16:
        samples = samples + 0x1200  # all values share their high byte
    key = int(samples.max() if last else samples[0, 1])
    image = read(png(samples, depth, 0, key_of(key)))
    np.testing.assert_array_equal(image.alpha, np.where(samples == key, 0, 255))  # type: ignore[arg-type]
    scale = 255 / ((1 << depth) - 1)
    np.testing.assert_array_equal(image.pixels[..., 1], np.round(samples * scale))


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_rgb_keys_compare_all_bits_of_all_channels(depth: int, channel: int) -> None:
    samples = np.roll(ramp(depth, 3), channel - 2, axis=2)
    if depth == 16:
        samples[..., channel] += 0x8000
    key = samples[0, 7]
    image = read(png(samples, depth, 2, key_of(*key.tolist())))
    np.testing.assert_array_equal(image.alpha, np.where((samples == key).all(axis=2), 0, 255))  # type: ignore[arg-type]
    assert (image.alpha == 0).sum() == HEIGHT


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("entries", [1, 2, 300])
def test_palette_alpha(depth: int, entries: int) -> None:
    samples = ramp(depth)[..., 0]
    colours = min(1 << depth, WIDTH)
    palette = np.arange(3 * colours, dtype=np.uint8).reshape(colours, 3)
    alphas = (np.arange(entries) * 37 % 256).astype(np.uint8)
    image = read(png(samples, depth, 3, chunk(b"PLTE", palette.tobytes()), chunk(b"tRNS", alphas.tobytes())))
    expected = np.append(alphas, np.full(256, 255, np.uint8))[samples]
    np.testing.assert_array_equal(image.alpha, expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(image.pixels, palette[samples])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_of_a_key_only_the_low_bits_count(depth: int) -> None:
    samples = ramp(depth)[..., 0]
    image = read(png(samples, depth, 0, key_of(0xFF00 << (depth == 8) & 0xFF00 | 1)))
    np.testing.assert_array_equal(image.alpha, np.where(samples == 1, 0, 255))  # type: ignore[arg-type]


def test_a_key_does_not_belong_beside_alpha() -> None:
    samples = np.dstack([ramp(8, 3), np.full((HEIGHT, WIDTH), 99)])
    image = read(png(samples, 8, 6, key_of(*samples[0, 0, :3].tolist())))
    assert image.alpha is not None
    assert (image.alpha == 99).all()


@pytest.mark.parametrize("colour", [2, 6])
def test_sixteen_bits_are_rounded_not_cut(colour: int) -> None:
    samples = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 3 if colour == 2 else 4))
    image = read(png(samples, 16, colour))
    expected = np.round(samples / 257)
    np.testing.assert_array_equal(image.pixels, expected[..., :3])
    if colour == 6:
        np.testing.assert_array_equal(image.alpha, expected[..., 3])  # type: ignore[arg-type]


def gif(frame: Image.Image, screen: tuple[int, int], at: tuple[int, int] = (0, 0), **options: int) -> bytes:
    """A GIF whose screen has a size of its own and whose frame lies where it is told."""
    data = bytearray(saved(frame, "GIF", **options))
    data[6:10] = struct.pack("<HH", *screen)
    found = data.index(b"\x2c" + bytes(4) + struct.pack("<HH", *frame.size)) + 1
    data[found : found + 4] = struct.pack("<HH", *at)
    return bytes(data)


@pytest.mark.parametrize("mode", ["P", "L"])
@pytest.mark.parametrize("at", [(0, 0), (7, 5)])
@pytest.mark.parametrize("key", [False, True])
def test_what_a_gif_frame_leaves_free_is_transparent(mode: str, at: tuple[int, int], key: bool) -> None:
    frame = photograph(20, 10).convert(mode)
    value = int(np.asarray(frame)[0, 0])
    image = read(gif(frame, (40, 30), at, **({"transparency": value} if key else {})))
    assert image.pixels.shape == (30, 40, 3)
    expected = np.zeros((30, 40), np.uint8)
    box = slice(at[1], at[1] + 10), slice(at[0], at[0] + 20)
    expected[box] = np.where(np.asarray(frame) == value, 0, 255) if key else 255
    np.testing.assert_array_equal(image.alpha, expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(image.pixels[box], np.asarray(frame.convert("RGB")))


def test_a_gif_frame_beyond_the_screen_enlarges_it() -> None:
    image = read(gif(photograph(20, 10).convert("P"), (15, 5)))
    assert image.pixels.shape == (10, 20, 3)
    assert image.alpha is None
