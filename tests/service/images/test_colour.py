"""Colours that a file signals: PNG's chunks in their order, AVIF's code points, HDR."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from service.images.signal import BT709, cicp_signal, gamma_signal, pq_inverse, rgb_to_srgb
from service.images.tone import PEAK, eetf
from tests.service.images.builders import avif_items, chunk, png, read, replaced, saved

COLOUR = (40, 117, 90)
SRGB_PRIMARIES = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
P3_PRIMARIES = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))


def chrm(*primaries: float) -> bytes:
    return chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in primaries)))


def cicp(primaries: int, transfer: int, matrix: int = 0, full_range: int = 1) -> bytes:
    return chunk(b"cICP", bytes((primaries, transfer, matrix, full_range)))


def iccp(profile: bytes) -> bytes:
    return chunk(b"iCCP", b"name\0\0" + zlib.compress(profile))


def swapped_profile() -> bytes:
    """An sRGB profile, under another name, whose red and green have changed places."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    found = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * data[131], 12)}
    red, green = found[b"rXYZ"], found[b"gXYZ"]
    data[red + 4 : red + 12], data[green + 4 : green + 12] = data[green + 4 : green + 12], data[red + 4 : red + 12]
    return bytes(data).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be")).replace(b"sRGB b", b"swap b")


def flat_png(*chunks: bytes, colour: tuple[int, ...] = COLOUR, depth: int = 8) -> bytes:
    samples = np.tile(np.array(colour) * (257 if depth == 16 else 1), (4, 6, 1))
    kind = {1: 0, 3: 2, 4: 6}[len(colour)]
    return png(samples[..., 0] if kind == 0 else samples, depth, kind, *chunks)


def shown(data: bytes) -> tuple[int, ...]:
    """The one colour of the image that a file gives."""
    pixels = read(data).pixels.reshape(-1, 3)
    assert (pixels == pixels[0]).all()
    return tuple(pixels[0].tolist())


def near(found: tuple[int, ...], expected: tuple[float, ...], tolerance: float = 1) -> None:
    assert np.abs(np.subtract(found, expected)).max() <= tolerance, (found, expected)


def encoded(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_light(values: tuple[int, ...]) -> np.ndarray:
    v = np.array(values) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.4, 1 / 2.6, 2.0])
def test_gamma(gamma: float, depth: int) -> None:
    expected = encoded((np.array(COLOUR) / 255) ** (1 / round(gamma, 5)))
    near(shown(flat_png(gama(gamma), depth=depth)), tuple(expected))
    near(shown(flat_png(gama(gamma), colour=COLOUR[1:2], depth=depth)), (expected[1],) * 3)


def test_linear_sixteen_bit_samples_keep_their_dark_tones() -> None:
    samples = np.arange(0, 2048, 8).reshape(1, -1, 1).repeat(3, axis=2)
    pixels = read(png(samples, 16, 2, gama(1.0))).pixels
    assert np.abs(pixels - encoded(samples / 65535)).max() <= 1
    assert len(np.unique(pixels)) > 40  # of eight bits there would be 8


def test_alpha_is_no_colour_to_a_signal() -> None:
    image = read(flat_png(gama(1.0), colour=(*COLOUR, 77)))
    assert (image.alpha == 77).all()  # type: ignore[union-attr]
    near(tuple(image.pixels[0, 0].tolist()), (110, 180, 160))


@pytest.mark.parametrize("gamma", [0.45455, 0.45454])
def test_the_gamma_of_srgb_files_and_srgb_primaries_change_nothing(gamma: float) -> None:
    for chunks in ((gama(gamma),), (gama(gamma), chrm(*SRGB_PRIMARIES)), (chrm(*SRGB_PRIMARIES),), (cicp(1, 13),)):
        assert shown(flat_png(*chunks)) == COLOUR
    assert shown(flat_png(cicp(2, 2))) == COLOUR  # unspecified


def test_primaries_are_converted() -> None:
    # Display P3 (200, 100, 50) in sRGB, by the published matrix.
    matrix = [[1.2249, -0.2247, 0], [-0.0420, 1.0419, 0], [-0.0197, -0.0786, 1.0979]]
    expected = tuple(encoded(np.array(matrix) @ srgb_light((200, 100, 50))))
    for chunks in ((chrm(*P3_PRIMARIES),), (chrm(*P3_PRIMARIES), gama(0.45455)), (cicp(12, 13),)):
        near(shown(flat_png(*chunks, colour=(200, 100, 50))), expected, 1.5)


@pytest.mark.parametrize("primaries", [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 22])
def test_greys_stay_grey_and_white_white(primaries: int) -> None:
    assert shown(flat_png(cicp(primaries, 13), colour=(255, 255, 255))) == (255, 255, 255)
    near(shown(flat_png(cicp(primaries, 13), colour=(100, 100, 100))), (100, 100, 100))
    assert shown(flat_png(cicp(primaries, 13), colour=(0, 0, 0))) == (0, 0, 0)


def test_matrices_agree_with_published_ones() -> None:
    bt2020 = cicp_signal(9, 1, True)
    assert bt2020 is not None
    # ITU-R BT.2087, table 2, inverted: linear BT.2020 to linear BT.709.
    published = [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
    np.testing.assert_allclose(rgb_to_srgb(bt2020.primaries), published, atol=2e-4)
    np.testing.assert_allclose(rgb_to_srgb(BT709), np.eye(3), atol=1e-12)


# What each chunk alone makes of the colour, in the order in which they count (PNG, 3rd edition, 4.3).
ORDER: list[tuple[bytes, tuple[int, ...]]] = [
    (cicp(1, 8), (110, 180, 160)),
    (iccp(swapped_profile()), (117, 40, 90)),
    (chunk(b"sRGB", b"\0"), COLOUR),
    (gama(0.5), (43, 127, 99)),
]


@pytest.mark.parametrize("chosen", [c for n in range(1, 5) for c in itertools.permutations(range(4), n)])
def test_of_several_colour_chunks_one_counts(chosen: tuple[int, ...]) -> None:
    found = shown(flat_png(*(ORDER[k][0] for k in chosen)))
    if min(chosen) == 1:
        assert found[0] > found[1] + 20  # red and green have changed places
    else:
        near(found, ORDER[min(chosen)][1])


@pytest.mark.parametrize(
    "unusable",
    [
        cicp(99, 13),
        cicp(9, 99),
        cicp(9, 0),
        cicp(0, 13),
        cicp(3, 13),
        cicp(2, 2),
        cicp(9, 13, matrix=6),
        cicp(9, 13, full_range=7),
        chunk(b"cICP", b"\x09"),
        iccp(b"x" * 300),
        iccp(swapped_profile()[:150]),
        iccp(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()),
        chunk(b"iCCP", b"name\0\0" + zlib.compress(swapped_profile())[:-9]),
        chunk(b"iCCP", b"name\0\1" + zlib.compress(swapped_profile())),
        chunk(b"iCCP", b"\0\0" + zlib.compress(swapped_profile())),
    ],
)
def test_an_unusable_chunk_leaves_it_to_the_next(unusable: bytes) -> None:
    assert shown(flat_png(unusable)) == COLOUR
    near(shown(flat_png(unusable, gama(1.0))), (110, 180, 160))


@pytest.mark.parametrize("gamma", [0, 0.00001, 40_000.0])
def test_impossible_gammas_and_primaries_are_ignored(gamma: float) -> None:
    assert shown(flat_png(gama(gamma))) == COLOUR
    for primaries in ((0,) * 8, (0.3,) * 8, (0.3127, 0, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), (40_000,) * 8):
        assert shown(flat_png(chrm(*primaries))) == COLOUR
        assert gamma_signal(None, tuple(map(float, primaries))) is None


def test_primaries_of_any_value_give_an_image() -> None:
    random = np.random.default_rng(1)
    for _ in range(500):
        primaries = random.choice([0, 0.1, 0.33, 0.7, 1, 9, 42_000], 8) * random.uniform(0.9, 1, 8)
        assert read(flat_png(chrm(*primaries))).pixels.shape == (4, 6, 3)


def test_a_narrow_range_is_widened() -> None:
    assert shown(flat_png(cicp(1, 13, full_range=0), colour=(16, 235, 240))) == (0, 255, 255)
    near(shown(flat_png(cicp(1, 13, full_range=0), colour=(126, 126, 126), depth=16)), (128, 128, 128), 2)


@pytest.mark.parametrize("transfer", [1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18])
def test_every_transfer_function_rises_from_black(transfer: int) -> None:
    pixels = read(png(np.arange(256).reshape(1, -1, 1).repeat(3, axis=2), 8, 2, cicp(1, transfer))).pixels[0, :, 0]
    assert pixels[0] == 0
    assert pixels[-1] == 255 or transfer == 17
    assert (np.diff(pixels.astype(int)) >= 0).all()


def test_palette_and_grey_files_are_converted_too() -> None:
    palette = png(np.zeros((2, 2), int), 8, 3, gama(1.0), chunk(b"PLTE", bytes(COLOUR)))
    near(shown(palette), (110, 180, 160))
    near(shown(png(np.full((2, 2), 5), 4, 0, gama(1.0))), (156, 156, 156))


def pq_value(nits: float, bits: int = 16) -> int:
    return round(float(pq_inverse(np.array(nits / 203))) * ((1 << bits) - 1))


@pytest.mark.parametrize(("nits", "share"), [(0, 0), (1, 1), (50, 1), (203, 0.783), (1000, 0.203), (4000, 0.05075)])
def test_pq_is_tone_mapped(nits: float, share: float) -> None:
    """Dark and middle tones stay, diffuse white is 90 % of white, 1000 nits and more become white."""
    value = pq_value(nits)
    expected = encoded(np.array([nits / 203 * share]))[0]
    for primaries in (1, 9, 12):
        samples = np.full((2, 2, 3), value)
        near(shown(png(samples, 16, 2, cicp(primaries, 16))), (expected,) * 3, 2)
    near(shown(png(np.full((2, 2), value), 16, 0, cicp(9, 16))), (expected,) * 3, 2)


def test_the_curve_of_bt2390_starts_as_identity_and_ends_at_white() -> None:
    light = np.linspace(0, PEAK, 500)
    mapped = eetf(light)
    assert (np.diff(mapped) > 0).all()
    np.testing.assert_allclose(mapped[light < 0.4], light[light < 0.4], rtol=1e-6)
    assert mapped[-1] == pytest.approx(1, abs=1e-6)


def test_hues_of_hdr_stay() -> None:
    red, green, blue = shown(
        png(np.tile([pq_value(4000), pq_value(400), pq_value(400)], (2, 2, 1)), 16, 2, cicp(1, 16))
    )
    assert red == 255
    assert green == blue
    near((green,), (encoded(np.array([0.1]))[0],), 2)


@pytest.mark.parametrize(("value", "nits"), [(0.0, 0), (0.75, 203), (1.0, 1000)])
def test_hlg_and_pq_of_the_same_light_look_alike(value: float, nits: float) -> None:
    """BT.2408, table 1: diffuse white is 75 % HLG and 58 % PQ."""
    hlg = shown(png(np.full((2, 2, 3), round(value * 65535)), 16, 2, cicp(9, 18)))
    near(hlg, shown(png(np.full((2, 2, 3), pq_value(nits)), 16, 2, cicp(9, 16))), 2)


def avif(colour: tuple[int, ...] = COLOUR, **options: bytes) -> bytes:
    return saved(Image.new("RGB", (32, 32), colour), "AVIF", quality=100, subsampling="4:4:4", **options)


def nclx(primaries: int, transfer: int) -> Callable[[bytes], bytes]:
    return lambda data: replaced(data, data.index(b"colrnclx") + 8, struct.pack(">HH", primaries, transfer))


@pytest.mark.parametrize(
    ("primaries", "transfer"), [(1, 13), (9, 13), (12, 13), (1, 8), (9, 16), (9, 18), (1, 4), (2, 2)]
)
def test_avif_and_png_code_points_mean_the_same(primaries: int, transfer: int) -> None:
    near(shown(nclx(primaries, transfer)(avif())), shown(flat_png(cicp(primaries, transfer))), 3)


@pytest.mark.parametrize("transfer", [1, 6, 14, 15])
def test_avif_with_a_video_curve_is_taken_for_srgb(transfer: int) -> None:
    near(shown(nclx(1, transfer)(avif())), COLOUR, 2)
    near(shown(nclx(9, transfer)(avif())), shown(flat_png(cicp(9, 13))), 3)


def test_an_icc_profile_counts_before_code_points_in_avif() -> None:
    found = shown(nclx(1, 8)(avif(icc_profile=swapped_profile())))
    assert found[0] > found[1] + 20


def test_an_avif_without_usable_colour_is_srgb() -> None:
    near(shown(nclx(99, 99)(avif())), COLOUR, 2)
    data = avif()
    colr = next(box for box in avif_items(data)[1].properties if box.kind == b"colr")
    near(shown(replaced(data, colr.body, b"junk")), COLOUR, 2)
