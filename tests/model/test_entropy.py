from __future__ import annotations

import hashlib
import time
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from model.entropy.coder import SYMBOL_LIMIT, SymbolCoder
from model.entropy.export_layers import export_head
from model.entropy.hyper_decoder import Z_LIMIT, IntegerHyperDecoder, IntegerLayer, _phases
from model.entropy.likelihood import (
    FactorizedPrior,
    gaussian_bin_probability,
    gaussian_bits,
    sigma_of_index,
)
from model.entropy.tables import COUNT_BITS, Tables, gaussian_tables, prior_tables, quantise_probabilities
from model.errors import CorruptStream, WeightsError


@pytest.fixture(scope="module")
def tables() -> Tables:
    return gaussian_tables()


@pytest.fixture(scope="module")
def coder(tables: Tables) -> SymbolCoder:
    return SymbolCoder(tables)


def draw(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of the Gaussian of their own scale index, none of which leaves its table."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 60, n).astype(np.uint8)
    sigma = sigma_of_index(torch.from_numpy(groups).double()).numpy()
    return np.round(rng.standard_normal(n) * sigma).astype(np.int32), groups


def test_sigma_levels_span_their_range() -> None:
    sigma = sigma_of_index(torch.tensor([0.0, 63.0]))
    assert sigma.tolist() == pytest.approx([0.1, 256.0])


def test_bin_probabilities_sum_to_one() -> None:
    offsets = torch.arange(-600.0, 601.0, dtype=torch.float64)
    for sigma in (0.1, 1.0, 64.0):
        assert float(
            gaussian_bin_probability(offsets, torch.tensor(sigma, dtype=torch.float64)).sum()
        ) == pytest.approx(1)


def test_tables_follow_the_float_model(tables: Tables) -> None:
    sigma = sigma_of_index(torch.arange(64, dtype=torch.float64))
    for group in range(64):
        counts = tables.table(group)
        values = torch.arange(len(counts) - 1, dtype=torch.float64) + int(tables.lowest[group])
        p = gaussian_bin_probability(values, sigma[group]).numpy()
        cross_entropy = -(p * np.log2(counts[:-1] / 2**COUNT_BITS)).sum()
        entropy = -(p * np.log2(p.clip(1e-300))).sum()
        assert cross_entropy - entropy < 0.001


def test_quantised_probabilities_sum_and_never_vanish() -> None:
    counts = quantise_probabilities(np.array([0.0, 1.0, 1e-12]), 0.0)
    assert counts.sum() == 1 << COUNT_BITS
    assert counts.min() >= 1


def test_tables_refuse_counts_that_do_not_sum() -> None:
    with pytest.raises(WeightsError):
        Tables(np.array([0], np.int32), np.array([2], np.int32), np.array([5, 6], np.int32))


def test_coded_size_is_near_the_entropy(coder: SymbolCoder) -> None:
    symbols, groups = draw(100_000)
    sigma = sigma_of_index(torch.from_numpy(groups).double())
    ideal = float(gaussian_bits(torch.from_numpy(symbols).double(), sigma).sum()) / 8
    assert ideal < len(coder.encode(symbols, groups)) < 1.001 * ideal + 8


def test_golden_stream(coder: SymbolCoder) -> None:
    """The same symbols give the same bytes for ever: every published file depends on it."""
    groups = np.arange(64, dtype=np.uint8).repeat(8)
    symbols = (np.arange(512) * 2654435761 % 2**32 >> 16).astype(np.int32) % 7 - 3
    symbols[[5, 300, 511]] = [-40, 3000, SYMBOL_LIMIT]
    stream = coder.encode(symbols, groups)
    assert hashlib.sha256(stream).hexdigest() == GOLDEN_STREAM
    np.testing.assert_array_equal(coder.decode(stream, groups), symbols)


GOLDEN_STREAM = "f1f6d8dc56cb950193da620a6384bf9c918e619462c2dee8bd78dd418250b358"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-SYMBOL_LIMIT, SYMBOL_LIMIT), st.integers(0, 63)), max_size=60))
def test_any_symbols_round_trip(coder: SymbolCoder, pairs: list[tuple[int, int]]) -> None:
    symbols = np.array([p[0] for p in pairs], dtype=np.int32)
    groups = np.array([p[1] for p in pairs], dtype=np.uint8)
    np.testing.assert_array_equal(coder.decode(coder.encode(symbols, groups), groups), symbols)


def test_random_streams_are_refused_or_give_symbols_in_range(coder: SymbolCoder) -> None:
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 64, 500).astype(np.uint8)
    refused = 0
    for _ in range(300):
        stream = rng.bytes(int(rng.integers(0, 120)))
        try:
            assert np.abs(coder.decode(stream, groups)).max() <= SYMBOL_LIMIT
        except CorruptStream:
            refused += 1
    assert refused > 200


def test_leftovers_are_refused(coder: SymbolCoder) -> None:
    symbols, groups = draw(200)
    stream = coder.encode(symbols, groups)
    assert stream[0] == 0  # no escapes
    for damaged in (stream + bytes(8), b"\x01\x00" + stream[1:], stream + b"\x00", b"", b"\xff"):
        with pytest.raises(CorruptStream):
            coder.decode(damaged, groups)


def test_a_huge_escape_is_refused(coder: SymbolCoder) -> None:
    groups = np.zeros(1, dtype=np.uint8)
    escaped = coder.encode(np.array([100], dtype=np.int32), groups)
    length = escaped[0]
    forged = b"\x09" + b"\xff" * 8 + b"\x7f" + escaped[1 + length :]
    with pytest.raises(CorruptStream):
        coder.decode(forged, groups)


def test_escapes_cost_what_other_symbols_do(coder: SymbolCoder) -> None:
    """A hostile file may be escapes throughout: one by one they were 60 to 110 times as dear, together 3 times."""
    groups = np.zeros(200_000, dtype=np.uint8)
    seconds = []
    for value in (0, 300):
        stream = coder.encode(np.full(groups.size, value, np.int32), groups)
        start = time.process_time()
        assert (coder.decode(stream, groups) == value).all()
        seconds.append(time.process_time() - start)
    assert seconds[1] < 10 * seconds[0]


def test_phases_equal_the_transposed_convolution() -> None:
    kernel = torch.randn(5, 7, 5, 5, dtype=torch.float64)
    x = torch.randn(1, 5, 6, 4, dtype=torch.float64)
    expected = F.conv_transpose2d(x, kernel, stride=2, padding=2, output_padding=1)
    torch.testing.assert_close(F.pixel_shuffle(F.conv2d(x, _phases(kernel), padding=1), 2), expected)


def small_decoder() -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(8, 8, 5, 2, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 12, 5, 2, 2, 1),
        nn.ReLU(),
        nn.Conv2d(12, 16, 3, padding=1),
    )


def run(head: IntegerHyperDecoder, z256: torch.Tensor, rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means and scale indices of a head without context."""
    means, scales = head.parameters(head.features(z256[:, None]))
    return means[:, 0], head.indices(scales.flatten(1), [rate], slice(None)).view(means[:, 0].shape)


def test_integer_head_follows_the_float_hyper_decoder() -> None:
    decoder = small_decoder().double()
    head = export_head(decoder, torch.zeros(256, 8))
    z256 = torch.randint(-2560, 2560, (8, 40, 9))  # taller than one strip
    mean, scale = decoder(z256[None].double() / 256)[0].detach().chunk(2)
    means, indices = run(head, z256, 100)
    assert float((means / 16 - mean).abs().max()) < 1 / 32 + 0.002
    assert float((indices - scale.clamp(0, 63)).abs().max()) < 0.5 + 0.005


def test_integer_head_equals_integer_arithmetic() -> None:
    """float64 matrix products against Python-exact int64 convolution, at the largest inputs."""
    head = export_head(small_decoder(), torch.linspace(-0.5, 2, 256)[:, None].repeat(1, 8))
    x = torch.randint(0, 2, (8, 3, 5)) * (2 * Z_LIMIT) - Z_LIMIT
    out = x
    for layer in head.layers:
        weight = layer.weight.long().view(-1, out.shape[0], 3, 3)
        padded = F.pad(out, (1, 1, 1, 1))
        columns = padded.unfold(1, 3, 1).unfold(2, 3, 1)
        sums = torch.einsum("oiab,iywab->oyw", weight, columns)
        v = sums + layer.offset.long()[:, :, None]
        shift = torch.from_numpy(layer.shift).repeat_interleave(layer.upsample**2)[:, None, None]
        out = (v >> shift).clamp(0 if layer.relu else -layer.limit, layer.limit)
        if layer.upsample == 2:
            out = F.pixel_shuffle(out.double()[None], 2)[0].long()
    means, indices = run(head, x, 37)
    torch.testing.assert_close(means.long(), out[:8])
    expected = (out[8:] + torch.from_numpy(head.gain_to_index[37]).long()[:, None, None] + 128) >> 8
    torch.testing.assert_close(indices.long(), expected.clamp(0, 63))


def test_integer_head_clamps_hostile_input() -> None:
    head = export_head(small_decoder(), torch.zeros(256, 8))
    far = torch.full((8, 1, 1), 10**9)
    for given_, clamped in ((far, Z_LIMIT), (-far, -Z_LIMIT)):
        expected = run(head, torch.full((8, 1, 1), clamped), 0)
        assert all(torch.equal(a, b) for a, b in zip(run(head, given_, 0), expected, strict=True))


def test_the_exact_range_is_asserted() -> None:
    kernel = np.full((2, 4096, 3, 3), 32767, dtype=np.int16)
    layer = IntegerLayer(kernel, np.zeros(2, np.int64), np.full(2, 20), relu=False, limit=1 << 20)
    layer.check(1 << 20)
    with pytest.raises(WeightsError, match="exact range"):
        layer.check(1 << 24)


def test_head_refuses_a_gain_table_that_does_not_fit() -> None:
    good = export_head(small_decoder(), torch.zeros(256, 8))
    with pytest.raises(WeightsError):
        IntegerHyperDecoder(good.layers, np.zeros((256, 7), np.int32))


def test_code_lengths_are_those_of_the_stream(coder: SymbolCoder) -> None:
    symbols, groups = draw(20_000, seed=4)
    symbols[:5] = [3000, -3000, 100, -5, 2]
    assert coder.bits(symbols, groups).sum() / 8 == pytest.approx(len(coder.encode(symbols, groups)), abs=16)


def test_prior_tables_follow_the_prior() -> None:
    torch.manual_seed(3)
    prior = FactorizedPrior(4, init_scale=5.0)
    tables = prior_tables(prior, torch.zeros(4))
    for channel in range(4):
        counts = tables.table(channel)
        values = torch.arange(len(counts) - 1) + int(tables.lowest[channel])
        p = prior.bin_probability(values.double().repeat(4, 1, 1))[channel, 0].detach().numpy()
        np.testing.assert_allclose(counts[:-1] / 2**COUNT_BITS, p, atol=1e-4)


def test_prior_agrees_with_compressai() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CompressAI imports torch.jit.script
        models = pytest.importorskip("compressai.entropy_models", reason="CompressAI has no wheels for this Python")
    bottleneck = models.EntropyBottleneck(6, filters=(3, 3, 3, 3))
    bottleneck, prior = bottleneck.double(), FactorizedPrior(6).double()  # the tails of float32 cancel differently
    with torch.no_grad():
        for i in range(prior.depth):
            prior.matrices[i].copy_(bottleneck.matrices[i].normal_())
            prior.biases[i].copy_(bottleneck.biases[i])
            if i < prior.depth - 1:
                prior.factors[i].copy_(bottleneck.factors[i].normal_())
    z = torch.randn(2, 6, 3, 4).double() * 2
    _, likelihood = bottleneck.eval()(z)
    medians = bottleneck.quantiles[:, 0, 1].view(1, -1, 1, 1)
    expected = -torch.log2(likelihood).sum(dim=(1, 2, 3))
    torch.testing.assert_close(prior.bits(torch.round(z - medians) + medians), expected, rtol=1e-4, atol=1e-3)
