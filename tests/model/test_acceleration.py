from __future__ import annotations

import torch
from torch import Tensor, nn

from model.acceleration import Inputs, Pass, PreparedDenoiser
from model.codec import Codec
from model.networks.denoiser import Denoiser
from model.types import Injected


def recorded(network: nn.Module, log: list[int]) -> object:
    """A way to prepare that keeps its inputs, as a graph does, and notes the rows of every pass."""

    def prepare(inputs: Inputs) -> Pass:
        def run(x: Tensor, modulation: Tensor, injected: Injected) -> Tensor:
            for own, given in zip(inputs.parts(), (x, modulation, *injected), strict=True):
                own[: len(given)].copy_(given)
            log.append(len(inputs.x))
            output: Tensor = network(inputs.x, inputs.modulation, inputs.injected)
            return output[: len(x)]

        return run

    return prepare


def denoiser() -> Denoiser:
    """A small one whose output is not zero."""
    network = Denoiser(24, 2).eval()
    nn.init.normal_(network.head.weight, std=0.1)
    return network


def arguments(rows: int, side: int) -> tuple[Tensor, Tensor, Injected]:
    x, modulation, (context,) = Denoiser(24, 2).blank(rows, side, side)
    return torch.randn_like(x), torch.randn_like(modulation), (torch.randn_like(context),)


def test_batches_take_the_smallest_preparation_that_holds_them() -> None:
    network, log = denoiser(), []
    prepared = PreparedDenoiser(network, recorded(network, log))  # type: ignore[arg-type]
    with torch.inference_mode():
        for rows in (1, 2, 4):
            prepared.prepare(Inputs(*network.blank(rows, 64, 64)))
        for rows, expected in ((1, [1]), (2, [2]), (3, [4]), (4, [4]), (5, [])):
            log.clear()
            given = arguments(rows, 64)
            output = prepared(*given)
            assert log == expected
            assert torch.allclose(output, network(*given), atol=1e-5)
        given = arguments(1, 128)  # of a shape that was not prepared
        log.clear()
        assert torch.equal(prepared(*given), network(*given))
        assert log == []
    assert sorted(prepared.prepared) == [(1, 64, 64), (2, 64, 64), (4, 64, 64)]


def test_leftovers_of_a_fuller_batch_do_not_reach_a_smaller_one() -> None:
    network = denoiser()
    prepared = PreparedDenoiser(network, recorded(network, []))  # type: ignore[arg-type]
    with torch.inference_mode():
        prepared.prepare(Inputs(*network.blank(4, 64, 64)))
        given = arguments(2, 64)
        before = prepared(*given).clone()
        prepared(*arguments(4, 64))
        assert torch.equal(prepared(*given), before)


def test_blank_arguments_are_in_the_networks_own_precision(codec: Codec) -> None:
    x, modulation, injected = codec.networks.denoiser.blank(2, 128, 64)
    assert x.shape == (2, 3, 128, 64)
    assert [tuple(m.shape) for m in injected] == [(2, 192, 16, 8)]
    assert {t.dtype for t in (x, modulation, *injected)} == {codec.dtype}
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (x, *injected))
    with torch.inference_mode():
        assert codec.networks.denoiser(x, modulation, injected).shape == x.shape
