"""The decoder's networks of cdc-lite as ONNX graphs, with weights in int8 where that costs nothing that can be seen.

Only blocks are stored in int8, a scale an output channel: what enters and leaves the transform scales amplitudes, and a
256th of jitter there is 0.5 dB at high rates (docs/benchmarks.md). Everything computes in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from model.errors import WeightsError
from model.networks.denoiser import HARMONICS, Denoiser
from model.networks.depthwise import BLOCK, COLOUR, DepthwiseBlock
from model.networks.lite import LARGEST_INDEX, CDCLite
from model.networks.transforms import MEANS, PATCH
from model.weights.int8 import as_int8

OPSET, IR_VERSION = 17, 8  # what browsers and phones have run for years


class Graph:
    """An ONNX graph under construction; values are names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; return its output, or the list of them."""
        names = [f"v{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values: npt.NDArray[Any]) -> str:
        """A stored array."""
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def floats(self, *values: float) -> str:
        """A stored vector of float32."""
        return self.constant(np.array(values, np.float32))

    def half(self, values: Tensor) -> str:
        """A tensor stored in float16."""
        stored = self.constant(values.detach().numpy().astype(np.float16))
        return str(self.op("Cast", stored, to=TensorProto.FLOAT))

    def int8(self, weight: Tensor) -> str:
        """A tensor [out, ...] stored in int8, with a float32 scale an output."""
        stored, scale = as_int8(weight)
        value = self.op("Cast", self.constant(stored.numpy()), to=TensorProto.FLOAT)
        return str(self.op("Mul", value, self.constant(scale.numpy())))

    def conv(self, x: str, layer: nn.Conv2d, *, coarse: bool = False) -> str:
        """A convolution; `coarse` stores its weights in int8."""
        weight = self.int8(layer.weight) if coarse else self.half(layer.weight)
        side = layer.kernel_size[0]
        assert layer.bias is not None
        bias = self.half(layer.bias)
        pads = [side // 2] * 4
        return str(self.op("Conv", x, weight, bias, group=layer.groups, kernel_shape=[side, side], pads=pads))

    def silu(self, x: str) -> str:
        """x sigmoid(x)."""
        return str(self.op("Mul", x, self.op("Sigmoid", x)))

    def block(self, x: str, block: nn.Module, skip: str | None = None) -> str:
        """A `DepthwiseBlock`, `skip` as there; its depthwise layer is too small to be worth int8."""
        assert isinstance(block, DepthwiseBlock)
        h = self.silu(self.conv(x, block.before, coarse=True))
        h = self.conv(self.conv(h, block.depthwise), block.after, coarse=True)
        x = self.op("Add", x if skip is None else skip, h)
        h = self.conv(self.silu(self.conv(x, block.expand, coarse=True)), block.contract, coarse=True)
        return str(self.op("Add", x, h))

    def level(self, table: Tensor, q: str) -> str:
        """table [levels, C] at q [1], linear between the levels: [1, C, 1, 1]."""
        last = table.shape[0] - 1
        position = self.op("Mul", q, self.floats(last))
        low = self.op(
            "Clip",
            self.op("Floor", position),
            self.constant(np.array(0, np.float32)),
            self.constant(np.array(last - 1, np.float32)),
        )
        fraction = self.op("Sub", position, low)
        row = self.op("Cast", low, to=TensorProto.INT64)
        stored = self.constant(table.detach().numpy().astype(np.float32))
        below = self.op("Gather", stored, row)
        above = self.op("Gather", stored, self.op("Add", row, self.constant(np.array([1], np.int64))))
        value = self.op("Add", below, self.op("Mul", self.op("Sub", above, below), fraction))
        return str(self.op("Reshape", value, self.constant(np.array([1, -1, 1, 1], np.int64))))

    def shuffle(self, x: str, factor: int) -> str:
        """Pixel shuffle, channels of torch's order."""
        return str(self.op("DepthToSpace", x, blocksize=factor, mode="CRD"))

    def model(self, inputs: dict[str, list[Any]], outputs: dict[str, tuple[str, list[Any]]]) -> bytes:
        """The file. Inputs: name -> shape; outputs: name -> value and shape."""
        for name, (value, _) in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        infos = [
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in given]
            for given in (inputs.items(), ((n, shape) for n, (_, shape) in outputs.items()))
        ]
        graph = helper.make_graph(self.nodes, "cdc", infos[0], infos[1], self.initializers)
        opset = [helper.make_opsetid("", OPSET)]
        made = helper.make_model(graph, producer_name="cdc", opset_imports=opset, ir_version=IR_VERSION)
        onnx.checker.check_model(made, full_check=True)
        return bytes(made.SerializeToString(deterministic=True))


def synthesis_graph(networks: CDCLite) -> bytes:
    """The graph from the integers' meaning to the image of least error.

    Inputs: `y_hat`, `mean` float32 [1, M, h, w] in quantisation steps, `index` likewise in 0..63, `q` [1] in [0, 1].
    Outputs: `base` [1, 3, 16 h, 16 w] in about [-1, 1], `context` [1, C, 2 h, 2 w] for the denoiser.
    """
    g, g_s, m = Graph(), networks.g_s, networks.latents
    gain = g.op("Exp", g.level(networks.log_shrink - networks.log_gain, "q"))
    y, mean = g.op("Mul", "y_hat", gain), g.op("Mul", "mean", gain)
    index = g.op("Mul", "index", g.floats(1 / LARGEST_INDEX))
    less_dc = g.constant(np.array([1 / BLOCK] * MEANS + [1.0] * (m - MEANS), np.float32).reshape(1, m, 1, 1))
    known = g.op("Concat", g.op("Mul", mean, less_dc), index, axis=1)
    coarse = g.op("Add", g.conv(g.op("Mul", y, less_dc), g_s.stem), g.conv(known, g_s.prior))
    coarse = g.op("Mul", coarse, g.op("Exp", g.level(g_s.log_rate, "q")))
    for block in g_s.coarse:
        coarse = g.block(coarse, block)
    fine = g.shuffle(g.conv(coarse, g_s.up), 2)
    for block in g_s.fine:
        fine = g.block(fine, block)
    detail = g.shuffle(g.conv(fine, g_s.head), PATCH)
    turn = (COLOUR.T / BLOCK).numpy().astype(np.float32).reshape(MEANS, MEANS, 1, 1)
    first = g.op("Slice", y, *(g.constant(np.array([v], np.int64)) for v in (0, MEANS, 1)))
    means = g.op("Conv", first, g.constant(turn), kernel_shape=[1, 1])
    spread = g.op("Resize", means, "", g.floats(1, 1, BLOCK, BLOCK), mode="nearest", nearest_mode="floor",
                  coordinate_transformation_mode="asymmetric")  # fmt: skip
    base = g.op("Add", detail, spread)
    shape = [1, m, "h", "w"]
    return g.model(
        {"y_hat": shape, "mean": shape, "index": shape, "q": [1]},
        {"base": (base, [1, 3, "height", "width"]), "context": (fine, [1, g_s.head.in_channels, "h2", "w2"])},
    )


def denoiser_graph(networks: CDCLite) -> bytes:
    """A denoising step's network.

    Inputs: `x` float32 [1, 3, H, W], `context` [1, C, H/8, W/8], `t` [1] in (0, 1], `q` [1] in [0, 1].
    Output: `x0` [1, 3, H, W].
    """
    g, net = Graph(), networks.denoiser
    film = _film(g, net)
    patches = _unshuffle(g, "x")
    h = g.op("Add", g.conv(patches, net.noise), g.conv("context", net.context))
    parts = g.op("Split", film, outputs=2 * len(net.blocks), axis=1)
    for block, scale, shift in zip(net.blocks, parts[::2], parts[1::2], strict=True):
        h = g.block(g.op("Add", g.op("Mul", h, g.op("Add", scale, g.floats(1))), shift), block, h)
    out = g.op("Add", g.conv(h, net.head), g.op("Mul", g.conv(h, net.gate), patches))
    image = [1, 3, "height", "width"]
    return g.model(
        {"x": image, "context": [1, net.noise.out_channels, "h2", "w2"], "t": [1], "q": [1]},
        {"x0": (g.shuffle(out, PATCH), image)},
    )


def _film(g: Graph, net: Denoiser) -> str:
    """FiLM coefficients of all blocks from `t` and `q`, [1, S, 1, 1]."""
    parts = []
    for v in ("t", "q"):
        angles = g.op("Mul", v, g.floats(*(math.pi * k for k in range(1, HARMONICS + 1))))
        parts += [v, g.op("Sin", angles), g.op("Cos", angles)]
    row = g.op("Unsqueeze", g.op("Concat", *parts, axis=0), g.constant(np.array([0], np.int64)))
    first, last = net.time[0], net.time[2]
    if not (isinstance(first, nn.Linear) and isinstance(last, nn.Linear)):
        raise WeightsError("the denoiser's embedding of time is not the one that is exported")
    h = g.silu(g.op("Gemm", row, g.half(first.weight), g.half(first.bias), transB=1))
    film = g.op("Gemm", h, g.int8(last.weight), g.half(last.bias), transB=1)
    return str(g.op("Reshape", film, g.constant(np.array([1, -1, 1, 1], np.int64))))


def _unshuffle(g: Graph, x: str) -> str:
    """Pixel unshuffle by the patch: [1, 3, H, W] -> [1, 192, H/8, W/8], channels of torch's order."""
    kernel = np.zeros((3 * PATCH * PATCH, 3, PATCH, PATCH), np.int8)
    for channel in range(len(kernel)):
        colour, place = divmod(channel, PATCH * PATCH)
        kernel[channel, colour, place // PATCH, place % PATCH] = 1
    weight = g.op("Cast", g.constant(kernel), to=TensorProto.FLOAT)
    return str(g.op("Conv", x, weight, kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH]))
