"""The context model: float networks, their integer form, and the order in which symbols are coded."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from model.entropy import context_head
from model.entropy.context_head import Part, half_of, predict, put_half
from model.entropy.entropy_model import RDO, EntropyModel
from model.entropy.export import export_entropy_model, float_layers
from model.entropy.likelihood import FactorizedPrior
from model.entropy.passes import Pass, passes_of
from model.errors import CorruptStream, WeightsError
from model.networks.context import ContextModel

GROUPS = (2, 6)
M, N, F = 8, 4, 12


def decoder() -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(N, N, 5, 2, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(N, F, 5, 2, 2, 1),
        nn.ReLU(),
        nn.Conv2d(F, 2 * M, 3, padding=1),
    )


@pytest.fixture(scope="module")
def floats() -> tuple[nn.Sequential, ContextModel]:
    """A hyper-decoder and a context model with corrections that matter; their weights export exactly."""
    torch.manual_seed(5)
    hyper, context = decoder(), ContextModel(GROUPS, F, 16)
    with torch.no_grad():
        for parameter in (*hyper.parameters(), *context.parameters()):
            parameter.copy_(torch.randint(-32, 33, parameter.shape) / 128)
        hyper[4].bias[M:] += 20
    return hyper, context


@pytest.fixture(scope="module")
def model(floats: tuple[nn.Sequential, ContextModel]) -> EntropyModel:
    torch.manual_seed(6)
    hyper, context = floats
    log_gain = torch.linspace(-0.5, 1.0, 256)[:, None].repeat(1, M)
    return export_entropy_model(FactorizedPrior(N, init_scale=3.0), hyper, log_gain, context.layers())


def symbols(shape: tuple[int, ...], largest: int, seed: int = 0) -> np.ndarray:
    """Integers that no library's generator decides."""
    flat = (np.arange(int(np.prod(shape)), dtype=np.int64) + 977 * seed) * 2654435761 % 2**32 >> 13
    return (flat % (2 * largest + 1) - largest).astype(np.int32).reshape(shape)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 1)])
def test_images_that_are_predicted_together_get_what_they_get_alone(
    model: EntropyModel, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symbols, means and scale indices at rates of their own, to the last bit; also in strips shorter than an image."""
    rates = [0, 255, 100, 127, 31]
    hyper = np.stack([symbols((N, *size), 20, seed=k) for k in range(5)])
    y = torch.stack([torch.from_numpy(symbols((M, 4 * size[0], 4 * size[1]), 90, seed=k)) / 7 for k in range(5)])
    alone = [model.choose_latents(y[k : k + 1], hyper[k : k + 1], [rates[k]], worth=RDO) for k in range(5)]
    streams = [model.encode_latent(latent[0], indices[0]) for latent, _, indices in alone]
    for strip in (1 << 13, 24):
        monkeypatch.setattr(context_head, "STRIP_POSITIONS", strip)
        together = model.choose_latents(y, hyper, rates, worth=RDO)
        for k, (latent, means, indices) in enumerate(alone):
            np.testing.assert_array_equal(together[0][k], latent[0])
            assert torch.equal(together[1][k], means[0])
            assert torch.equal(together[2][k], indices[0])
        assert model.encode_latents(together[0], together[2]) == streams


def test_passes_cover_everything_once_and_see_only_what_came_before() -> None:
    seen = np.zeros((M, 2), dtype=int)  # by channel and parity
    for part in passes_of(GROUPS, M):
        assert part.parity is not None
        assert seen[: part.start].all()
        assert part.known == part.start or (part.known == part.stop and seen[part.start : part.stop, 0].all())
        seen[part.start : part.stop, part.parity] += 1
    assert (seen == 1).all()
    assert passes_of((), M) == (Pass(0, M, None, 0),)


@pytest.mark.parametrize("size", [(1, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("rate", [0, 127, 128, 255])
def test_symbols_come_back_with_their_means_and_scales(model: EntropyModel, size: tuple[int, int], rate: int) -> None:
    hyper, latent = symbols((N, *size), 20), symbols((M, 4 * size[0], 4 * size[1]), 40, seed=1)
    means, indices = model.parameters(hyper, rate, latent)
    stream = model.encode_latent(latent, indices)
    decoded = model.decode_latent(stream, hyper, rate)
    np.testing.assert_array_equal(decoded[0], latent)
    assert torch.equal(decoded[1], means)
    assert torch.equal(decoded[2], indices)


def test_golden_context_stream(model: EntropyModel, threads: int) -> None:
    """The same symbols give the same bytes, means and scales, with any number of threads."""
    hyper, latent = symbols((N, 3, 5), 20), symbols((M, 12, 20), 300, seed=2)
    means, indices = model.parameters(hyper, 200, latent)
    stream = model.encode_latent(latent, indices)
    digest = hashlib.sha256(stream + means.numpy().astype("<i4").tobytes() + indices.numpy().tobytes())
    assert digest.hexdigest() == GOLDEN_CONTEXT


GOLDEN_CONTEXT = "95357cf1bab0bed4fc1d7f53058ea16152d5427d934f6daf3830532f52c1f6f0"


def test_strips_do_not_matter(model: EntropyModel, monkeypatch: pytest.MonkeyPatch) -> None:
    hyper, latent = symbols((N, 4, 3), 20), symbols((M, 16, 12), 40)
    whole = model.parameters(hyper, 10, latent)
    monkeypatch.setattr(context_head, "STRIP_POSITIONS", 20)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(hyper, 10, latent), whole, strict=True))


def test_a_symbol_decides_only_what_is_coded_after_it(model: EntropyModel) -> None:
    hyper, latent = symbols((N, 3, 3), 20), symbols((M, 12, 12), 40)
    before = model.parameters(hyper, 100, latent)
    order = {(p.start, p.parity): k for k, p in enumerate(passes_of(GROUPS, M))}
    position = np.add.outer(np.arange(12), np.arange(12)) % 2
    number = np.stack([[order[(0 if c < 2 else 2, int(p))] for p in position.ravel()] for c in range(M)])
    number = number.reshape(M, 12, 12)
    for channel, row, column in ((0, 5, 5), (1, 5, 6), (4, 6, 6), (7, 3, 4)):
        changed = latent.copy()
        changed[channel, row, column] += 9
        after = model.parameters(hyper, 100, changed)
        differs = np.zeros((M, 12, 12), dtype=bool)
        for a, b in zip(before, after, strict=True):
            differs |= (a != b).numpy()
        own = number[channel, row, column]
        assert not differs[number <= own].any()
        assert differs.any() or own == number.max()
        assert not differs[:, :, [0, 11]].any()  # far away nothing changes: a window, or a chain of four


def test_integers_follow_the_float_context(model: EntropyModel, floats: tuple[nn.Sequential, ContextModel]) -> None:
    hyper_decoder, context = floats
    hyper, latent, rate = symbols((N, 4, 5), 10), symbols((M, 16, 20), 6), 200
    means, indices = model.parameters(hyper, rate, latent)
    y_hat = (torch.from_numpy(latent) + means / 16)[None]
    z_hat = (torch.from_numpy(hyper) + torch.from_numpy(model.medians)[:, None, None] / 256)[None]
    with torch.no_grad():
        features = hyper_decoder[:-1](z_hat)

        def sent(part: Pass, mask: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
            return y_hat[:, part.start : part.stop]

        mean, scale = context(features, hyper_decoder[4](features), torch.tensor([rate / 255]), sent)
        without = hyper_decoder[4](features)[:, :M]
    assert float((means / 16 - mean[0]).abs().max()) < 1 / 32 + 0.02
    assert float((mean - without).abs().max()) > 1  # the corrections are not idle
    gain = torch.from_numpy(model.head.gain_to_index[rate] / 256)[:, None, None]
    assert float((indices - (scale[0] + gain).clamp(0, 63)).abs().max()) < 0.5 + 0.1


def test_matrices_equal_integer_arithmetic(model: EntropyModel) -> None:
    """float64 products against int64 ones, at the largest inputs."""
    assert model.context is not None
    for net in model.context.nets:
        x = torch.from_numpy(symbols((net[0].kernel.shape[1], 7), 1).astype(np.int64)) * ((1 << 24) - 1)
        for layer in net:
            v = torch.from_numpy(layer.kernel.astype(np.int64)) @ x + layer.offset.long()
            expected = (v >> torch.from_numpy(layer.shift)[:, None]).clamp(
                0 if layer.relu else -layer.limit, layer.limit
            )
            found = layer.multiply(x.double())
            assert torch.equal(found.long(), expected)
            x = expected


def test_hostile_streams_are_refused_or_give_symbols(model: EntropyModel) -> None:
    hyper = symbols((N, 1, 1), 1 << 15)
    rng = np.random.default_rng(3)
    refused = 0
    for _ in range(100):
        try:
            latent, means, indices = model.decode_latent(rng.bytes(int(rng.integers(0, 200))), hyper, 255)
        except CorruptStream:
            refused += 1
            continue
        assert np.abs(latent).max() <= 1 << 15
        assert int(indices.max()) <= 63
        assert int(means.abs().max()) <= 1 << 20
    assert refused > 50


def test_the_largest_symbols_round_trip(model: EntropyModel) -> None:
    hyper = symbols((N, 1, 2), 1 << 15)
    latent = np.where(symbols((M, 4, 8), 1) < 0, -(1 << 15), 1 << 15).astype(np.int32)
    _, indices = model.parameters(hyper, 255, latent)
    np.testing.assert_array_equal(model.decode_latent(model.encode_latent(latent, indices), hyper, 255)[0], latent)


def test_a_model_with_context_needs_the_symbols(model: EntropyModel) -> None:
    with pytest.raises(ValueError, match="depend on the latents"):
        model.parameters(symbols((N, 1, 1), 3), 0)


def test_layers_come_back_from_their_integers(model: EntropyModel, floats: tuple[nn.Sequential, ContextModel]) -> None:
    found = float_layers(model)
    names = {f"hyper_decoder.{k}": v for k, v in floats[0].state_dict().items()}
    names |= {f"context.{k}": v for k, v in floats[1].state_dict().items()}
    assert found.keys() == names.keys()
    for name, tensor in names.items():
        torch.testing.assert_close(found[name], tensor, atol=2**-14, rtol=0, msg=name)


def test_the_codec_id_covers_groups_and_context(model: EntropyModel) -> None:
    tensors = model.to_tensors()
    again = EntropyModel.from_tensors(tensors)
    assert again.codec_id == model.codec_id
    without = EntropyModel(model.hyper_tables, model.latent_tables, model.medians, model.head)
    assert without.codec_id != model.codec_id
    changed = {**tensors, "context.1.2.bias": tensors["context.1.2.bias"] + 1}
    assert EntropyModel.from_tensors(changed).codec_id != model.codec_id
    for wrong in (np.array([8], np.int32), np.array([1, 7], np.int32), np.array([0, 8], np.int32)):
        with pytest.raises(WeightsError, match=r"context model|lacks"):
            EntropyModel.from_tensors({**tensors, "context.groups": wrong})


def test_the_exact_range_of_the_context_is_asserted(model: EntropyModel) -> None:
    tensors = dict(model.to_tensors())
    name = "context.2.1.bias"
    with pytest.raises(WeightsError, match="exact range"):
        EntropyModel.from_tensors({**tensors, name: tensors[name] + (1 << 53)})


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("context.1.0.kernel", np.s_[:, 1:]),
        ("context.1.1.kernel", np.s_[1:]),
        ("context.1.2.bias", np.s_[1:]),
        ("context.0.0.shift", np.s_[:0]),
        ("context.0.1.kernel", np.s_[..., None, None]),
        ("head.1.kernel", np.s_[1:]),
        ("head.2.kernel", np.s_[:, 1:]),
        ("head.2.kernel", np.s_[..., 0, 0]),
        ("head.0.bias", np.s_[None]),
        ("medians", np.s_[1:]),
        ("gain_to_index", np.s_[1:]),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(model: EntropyModel, name: str, cut: tuple[slice, ...]) -> None:
    tensors = model.to_tensors()
    with pytest.raises(WeightsError):
        EntropyModel.from_tensors({**tensors, name: tensors[name][cut]})
    with pytest.raises(WeightsError, match="gain"):
        EntropyModel.from_tensors({**tensors, "gain_to_index": tensors["gain_to_index"] + (1 << 30)})


def test_parts_are_in_raster_order_of_their_half(model: EntropyModel) -> None:
    hyper, found = symbols((N, 1, 1), 3), []

    def take(part: Part) -> np.ndarray:
        found.append((part.channels, part.parity, tuple(part.means.shape)))
        return np.zeros(part.means.shape, dtype=np.int32)

    z256 = torch.from_numpy(hyper.astype(np.int64) << 8)
    predict(model.head, model.context, z256[:, None], [0], take)
    assert found == [
        (slice(0, 2), 0, (2, 8)),
        (slice(0, 2), 1, (2, 8)),
        (slice(2, 8), 0, (6, 8)),
        (slice(2, 8), 1, (6, 8)),
    ]


@pytest.mark.parametrize("parity", [0, 1])
def test_halves_of_a_checkerboard(parity: int) -> None:
    x = torch.arange(3 * 4 * 6).view(3, 4, 6)
    mask = (torch.arange(4)[:, None] + torch.arange(6)) % 2 == parity
    half = half_of(x, parity)
    assert torch.equal(half, x[:, mask])
    back = torch.zeros_like(x)
    put_half(back, parity, half)
    assert torch.equal(back, x * mask)
