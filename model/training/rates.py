"""What changes over a run: learning rate and lambda, as functions of how far it is."""

from __future__ import annotations

import math

from model.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, step: int, elapsed_s: float) -> float:
    """Learning rate of the networks after `step` steps and `elapsed_s` seconds of training."""
    warm = min(1.0, (step + 1) / config.lr_warmup) if config.lr_warmup else 1.0
    if config.lr_schedule == "steps":
        decayed = config.lr * config.lr_decay ** (step // config.lr_decay_every)
        return warm * max(min(config.lr, config.lr_final), decayed)
    part = min(1.0, progress(config, step, elapsed_s))
    cosine = 0.5 * (1 + math.cos(math.pi * part))
    return warm * (config.lr_final + (config.lr - config.lr_final) * cosine)


def progress(config: TrainingConfig, step: int, elapsed_s: float) -> float:
    """How much of the run is done, by steps or minutes, whichever is further; 0 for a run without end."""
    by_steps = step / config.steps if config.steps is not None else 0.0
    by_time = elapsed_s / (60 * config.minutes) if config.minutes is not None else 0.0
    return max(by_steps, by_time)


def lambda_of(config: TrainingConfig, step: int) -> float:
    """lambda of a model with one rate: small first, so that the networks learn before they economise."""
    return config.lambda_warmup if step < config.lambda_warmup_steps else config.lambda_target
