from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from model.codec import Codec
from model.distortion import psnr
from model.errors import InvalidParameter, WeightsError
from model.training import snapshot
from model.training.config import resolve
from model.training.loop import Trainer
from model.training.report import Line, Report
from model.weights.files import export_weights, load_weights, read_info, with_floats
from model.weights.registry import SHIPPED, Registry
from tests.polling import wait_for

ROOT = Path(__file__).parents[3]
DEFAULT = SHIPPED / "cdc-lite.safetensors"
SMALL = {
    "crop": 64,
    "batch": 2,
    "threads": 1,
    "readers": 0,
    "log_every": 1,
    "accelerator": "cpu",
    "precision": "32-true",
    "save_every_s": 1e6,
}


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """A run flushes denormals, which the process keeps."""
    yield
    torch.set_flush_denormal(False)


def train(out: Path, data: Path, *, resume: bool = False, **values: Any) -> list[Line]:
    config = resolve("lite", {**SMALL, "data": (data,), **values})
    with Report(console=Console(quiet=True)) as report:
        Trainer(config, out, resume=resume).run(report)
    return report.lines


def test_twenty_steps_from_nothing_lower_the_loss(pictures: Path, tmp_path: Path) -> None:
    lines = train(tmp_path, pictures, steps=20, lr=5e-4, lr_warmup=3, seed=1)
    assert [line.step for line in lines] == list(range(1, 21))
    first, last = (np.mean([line.total for line in part]) for part in (lines[:5], lines[-5:]))
    assert last < 0.9 * first
    record = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert record[0]["configuration"]["lr"] == 5e-4
    assert record[0]["data"][0]["clips"] == 9
    assert record[0]["revision"]
    info = export_weights(
        load_file(tmp_path / "averaged.safetensors"), tmp_path / "w.safetensors", name="new", version=1, provenance="-"
    )
    assert info.codec_id != read_info(DEFAULT).codec_id
    assert snapshot.provenance(tmp_path).startswith("cdc-lite trained from a KLT start, ")
    assert "20 steps of 2 crops" in snapshot.provenance(tmp_path)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_the_sampler_learns_alone(pictures: Path, tmp_path: Path, squeezenet: str, scale: float) -> None:
    judge = {"perceptual": squeezenet} if scale else {}
    values = {"initial": DEFAULT, "part": "denoiser", "lr_warmup": 0, "perceptual_scale": scale, **judge}
    lines = train(tmp_path, pictures, steps=3, **values)
    assert all(math.isfinite(line.total) and line.gradient_norm > 0 for line in lines)
    before, after = with_floats(load_file(DEFAULT)), load_file(tmp_path / "averaged.safetensors")
    changed = {k for k, t in after.items() if t.numpy().tobytes() != before[k].float().numpy().tobytes()}  # -0 is not 0
    assert changed == {k for k in before if k.startswith(("denoiser.", "log_residual"))}


def test_a_finished_run_resumed_for_more_steps_repeats_none(pictures: Path, tmp_path: Path) -> None:
    start = {"initial": DEFAULT, "lr_schedule": "steps"}
    whole = train(tmp_path / "whole", pictures, steps=4, **start)
    train(tmp_path / "parts", pictures, steps=2, **start)
    rest = train(tmp_path / "parts", pictures, steps=4, resume=True, **start)
    assert [(line.step, line.total, line.gradient_norm) for line in rest] == [
        (line.step, line.total, line.gradient_norm) for line in whole[2:]
    ]
    one, other = (load_file(tmp_path / folder / "averaged.safetensors") for folder in ("whole", "parts"))
    assert all(torch.equal(one[k], other[k]) for k in one)
    starts = json.loads((tmp_path / "parts" / "run.json").read_text())["starts"]
    assert [s["from_step"] for s in starts] == [0, 2]


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(pictures: Path, tmp_path: Path) -> None:
    values = {**SMALL, "initial": str(DEFAULT), "lr_schedule": "steps", "save_every_s": 0}
    assignments = [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    command = [sys.executable, "-m", "cdc_client", "train", str(tmp_path / "killed"), "--data", str(pictures)]
    environment = {**os.environ, "COLUMNS": "200"}
    process = subprocess.Popen(
        [*command, "--steps", "500", *assignments], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: _saved(tmp_path / "killed") >= 2 or process.poll() is not None, 120)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    reached = _saved(tmp_path / "killed")
    whole = train(tmp_path / "whole", pictures, steps=reached + 2, initial=DEFAULT, lr_schedule="steps")
    rest = train(tmp_path / "killed", pictures, steps=reached + 2, initial=DEFAULT, lr_schedule="steps", resume=True)
    assert [(line.step, line.total) for line in rest] == [(line.step, line.total) for line in whole[reached:]]


def _saved(folder: Path) -> int:
    try:
        return snapshot.load(folder).step
    except WeightsError:
        return 0


@pytest.mark.parametrize("preset", ["paper-x", "paper-eps"])
def test_the_papers_networks_train_to_a_codec(preset: str, pictures: Path, tmp_path: Path) -> None:
    values = {**SMALL, "data": (pictures,), "width": 8, "steps": 20, "lr": 1e-3, "lambda_warmup_steps": 5}
    config = resolve(preset, {**values, "validation": pictures, "evaluate_pictures": 1, "evaluate_every": 1000})
    with Report(console=Console(quiet=True)) as report:
        Trainer(config, tmp_path).run(report)
    first, last = (np.mean([line.distortion for line in part]) for part in (report.lines[:5], report.lines[-5:]))
    assert last < first
    name = preset.replace("paper", "cdc")
    info = export_weights(
        load_file(tmp_path / "averaged.safetensors"),
        tmp_path / "w.safetensors",
        name=name,
        version=0,
        provenance="-",
        architecture=name,
    )
    assert read_info(tmp_path / "w.safetensors") == info


@pytest.fixture(scope="module")
def decoders(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of two models: an unfinished decoder (the shipped one, disturbed), and what training made of it."""
    folder = tmp_path_factory.mktemp("fine")
    torch.manual_seed(3)
    unfinished = {
        k: t * (1 + 0.1 * torch.randn(t.shape)) if k.startswith("g_s.") else t
        for k, t in with_floats(load_file(DEFAULT)).items()
    }
    paths = folder / "before" / "cdc-lite.safetensors", folder / "after" / "cdc-lite.safetensors"
    for path in paths:
        path.parent.mkdir()
    export_weights(unfinished, paths[0], name="cdc-lite", version=1, provenance="a test")
    values = {"initial": paths[0], "part": "decoder", "lr": 1e-4, "lr_warmup": 5, "ema": 0.9}
    train(folder, pictures, steps=60, **values, lr_final=0.0, batch=2, crop=128)
    averaged = load_file(folder / "averaged.safetensors")
    export_weights(averaged, paths[1], name="cdc-lite", version=read_info(DEFAULT).version + 1, provenance="a test")
    return paths[0].parent, paths[1].parent


@pytest.mark.slow
def test_training_the_decoder_keeps_the_codec_id(decoders: tuple[Path, Path]) -> None:
    before, after = (read_info(folder / "cdc-lite.safetensors") for folder in decoders)
    assert before.codec_id == after.codec_id == read_info(DEFAULT).codec_id


@pytest.mark.slow
def test_files_made_before_decode_better_with_the_new_decoder(decoders: tuple[Path, Path], pictures: Path) -> None:
    from model.sources import open_sources, read_frame

    before = Codec(load_weights(decoders[0] / "cdc-lite.safetensors"), "float32")
    shown = [read_frame(clip) for clip in open_sources([pictures])[0].clips[:3]]
    files = [before.pack(before.analyse(picture), 128) for picture in shown]
    after = Registry(decoders[1], "float32").for_file(before.codec_id)
    assert after.info.version == read_info(DEFAULT).version + 1

    def decibels(decoder: Codec) -> list[float]:
        pairs = zip(shown, files, strict=True)
        return [psnr(picture, decoder.decode(file, steps=1, gamma=0.0)) for picture, file in pairs]

    gains = np.subtract(decibels(after), decibels(before))
    assert gains.min() > 0.5


def test_evaluation_makes_real_files_and_pictures_to_look_at(pictures: Path, tmp_path: Path) -> None:
    values = {"initial": DEFAULT, "validation": pictures, "evaluate_pictures": 1, "evaluate_every": 1}
    config = resolve("lite", {**SMALL, "data": (pictures,), "steps": 1, **values})
    with (tmp_path / "log").open("w") as log, Report(tmp_path, Console(file=log, width=200)) as report:
        Trainer(config, tmp_path).run(report)
    text = (tmp_path / "log").read_text()
    assert text.count("evaluation:") == 1
    assert "bpp" in text
    assert [p.name for p in (tmp_path / "samples").iterdir()] == ["0000001-0.png"]
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_step_without_a_finite_gradient_changes_nothing(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(resolve("lite", {**SMALL, "data": (pictures,), "steps": 1, "initial": DEFAULT}), tmp_path)
    before = {k: t.clone() for k, t in trainer.module.state_dict().items()}
    with torch.no_grad():
        trainer.module.networks.log_gain[:, 0] = torch.nan
    before["networks.log_gain"] = trainer.module.networks.log_gain.detach().clone()
    _, norm = trainer.advance(torch.stack([trainer.crops[i] for i in range(2)]))
    assert not np.isfinite(norm)
    after = trainer.module.state_dict()
    assert all(torch.equal(after[k].nan_to_num(), before[k].nan_to_num()) for k in before)


def test_a_run_without_end_data_or_checkpoint_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match="steps or minutes"):
        Trainer(resolve("lite", {**SMALL, "data": (pictures,)}), tmp_path)
    with pytest.raises(InvalidParameter, match="data"):
        Trainer(resolve("lite", {**SMALL, "steps": 1}), tmp_path)
    with pytest.raises(WeightsError, match="no checkpoint"):
        Trainer(resolve("lite", {**SMALL, "steps": 1, "data": (pictures,)}), tmp_path, resume=True)
    (tmp_path / "last.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(WeightsError, match="not a checkpoint"):
        Trainer(resolve("lite", {**SMALL, "steps": 1, "data": (pictures,)}), tmp_path, resume=True)
