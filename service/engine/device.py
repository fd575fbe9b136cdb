"""The device side of the engine: with its tasks, all of the service that knows torch and the codec."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from model.config import TILE_SIDES
from model.weights.registry import DEFAULT_MODEL, Registry
from service.engine.messages import DeviceOptions
from service.engine.port import EncodeRequest, ModelInfo, Order, Outcome
from service.engine.profile import Profile, cached, measure, store
from service.engine.request import Report, Task, Unit
from service.engine.tasks import DecodeTask, EncodeTask, finish_encodes

log = logging.getLogger(__name__)
WARM_UP_SIDE = 64
PROBE_ROUNDS = 5
# Denoising passes that a GPU's worker prepares: small ones, whose kernels take less time than their launches.
PREPARED_SHAPES = (*((side, side) for side in TILE_SIDES if side <= 512), (512, 768), (768, 512))
PREPARED_ROWS = (1, 2, 4, 8, 16)
PREPARED_PIXELS = 1 << 20  # in one pass
SMALL_PASS_PIXELS = 1 << 16
CPU_PASS_PIXELS = 1 << 19  # of several rows: on a CPU larger passes gain nothing and make others wait


class TorchDevice:
    """The models on one device."""

    def __init__(self, options: DeviceOptions) -> None:
        """Load every installed model once and measure the device. Raises `model.errors.WeightsError`."""
        if options.threads:
            torch.set_num_threads(options.threads)
        self._threads = torch.get_num_threads()
        torch.set_flush_denormal(True)
        gpu = options.device == "auto" and torch.cuda.is_available()
        self.device = "cuda:0" if gpu else "cpu" if options.device == "auto" else options.device
        self.registry = Registry(options.models_dir, options.precision, self.device, options.models_memory_bytes)
        self.models = tuple(self._describe(info.name) for info in self.registry.infos())
        self.warm_up()
        if self.device != "cpu" and options.acceleration != "none":
            self._accelerate(compiled=options.acceleration == "compile")
        measured = (
            measure(self._probe, options.tick_seconds)
            if options.cache_dir is None
            else cached(options.cache_dir, self._fingerprint(), lambda: measure(self._probe, options.tick_seconds))
        )
        self._cache_dir = options.cache_dir
        self.profile = Profile(measured, options.tick_seconds, CPU_PASS_PIXELS if self.device == "cpu" else None)

    def task(self, number: int, order: Order) -> Task:
        """Make the task of a request, whose `prepare` finds its model."""
        if isinstance(order, EncodeRequest):
            return EncodeTask(number, order, lambda: self.registry.get(order.model), self._share_cores)
        codec_id = order.container.header.codec_id
        return DecodeTask(number, order, lambda: self.registry.for_file(codec_id, order.model), self._share_cores)

    def run(self, units: Sequence[tuple[Task, Unit]]) -> None:
        """One forward pass. Raises MemoryError when the device has too little memory for so many rows."""
        encodes = [(w, u) for w, u in units if isinstance(w, EncodeTask)]
        decodes = [(w, u) for w, u in units if isinstance(w, DecodeTask)]
        key = units[0][1].key
        pixels = len(units) * key.shape[0] * key.shape[1]
        self._share_cores(pixels if key.kind == "analyse" else SMALL_PASS_PIXELS + 1)
        with _memory_errors():
            if encodes:
                encodes[0][0].codec.analyse_tiles([(w.analysis, u.tile) for w, u in encodes])
            elif units[0][1].key.kind == "denoise":
                decodes[0][0].codec.denoise_tiles([(w.state, u.tile) for w, u in decodes])
            else:
                decodes[0][0].codec.condition_tiles([(w.state, u.tile) for w, u in decodes])
            if self.device != "cpu":
                torch.cuda.synchronize(self.device)  # a tick ends when its work has: caps and cancels depend on it

    def refine(self, task: Task, report: Report) -> None:
        """Refine an encode, in a thread for such. Raises MemoryError as `run`."""
        self._share_cores(SMALL_PASS_PIXELS + 1)
        with _memory_errors():
            task.refine(report)

    def finish(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Everything after the last tile, of one task or of several of one company. Raises MemoryError as `run`."""
        encodes = [task for task in tasks if isinstance(task, EncodeTask)]
        with _memory_errors():
            return [*finish_encodes(encodes)] if encodes else [t.finish() for t in tasks if isinstance(t, DecodeTask)]

    def _share_cores(self, pixels: int) -> None:
        """Choose how many cores an operation of this thread takes: one for small work.

        Its parts are shorter than a meeting of threads; requests beside one another fill the cores. A thread keeps what
        it had at its first operation until it is told again.
        """
        threads = 1 if pixels <= SMALL_PASS_PIXELS else self._threads
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)

    def keep_profile(self) -> None:
        """Store what was learned of the device's speed for the next start."""
        if self._cache_dir is not None:
            store(self._cache_dir, self._fingerprint(), self.profile.seconds)

    def warm_up(self) -> None:
        """Run a small image through, so that the first request does not pay for lazy initialisation."""
        codec = self.registry.get()
        data = codec.pack(codec.analyse(np.zeros((WARM_UP_SIDE, WARM_UP_SIDE, 3), np.uint8)), 128)
        codec.decode(data, steps=1)

    def _accelerate(self, *, compiled: bool) -> None:
        """Prepare passes of the default model, as many as memory allows; no others are prepared later."""
        codec = self.registry.get()
        if compiled:
            codec.compile()
        try:
            for height, width in PREPARED_SHAPES:
                for rows in PREPARED_ROWS:
                    if rows == 1 or rows * height * width <= PREPARED_PIXELS:
                        codec.prepare(rows, height, width)
        except torch.OutOfMemoryError:
            log.warning("memory for %d prepared passes only", len(codec.denoiser.prepared))
            torch.cuda.empty_cache()

    def _describe(self, name: str) -> ModelInfo:
        codec = self.registry.get(name)
        is_default = name == DEFAULT_MODEL
        kind = codec.architecture
        return ModelInfo(
            name,
            codec.codec_id.hex(),
            codec.default_steps,
            codec.max_steps,
            codec.parameters,
            is_default,
            fixed_rate=kind.fixed_rate,
            max_pixels=kind.max_pixels,
            step_cost=kind.step_cost,
            decode_bytes=kind.decode_bytes,
            encode_bytes=kind.encode_bytes,
            version=codec.info.version,
            whole_canvas=kind.whole_canvas,
            margin=kind.tiling.margin,
            encoder_margin=kind.tiling.encoder_margin,
            direct=codec.networks.has_base,
            default_gamma=codec.default_gamma,
            reductions=codec.reductions,
            radius=kind.tiling.radius,
            step_radius=kind.tiling.step_radius,
            max_effort=codec.max_effort,
        )

    def _probe(self, pixels: int) -> float:
        """Seconds of one denoising pass of that many pixels, a square: the least of five rounds."""
        codec = self.registry.get()
        side = round(pixels**0.5)
        black = codec.unpack(codec.pack(codec.analyse(np.zeros((side, side, 3), np.uint8)), 0))
        state = codec.start(black, steps=PROBE_ROUNDS + 1, gamma=1.0)
        codec.denoise_step(state)
        seconds = []
        for _ in range(PROBE_ROUNDS):
            start = time.perf_counter()
            codec.denoise_step(state)
            if self.device != "cpu":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    def _fingerprint(self) -> str:
        """Names all that decides speed: device, threads, arithmetic, torch, default model."""
        name = torch.cuda.get_device_name(self.device) if self.device != "cpu" else f"cpu{torch.get_num_threads()}"
        codec = self.registry.get()
        parts = (name, str(codec.dtype), torch.__version__, codec.info.architecture, str(codec.parameters))
        return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise MemoryError where torch has too little memory, on a GPU or not."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # what torch's CPU allocator says
            raise MemoryError(str(error)) from error
        raise
