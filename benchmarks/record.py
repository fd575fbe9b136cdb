"""What a benchmark found, printed and, with `--json FILE`, written down with the machine and codec it was measured on.

docs/benchmarks.md is made from such files: `python -m benchmarks.document`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from model.precision import faster_dtype
from model.weights.registry import DEFAULT_MODEL, Registry

OWN = {"--json", "--note"}  # options of the record, no part of the command that it names
PRECISION_FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile")
Rows = Sequence[Mapping[str, Any]]


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line of a benchmark, with `--json` and `--note`; `load` and `began` are of the machine now."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures, machine and codec to this file")
    parser.add_argument("--note", default="", help="what else is to be known of this run, for the document")
    options = parser.parse_args(argv)
    options.load, options.began = os.getloadavg()[0], (time.monotonic(), busy_elsewhere())
    return options


def busy_elsewhere() -> float:
    """Seconds that processors worked, since the machine started, for other processes than this one and its children.

    Children count once they were waited for, so orphans of a killed one are of others.
    """
    machine, own = psutil.cpu_times(), os.times()
    return float(sum(machine[:3]) + machine.irq + machine.softirq - sum(own[:4]))


def finish(options: argparse.Namespace, figures: Mapping[str, Any]) -> None:
    """Print the figures, and write the record if `--json` asks for it.

    Args:
        options: from `parse`.
        figures: values of JSON by name; a list of rows is printed as a table.
    """
    for name, value in figures.items():
        rows = isinstance(value, list) and value and isinstance(value[0], Mapping)
        print(f"\n{table(value)}\n" if rows else f"{name}: {json.dumps(value)}", flush=True)
    if options.json is not None:
        found = record(options, figures)
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def record(options: argparse.Namespace, figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a run: what was measured, how, when, on what, and the figures."""
    info = next(i for i in Registry(getattr(options, "models_dir", None)).infos() if i.name == DEFAULT_MODEL)
    others = busy_elsewhere() - options.began[1]
    return {
        "command": command(sys.argv),
        "origin": "measured",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"torch": torch.__version__, "cdc-codec": version("cdc-codec")},
        "weights": {"name": info.name, "version": info.version, "codec_id": info.codec_id},
        "load": round(options.load, 2),
        "cores_of_others": round(max(0.0, others / (time.monotonic() - options.began[0])), 2),
        "note": options.note,
        "figures": dict(figures),
    }


def command(argv: Sequence[str]) -> str:
    """The command of a run of `python -m`, of absolute paths the last part alone."""
    words, given = [f"benchmarks.{Path(argv[0]).stem}"], iter(argv[1:])
    for word in given:
        if word.split("=")[0] in OWN:
            if "=" not in word:
                next(given, None)
        else:
            words.append(Path(word).name if word.startswith("/") else word)
    return "python -m " + shlex.join(words)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, and what decides which precision is fast."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)  # of the first processor
    fields = {name.strip(): value.strip() for name, value in found.items()}
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "features": [name for name in PRECISION_FEATURES if name in flags],
        "auto_precision": str(faster_dtype(torch.device("cpu"))).removeprefix("torch."),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def table(rows: Rows) -> str:
    """Rows as a Markdown table; the floats of a column have the decimals of the one that has most."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    decimals = {c: max((_decimals(row.get(c)) for row in rows), default=0) for c in columns}
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(c), decimals[c]) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def _decimals(value: object) -> int:
    text = repr(value)
    return len(text.partition(".")[2]) if isinstance(value, float) and "e" not in text and value % 1 else 0


def _cell(value: object, decimals: int) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1e}" if 0 < abs(value) < 1e-4 else f"{value:.{decimals}f}"
