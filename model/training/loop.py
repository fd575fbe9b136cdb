"""The training loop, on Lightning Fabric: the same code on one CPU, one GPU or many.

    draw crops, rates and noise -> predict -> loss -> step -> average

All randomness of a step comes from (seed, step, device), and crops from their number, so a run that was killed and
resumed goes on exactly as if it had not been.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file
from torch import Tensor

from model.architecture import architecture_of
from model.diffusion.schedule import Schedule
from model.errors import InvalidParameter, WeightsError
from model.perceptual import ShiftedDistance, load_distance
from model.precision import faster_dtype
from model.sources import open_sources
from model.training import snapshot
from model.training.config import TrainingConfig
from model.training.crops import CropRule, Crops, batches
from model.training.ema import Ema
from model.training.lite import LiteTraining
from model.training.losses import Loss
from model.training.module import TrainingModule, training_module_of
from model.training.rates import learning_rate, progress
from model.training.report import Line, Report
from model.training.sampler import UNJUDGED, SamplerTraining
from model.training.snapshot import Snapshot
from model.training.start import start_as_klt
from model.training.validation import codec_of, evaluate, pictures_of

log = logging.getLogger(__name__)
KLT_CROPS, RESIDUAL_CROPS = 128, 32  # that the start, and the size of the residual, are fitted to
SEED_STRIDE = 1_000_003  # between the seeds of two steps; devices take the numbers between


class Trainer:
    """One run: its model, optimiser and place in the data."""

    def __init__(self, config: TrainingConfig, out: Path, *, resume: bool = False) -> None:
        """Prepare a run in the folder `out`, or go on with the one that is there.

        Raises:
            InvalidParameter: no data, or data that cannot be read; a run without end.
            WeightsError: `resume` without a checkpoint, or weights to start from that do not fit.
        """
        if config.steps is None and config.minutes is None:
            raise InvalidParameter("steps or minutes must be given: the run needs an end")
        if not config.data:
            raise InvalidParameter("no data: name at least one folder or shard")
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.set_flush_denormal(True)  # denormal activations cost a factor of two and more on CPUs
        self.config, self.out = config, out
        self.fabric = Fabric(accelerator=config.accelerator, devices=_devices(config), precision=_precision(config))
        self.fabric.launch()
        self.schedule: Schedule = architecture_of(config.architecture).schedule()
        self.sources = open_sources(config.data)
        self.crops = Crops(self.sources, CropRule(config.crop, config.flat_below, config.seed), cache=config.cache)
        self.pictures = pictures_of(config.validation, config.evaluate_pictures) if config.validation else []
        distance = load_distance(config.perceptual) if config.perceptual and config.uses_features else None
        most = int(UNJUDGED * config.crop) if config.part == "denoiser" else 16
        self.distance = None if distance is None else ShiftedDistance(distance, most).to(self.fabric.device)

        saved = snapshot.load(out) if resume else None
        self.module = self._make()
        if saved is not None:
            try:
                self.module.load_state_dict(saved.model)
            except RuntimeError as error:
                raise WeightsError(f"{out}: the checkpoint is of other networks") from error
        if config.compile:
            self.module.compile_networks()
        self.module.to(self.fabric.device).to(memory_format=torch.channels_last)
        still = {p.data_ptr() for p in self.module.parameters() if not p.requires_grad}
        tensors = self.module.float_tensors()
        self.ema = Ema(tensors, config.ema, [name for name, t in tensors.items() if t.data_ptr() in still])
        optimizer = torch.optim.Adam(_groups(self.module, config), betas=config.betas)
        self.step, self.elapsed_s = 0, 0.0
        if saved is not None:
            self.ema.load(saved.ema)
            optimizer.load_state_dict(saved.optimizer)
            self.step, self.elapsed_s = saved.step, saved.elapsed_s
        self.wrapped, self.optimizer = cast(tuple[Any, Any], self.fabric.setup(self.module, optimizer))
        self.rates = [group["factor"] for group in optimizer.param_groups]
        if self.fabric.is_global_zero:
            out.mkdir(parents=True, exist_ok=True)
            snapshot.write_record(out, config, self.sources, self.step)

    def run(self, report: Report, stop: Callable[[], bool] = lambda: False) -> None:
        """Train until steps or minutes are used up, or `stop` says so; a checkpoint is written at the end."""
        config = self.config
        stream = batches(
            self.crops,
            batch=config.batch,
            from_step=self.step,
            readers=config.readers,
            rank=self.fabric.global_rank,
            devices=self.fabric.world_size,
        )
        before, last_save = time.monotonic() - self.elapsed_s, time.monotonic()
        self.module.train()
        while progress(config, self.step, self.elapsed_s) < 1 and not stop():
            loss, norm = self.advance(next(stream))
            self.elapsed_s = time.monotonic() - before
            if self.step % config.log_every == 0:
                report.line(_line(self, loss, norm))
            report.progress(self.step, progress(config, self.step, self.elapsed_s))
            if self.step % config.evaluate_every == 0:
                self.evaluate(report)
            if time.monotonic() - last_save >= config.save_every_s:
                self.save()
                last_save = time.monotonic()
        self.save()
        if self.step % config.evaluate_every:
            self.evaluate(report)

    def advance(self, crops: Tensor) -> tuple[Loss, float]:
        """One step on crops uint8 [B, 3, side, side]; returns its loss and the gradient's norm.

        A step whose gradient is not finite changes nothing.
        """
        config, device = self.config, self.fabric.device
        torch.manual_seed(config.seed + SEED_STRIDE * (self.step + 1) + self.fabric.global_rank)
        image = crops.to(device, non_blocking=True).float() / 127.5 - 1
        for group, factor in zip(self.optimizer.param_groups, self.rates, strict=True):
            if group["name"] != "quantiles":
                group["lr"] = factor * learning_rate(config, self.step, self.elapsed_s)
        image = image.contiguous(memory_format=torch.channels_last)
        with self.fabric.autocast():
            loss = self.module.loss(self.wrapped, image, config, self.schedule, self.step, self.distance)
        self.optimizer.zero_grad(set_to_none=True)
        # The auxiliary loss reaches the quantiles alone, and nothing else does: one backward pass serves both.
        aux = self.module.aux_loss() if self.module.moves_quantiles else 0.0
        self.fabric.backward(loss.total + aux)
        norm = float(torch.nn.utils.clip_grad_norm_(self._clipped(), config.clip))
        if math.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self.ema.update(self.module.float_tensors(), self.step)
        return loss, norm

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, from one process."""
        if self.fabric.is_global_zero:
            state = Snapshot(
                self.step, self.elapsed_s, self.module.state_dict(), self.ema.tensors, self.optimizer.state_dict()
            )
            snapshot.save(self.out, state)
        self.fabric.barrier()

    def evaluate(self, report: Report) -> None:
        """Measure the averaged weights on the validation images with real files, from one process."""
        if self.pictures and self.fabric.is_global_zero:
            evaluation = evaluate(
                codec_of(self.ema.tensors, self.config.architecture, str(self.fabric.device)), self.pictures
            )
            report.evaluation(self.step, evaluation)
        self.fabric.barrier()

    def _make(self) -> TrainingModule:
        config = self.config
        torch.manual_seed(config.seed)
        read = self.distance.channels(self.fabric.device) if self.distance is not None and config.critic > 0 else ()
        module = training_module_of(config.architecture, config.width, config.part, read)
        if config.initial is not None:
            module.load_float_tensors(load_file(config.initial), config.initial.name)
        elif isinstance(module, LiteTraining):
            start_as_klt(module.networks, self._first_crops(KLT_CROPS))
        if isinstance(module, SamplerTraining):
            module.measure_residual(self._first_crops(RESIDUAL_CROPS))
        return module

    def _first_crops(self, count: int) -> Tensor:
        crops = torch.stack([self.crops[i] for i in range(count)])
        return crops.float() / 127.5 - 1

    def _clipped(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [p for group in groups if group["name"] != "quantiles" for p in group["params"]]


def _groups(module: TrainingModule, config: TrainingConfig) -> list[dict[str, Any]]:
    """Parameter groups that learn, each with its rate relative to `lr`."""
    groups: dict[tuple[str, float], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(_group_of(name, config), []).append(parameter)
    return [
        {"name": name, "params": parameters, "lr": factor * config.lr, "factor": factor}
        for (name, factor), parameters in sorted(groups.items())
    ]


# Of cdc-lite. What scales amplitudes hardly moves: a jitter of 1 % is an error of -40 dB.
LITE_GROUPS = (
    ("gains", r"networks\.log_gain", 5.0),
    ("amplitudes", r"networks\.(log_shrink|g_[as]\.log_rate)", 0.15),
    ("linear path", r"networks\.g_[as]\.(stem|down|up|head)\.", 0.5),
    ("entropy", r"networks\.(hyper_|context)", 2.0),
    ("prior", r"hyper_prior", 5.0),
    ("critic", r"critic", 0.3),
)


def _group_of(name: str, config: TrainingConfig) -> tuple[str, float]:
    if name.endswith("quantiles"):
        return "quantiles", config.aux_lr / config.lr
    if config.architecture == "cdc-lite":
        for group, pattern, factor in LITE_GROUPS:
            if re.match(pattern, name):
                return group, factor
    return "networks", 1.0


def _on_cpu(config: TrainingConfig) -> bool:
    return config.accelerator == "cpu" or not torch.cuda.is_available()


def _devices(config: TrainingConfig) -> int | str:
    """All GPUs, but one process on a CPU: its threads share the work better than processes do."""
    if config.devices != "auto":
        return config.devices
    return 1 if _on_cpu(config) else "auto"


def _precision(config: TrainingConfig) -> Literal["bf16-mixed", "32-true"]:
    """bfloat16 where it is native: elsewhere it is emulated, ten times slower than float32."""
    if config.precision != "auto":
        return config.precision
    device = torch.device("cpu" if _on_cpu(config) else "cuda")
    return "bf16-mixed" if faster_dtype(device) is torch.bfloat16 else "32-true"


def _line(trainer: Trainer, loss: Loss, norm: float) -> Line:
    values = [loss.total, loss.distortion, loss.perceptual, loss.rate]
    total, distortion, perceptual, rate = (float(v.detach()) for v in values)
    lr = trainer.optimizer.param_groups[0]["lr"]
    return Line(trainer.step, trainer.elapsed_s, total, distortion, perceptual, rate, norm, lr)
