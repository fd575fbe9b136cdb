from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from model.codec import Codec
from model.container import Section, SectionType, parse
from model.errors import CorruptStream, FileError, InvalidParameter, LimitExceeded, TargetUnreachable, UnknownCodec
from model.rate_control import pack_to_target
from model.tiling import Tiling, spans, tiles

GOLDEN = Path(__file__).parent.parent / "data" / "golden.cdc"
GOLDEN_SYMBOLS = "d6bc3a1327737c165014bb227e260a9096d0d4eab3e6ccd25d60d0f7ca9c7160"


WHOLE = Tiling(tile=2048)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(65025 / np.square(a.astype(float) - b).mean()))


def digest(codec: Codec, data: bytes) -> str:
    """SHA-256 over symbols, scale indices and means of a file."""
    q = codec.unpack(data).quantised
    arrays = (q.hyper.astype("<i4"), q.latent.astype("<i4"), q.indices.numpy(), q.means.numpy().astype("<i4"))
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def test_round_trip_is_a_good_picture(codec: Codec, crop: np.ndarray) -> None:
    latents = codec.analyse(crop)
    quality = [psnr(codec.decode(codec.pack(latents, rate), 1, 0.0), crop) for rate in (0, 128, 255)]
    assert quality[0] > 19
    assert quality[1] > quality[0] + 3
    assert quality[2] > quality[1] + 3


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (63, 65), (64, 64), (17, 129)])
def test_any_size_round_trips(codec: Codec, photograph: np.ndarray, size: tuple[int, int]) -> None:
    pixels = photograph[: size[0], : size[1]]
    decoded = codec.decode(codec.pack(codec.analyse(pixels), 255), 2, 0.5)
    assert decoded.shape == pixels.shape
    assert psnr(decoded, pixels) > 25


def test_the_file_carries_what_the_encoder_saw(codec: Codec, crop: np.ndarray) -> None:
    sent = codec.quantise(codec.analyse(crop), 77)
    got = codec.unpack(codec.pack(codec.analyse(crop), 77)).quantised
    np.testing.assert_array_equal(got.hyper, sent.hyper)
    np.testing.assert_array_equal(got.latent, sent.latent)
    assert torch.equal(got.indices, sent.indices)
    assert torch.equal(got.means, sent.means)
    assert torch.equal(got.y_hat * 16, (got.y_hat * 16).round())


def test_optimised_symbols_save_rate_for_little_distortion(codec: Codec, crop: np.ndarray) -> None:
    latents = codec.analyse(crop)
    chosen = codec.quantise(latents, 60)
    with torch.no_grad():
        y = codec.networks.latent(latents.features[None], torch.tensor([60 / 255]))[0]
    residual = (y - chosen.means / 16).numpy()
    nearest = np.round(residual).astype(np.int32)
    assert np.all(np.abs(chosen.latent) <= np.abs(nearest))
    assert np.all(np.abs(chosen.latent - nearest) <= 1)
    sizes = [len(codec.entropy.encode_latent(k, chosen.indices)) for k in (chosen.latent, nearest)]
    assert sizes[0] < 0.95 * sizes[1]
    error = [np.square(residual - k).mean() for k in (chosen.latent, nearest)]
    assert error[0] < 1.1 * error[1]


def test_golden_file_decodes_to_its_symbols(codec: Codec, threads: int) -> None:
    assert digest(codec, GOLDEN.read_bytes()) == GOLDEN_SYMBOLS


def test_golden_file_decodes_alike_in_a_fresh_process() -> None:
    script = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); from test_codec import GOLDEN, digest\n"
        "from model.weights.registry import Registry\n"
        "print(digest(Registry(precision='float32').get(), GOLDEN.read_bytes()))"
    )
    argv = [sys.executable, "-c", script, str(Path(__file__).parent)]
    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip() == GOLDEN_SYMBOLS


def test_decoding_is_reproducible_and_the_seed_matters(codec: Codec, crop: np.ndarray) -> None:
    latents = codec.analyse(crop)
    data = codec.pack(latents, 60)
    first = codec.decode(data, 3, 0.8)
    np.testing.assert_array_equal(first, codec.decode(data, 3, 0.8))
    np.testing.assert_array_equal(first, codec.decode(data, 3, 0.8, seed=codec.unpack(data).seed))
    assert not np.array_equal(first, codec.decode(data, 3, 0.8, seed=1))
    with_more = codec.pack(latents, 60, [Section(SectionType.EXIF, b"II*\0")])
    np.testing.assert_array_equal(first, codec.decode(with_more, 3, 0.8))
    assert codec.unpack(with_more).sections == (Section(SectionType.EXIF, b"II*\0"),)


def test_parameters_out_of_range(codec: Codec, crop: np.ndarray) -> None:
    unpacked = codec.unpack(codec.pack(codec.analyse(crop), 0))
    for wrong in (
        {"steps": 0},
        {"steps": 9000},
        {"gamma": -0.1},
        {"gamma": 2.1},
        {"gamma": float("nan")},
        {"gamma": 0.8, "seed": -1},
    ):
        with pytest.raises(InvalidParameter):
            codec.start(unpacked, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter):
        codec.analyse(crop.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter):
        codec.analyse(crop[:, :, :2])
    with pytest.raises(InvalidParameter):
        codec.analyse(np.zeros((1, 70000, 3), np.uint8))


def test_file_errors(codec: Codec, crop: np.ndarray) -> None:
    data = codec.pack(codec.analyse(crop), 128)
    with pytest.raises(LimitExceeded):
        codec.unpack(data, max_pixels=100)
    container = parse(data)
    other = type(container.header)(b"\0" * 8, 150, 120, 128)
    with pytest.raises(UnknownCodec):
        codec.unpack(type(container)(other, container.sections))
    larger = type(container.header)(codec.codec_id, 1500, 1200, 128)
    with pytest.raises(CorruptStream):
        codec.unpack(type(container)(larger, container.sections))


def test_damaged_symbols_with_a_right_checksum(codec: Codec, crop: np.ndarray) -> None:
    """A garbage stream may decode to garbage symbols, but never crashes and never leaves the typed errors."""
    container = parse(codec.pack(codec.analyse(crop), 128))
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(40):
        streams = [bytearray(s.data) for s in container.sections]
        victim = streams[number % 2]
        for position in rng.integers(0, len(victim), 3):
            victim[position] = int(rng.integers(256))
        sections = tuple(Section(t, bytes(d)) for t, d in zip((1, 2), streams, strict=True))
        try:
            unpacked = codec.unpack(type(container)(container.header, sections))
        except FileError:
            refused += 1
            continue
        state = codec.start(unpacked, 1, 0.0)
        codec.denoise_step(state)
        assert codec.finish(state).shape == crop.shape
    assert refused > 10


def test_spans_cover_without_gap_and_keep_the_margin() -> None:
    for length in (64, 1024, 1088, 2000 // 16 * 16, 5008):
        covered = spans(length, 1024, 224)
        assert [s.start for s in covered] == [0, *[s.stop for s in covered[:-1]]]
        assert covered[-1].stop == length
        for s in covered:
            assert s.origin % 16 == 0
            assert s.origin + s.size <= length
            assert s.start - s.origin >= 224 or s.origin == 0
            assert s.origin + s.size - s.stop >= 224 or s.origin + s.size == length
    assert len(tiles(1024, 2048, 1024, 224)) == 3


@pytest.mark.parametrize(
    ("tiling", "count"), [(Tiling(640, 224, 224), 4), (Tiling(640), 3)], ids=["full margin", "margin of the model"]
)
def test_tiled_equals_whole(codec: Codec, photograph: np.ndarray, tiling: Tiling, count: int) -> None:
    """At a margin beyond the receptive radius, tiles change nothing but the last bits of float sums.

    The model's own margin is smaller; with trained weights what it leaves out is far below a level of 8 bits.
    """
    wide = np.ascontiguousarray(np.tile(photograph[100:164], (1, 3, 1))[:, :1216])
    codec.tiling = WHOLE
    whole_latents = codec.analyse(wide)
    data = codec.pack(whole_latents, 128)
    whole = codec.start(codec.unpack(data), 3, 0.8)
    codec.tiling = tiling
    try:
        tiled_latents = codec.analyse(wide)
        tiled = codec.start(codec.unpack(data), 3, 0.8)
    finally:
        codec.tiling = Tiling()
    assert len(tiled.tiles) == count
    torch.testing.assert_close(tiled_latents.features, whole_latents.features, atol=1e-4, rtol=0)
    while not whole.done:
        codec.denoise_step(whole)
        codec.denoise_step(tiled)
    torch.testing.assert_close(tiled.x, whole.x, atol=1e-4, rtol=0)


@pytest.mark.parametrize("sides", [(64, 64), (100, 30), (128, 128)])
def test_images_that_are_packed_together_give_the_files_they_give_alone(
    codec: Codec, photograph: np.ndarray, sides: tuple[int, int]
) -> None:
    images = [photograph[50 * k : 50 * k + sides[0], 60 * k : 60 * k + sides[1]] for k in range(5)]
    latents, rates = [codec.analyse(image) for image in images], (0, 120, 255, 60, 200)
    sections = [[], [Section(SectionType.EXIF, b"II*\0")], [], [], []]
    alone = [codec.pack(*of_one) for of_one in zip(latents, rates, sections, strict=True)]
    for count in (2, 3, 5):
        together = codec.pack_together(list(zip(latents, rates, sections, strict=True))[:count])
        assert together == alone[:count]


def test_rows_of_different_decodes_share_a_pass(codec: Codec, photograph: np.ndarray) -> None:
    """Whatever shares the batch, each decode gets what it gets alone: its own step, rate, gamma and seed."""
    pictures = [photograph[100 * k : 100 * k + 100, 200:320] for k in range(3)]
    files = [codec.pack(codec.analyse(p), rate) for p, rate in zip(pictures, (10, 120, 250), strict=True)]
    options = [(2, 0.0, None), (3, 0.8, 5), (5, 1.3, 6)]
    alone = [codec.decode(f, *o) for f, o in zip(files, options, strict=True)]
    states = [codec.start(codec.unpack(f), *o) for f, o in zip(files, options, strict=True)]
    codec.condition_tiles([(s, 0) for s in states])
    while active := [s for s in states if not s.done]:
        codec.denoise_tiles([(s, 0) for s in active])
    for state, expected in zip(states, alone, strict=True):
        difference = np.abs(codec.finish(state).astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.001


def test_a_tile_is_not_denoised_before_it_is_conditioned(codec: Codec, crop: np.ndarray) -> None:
    state = codec.start(codec.unpack(codec.pack(codec.analyse(crop), 0)), 2, 0.8)
    before = state.x.clone()
    with pytest.raises(ValueError, match="conditioner"):
        codec.denoise_tiles([(state, 0)])
    assert state.position == 0
    assert torch.equal(state.x, before)


def test_preview_is_the_present_guess(codec: Codec, crop: np.ndarray) -> None:
    unpacked = codec.unpack(codec.pack(codec.analyse(crop), 60))
    state = codec.start(unpacked, 4, 0.8, keep_x0=True)
    codec.denoise_step(state)
    preview = codec.preview(state)
    assert preview is not None
    assert psnr(preview, crop) > 23
    assert psnr(codec.finish(state), crop) < psnr(preview, crop)  # x_n is still noisy
    assert codec.preview(codec.start(unpacked, 1, 0.0)) is None


def test_targets(codec: Codec, crop: np.ndarray) -> None:
    latents = codec.analyse(crop)
    sizes = [len(codec.pack(latents, rate)) for rate in range(256)]
    pixels = crop.shape[0] * crop.shape[1]
    for budget in (sizes[0], sizes[90] + 1, sizes[255], 10**6):
        packed = pack_to_target(codec, latents, max_bytes=budget)
        assert len(packed.data) <= budget
        assert packed.rate == 255 or len(codec.pack(latents, packed.rate + 1)) > budget
    packed = pack_to_target(codec, latents, target_bpp=1.0)
    nearest = min(abs(s * 8 / pixels - 1.0) for s in sizes)
    assert abs(len(packed.data) * 8 / pixels - 1.0) <= nearest + 0.002
    assert packed.target == "met"
    beyond = pack_to_target(codec, latents, target_bpp=100)
    assert (beyond.rate, beyond.target) == (255, "unmet")
    assert pack_to_target(codec, latents, max_bytes=10**6).target == "met"
    assert pack_to_target(codec, latents, quality=50).target is None
    assert pack_to_target(codec, latents).quality == 50
    assert pack_to_target(codec, latents, quality=1).rate == 0
    assert pack_to_target(codec, latents, quality=100).rate == 255
    with pytest.raises(TargetUnreachable):
        pack_to_target(codec, latents, max_bytes=sizes[0] - 1)
    for wrong in (
        {"quality": 0},
        {"quality": 101},
        {"max_bytes": 0},
        {"target_bpp": -1.0},
        {"quality": 5, "max_bytes": 5},
    ):
        with pytest.raises(InvalidParameter):
            pack_to_target(codec, latents, **wrong)  # type: ignore[arg-type]


def test_sections_count_towards_the_budget(codec: Codec, crop: np.ndarray) -> None:
    latents = codec.analyse(crop)
    plain = pack_to_target(codec, latents, max_bytes=3000)
    extra = pack_to_target(codec, latents, max_bytes=3000, sections=[Section(SectionType.EXIF, bytes(1000))])
    assert len(extra.data) <= 3000
    assert extra.rate < plain.rate
