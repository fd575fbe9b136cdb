"""What a run writes: a checkpoint to go on from, averaged weights to export, and a record of how they came about."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.errors import WeightsError
from model.sources import Source
from model.training.config import TrainingConfig

CHECKPOINT = "last.pt"
WEIGHTS = "averaged.safetensors"
RECORD = "run.json"


@dataclass(frozen=True)
class Snapshot:
    """All that a resumed run needs.

    Attributes:
        step: steps done.
        elapsed_s: seconds of training so far, over all starts.
        model: state of the module.
        ema: averaged float tensors, by their names in a weights file.
        optimizer: state of the optimiser.
    """

    step: int
    elapsed_s: float
    model: dict[str, Tensor]
    ema: dict[str, Tensor]
    optimizer: dict[str, Any]


def save(folder: Path, snapshot: Snapshot) -> None:
    """Write the checkpoint and the averaged weights. A kill at any moment leaves the old files or the new ones."""
    part = folder / f"{CHECKPOINT}.part"
    with part.open("wb") as file:
        torch.save(vars(snapshot), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(folder / CHECKPOINT)
    part = folder / f"{WEIGHTS}.part"
    save_file({name: tensor.contiguous() for name, tensor in snapshot.ema.items()}, part)
    part.replace(folder / WEIGHTS)


def load(folder: Path) -> Snapshot:
    """Read the checkpoint of a run.

    Raises:
        WeightsError: there is none, or it is no checkpoint.
    """
    path = folder / CHECKPOINT
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        return Snapshot(**values)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: there is no checkpoint to resume from") from error
    except Exception as error:  # pickle's errors are of many kinds; weights_only runs no code
        raise WeightsError(f"{path}: not a checkpoint of this trainer ({type(error).__name__}: {error})") from error


def write_record(folder: Path, config: TrainingConfig, sources: Sequence[Source], started_at_step: int) -> None:
    """Write or extend run.json: configuration, revision, data and versions of every start of the run."""
    path = folder / RECORD
    starts = json.loads(path.read_text())["starts"] if path.is_file() else []
    starts.append(
        {
            "from_step": started_at_step,
            "configuration": config.model_dump(mode="json"),
            "revision": revision(),
            "data": [source.manifest() for source in sources],
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        }
    )
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"starts": starts}, indent=1) + "\n")
    part.replace(path)


TRAINED = {
    "all": "all parts",
    "decoder": "what decodes alone",
    "denoiser": "the denoiser alone",
    "entropy": "the entropy model alone",
}


def recorded(folder: Path) -> dict[str, Any]:
    """The configuration of a run's last start. Raises WeightsError where there is no record."""
    try:
        values: dict[str, Any] = json.loads((folder / RECORD).read_text())["starts"][-1]["configuration"]
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{folder}: has no record of a training run ({error})") from error
    return values


def provenance(folder: Path) -> str:
    """One sentence on how a run's weights were made, from its record. Raises WeightsError where there is none."""
    try:
        starts = json.loads((folder / RECORD).read_text())["starts"]
        last, configuration = starts[-1], starts[-1]["configuration"]
        start = "a KLT start" if configuration["architecture"] == "cdc-lite" else "random weights"
        origin = Path(configuration["initial"]).name if configuration["initial"] else start
        critic = f", critic {configuration['critic']:g}" if configuration.get("critic") else ""
        judge = configuration["perceptual"] or "no perceptual term"
        kind = TRAINED[configuration.get("part", "all")]
        clips = sum(data["clips"] for data in last["data"])
        return (
            f"{configuration['architecture']} trained from {origin}, {kind}: {load(folder).step} steps of "
            f"{configuration['batch']} crops of {configuration['crop']} pixels from {clips} images, "
            f"lr {configuration['lr']:g}, rho {configuration['rho']:g} ({judge}){critic}, "
            f"on {last['device']}, code {last['revision']}"
        )
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{folder}: has no record of a training run ({error})") from error


def revision() -> str:
    """The git revision of the code, with "+changes" where files differ from it; "unknown" outside a checkout."""
    here = Path(__file__).parent
    try:
        head = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if changed else head


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)  # noqa: S603
    return done.stdout.strip()
