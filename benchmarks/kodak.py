"""Rate and distortion on Kodak through the HTTP API, real bytes, beside the curves of Pillow's JPEG, WebP and AVIF.

    CDC_SHARED=FOLDER python -m benchmarks.kodak [--images N] [--modes 1:0,1:1] [--out FOLDER] [--json FILE]
    python -m benchmarks.kodak --report out/kodak.json [--json FILE]

FOLDER/data/kodak holds kodim01.png .. kodim24.png. Writes kodak.json, what each image gave, and draws kodak.png with
matplotlib; `--report` takes such a kodak.json instead of measuring. `--modes` names the decodes, steps:gamma, all if
unset; 1:0 alone gives the curve.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks import record
from benchmarks.server import running_server
from model.distortion import ms_ssim, psnr

Modes = tuple[tuple[int, float], ...]
QUALITIES = (10, 50, 90)
MODES: Modes = ((1, 0.0), (1, 0.5), (1, 1.0), (4, 1.0), (17, 1.0))
CURVE = (1, 20, 30, 40, 60, 70, 80, 100)  # further qualities, one step only, to draw the whole curve
OVERHEAD = 40  # bytes allowed beyond 1 % of the ideal code length

Row = dict[str, Any]


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def measure(client: httpx.Client, path: Path, modes: Modes = MODES) -> list[Row]:
    """All rows of one image."""
    original = np.asarray(Image.open(path).convert("RGB"))
    count = original.shape[0] * original.shape[1]
    rows: list[Row] = []
    for quality in sorted({*QUALITIES, *CURVE}):
        start = time.perf_counter()
        answer = client.post("/encode", content=path.read_bytes(), params={"quality": quality}, headers=PNG)
        answer.raise_for_status()
        seconds = time.perf_counter() - start
        file = answer.content
        common = {"image": path.name, "quality": quality, "bytes": len(file), "bpp": 8 * len(file) / count}
        rows.append({**common, "codec": "encode", "seconds": seconds})
        for steps, gamma in modes if quality in QUALITIES else modes[:1]:
            start = time.perf_counter()
            params: dict[str, str | int | float] = {"steps": steps, "gamma": gamma}
            decoded = client.post("/decode", content=file, params=params, headers=CDC)
            decoded.raise_for_status()
            row = {
                **common,
                "codec": "cdc-lite",
                "steps": steps,
                "gamma": gamma,
                "seconds": time.perf_counter() - start,
            }
            rows.append(row | distortion(original, pixels_of(decoded.content)))
    for name, (file_format, options, qualities) in BASELINES.items():
        for quality in qualities:
            out = io.BytesIO()
            Image.fromarray(original).save(out, file_format, quality=quality, **options)
            row = {"image": path.name, "codec": name, "quality": quality, "bytes": out.tell()}
            row["bpp"] = 8 * out.tell() / count
            rows.append(row | distortion(original, pixels_of(out.getvalue())))
    return rows


PNG = {"Content-Type": "image/png"}
CDC = {"Content-Type": "image/x-cdc"}


def distortion(original: np.ndarray, picture: np.ndarray) -> Row:
    return {"psnr": psnr(original, picture), "ms_ssim": ms_ssim(original, picture)}


# Format, options of Pillow, qualities.
BASELINES: dict[str, tuple[str, Row, tuple[int, ...]]] = {
    "jpeg": ("JPEG", {"optimize": True}, (8, 20, 35, 50, 65, 80, 90, 95)),
    "webp": ("WEBP", {"method": 6}, (0, 5, 15, 30, 50, 65, 75, 85, 92, 97)),
    "avif": ("AVIF", {"speed": 4}, (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)),
}


def summarise(rows: list[Row]) -> list[Row]:
    """Means over the images of each codec, quality and mode."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["codec"], row["quality"], row.get("steps"), row.get("gamma")].append(row)
    out = []
    for (codec, quality, steps, gamma), members in groups.items():
        mean = {"codec": codec, "quality": quality, "steps": steps, "gamma": gamma, "images": len(members)}
        for key in ("bytes", "bpp", "psnr", "ms_ssim", "seconds"):
            if key in members[0]:
                mean[key] = float(np.mean([m[key] for m in members]))
        out.append(mean)
    return out


def curve_rows(means: list[Row]) -> list[Row]:
    """Our decodes, and what the baselines' curves have at the same bytes, interpolated over log rate."""
    from scipy.interpolate import PchipInterpolator

    curves = {name: sorted((m for m in means if m["codec"] == name), key=BPP) for name in BASELINES}
    rows: list[Row] = []
    for m in sorted(
        (m for m in means if m["codec"] == "cdc-lite"), key=lambda m: (m["quality"], m["steps"], m["gamma"])
    ):
        row: Row = {k: m[k] for k in ("quality", "steps", "gamma")} | {"bpp": round(m["bpp"], 3)}
        row["PSNR dB, MS-SSIM"] = f"{m['psnr']:.2f}, {m['ms_ssim']:.4f}"
        for name, curve in curves.items():
            if curve[0]["bpp"] <= m["bpp"] <= curve[-1]["bpp"]:
                rates = np.log([p["bpp"] for p in curve])
                at = {k: float(PchipInterpolator(rates, [p[k] for p in curve])(np.log(m["bpp"]))) for k in METRICS}
                row[name] = f"{at['psnr']:.2f}, {at['ms_ssim']:.4f}"
            else:
                row[name] = "none so small" if m["bpp"] < curve[0]["bpp"] else "none so large"
        rows.append(row | {"decode s": round(m["seconds"], 2)})
    return rows


METRICS = ("psnr", "ms_ssim")


def bd_rates(means: list[Row]) -> list[Row]:
    """BD-rate of the one-step decode against each baseline where both curves overlap."""
    import bjontegaard as bd

    ours = sorted((m for m in means if (m["codec"], m["steps"], m["gamma"]) == ("cdc-lite", 1, 0.0)), key=BPP)
    rows: list[Row] = []
    for name in BASELINES:
        row: Row = {"against": name}
        theirs = sorted((m for m in means if m["codec"] == name), key=BPP)
        for metric in METRICS:
            scale = (lambda v: v) if metric == "psnr" else (lambda v: -10 * np.log10(1 - v))
            curves = [([p["bpp"] for p in c], [float(scale(p[metric])) for p in c]) for c in (theirs, ours)]
            rate = bd.bd_rate(*curves[0], *curves[1], method="akima", require_matching_points=False, min_overlap=0)
            row[f"BD-rate % by {metric}"] = round(float(rate), 1)
        rows.append(row)
    return rows


def BPP(row: Row) -> float:  # noqa: N802 - a sort key
    return float(row["bpp"])


def draw(means: list[Row], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    lines = {
        "cdc-lite, 1 step, γ 0": ("cdc-lite", 1, 0.0, "o-"),
        "AVIF (Pillow)": ("avif", None, None, "s-"),
        "WebP (Pillow)": ("webp", None, None, "^-"),
        "JPEG (Pillow)": ("jpeg", None, None, "v-"),
    }
    for axis, metric, label in zip(axes, ("psnr", "ms_ssim"), ("PSNR (dB)", "MS-SSIM"), strict=True):
        for name, (codec, steps, gamma, style) in lines.items():
            points = sorted(
                (m for m in means if (m["codec"], m["steps"], m["gamma"]) == (codec, steps, gamma)), key=BPP
            )
            full = [p for p in points if p["images"] == max(q["images"] for q in points)]
            axis.plot([p["bpp"] for p in full], [p[metric] for p in full], style, label=name, markersize=5)
        axis.set(xlabel="bits per pixel", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend()
    figure.suptitle("Kodak, 24 images, real bytes")
    figure.savefig(path, dpi=110)


def report(means: list[Row], options: argparse.Namespace) -> None:
    record.finish(options, {"curve": curve_rows(means), "bd_rates": bd_rates(means)})
    draw(means, options.out / "kodak.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--modes", default=",".join(f"{steps}:{gamma:g}" for steps, gamma in MODES))
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--report", type=Path, help="print and draw from this kodak.json instead of measuring")
    options = record.parse(parser)
    if options.report is not None:
        report(json.loads(options.report.read_text())["means"], options)
        return
    folder = Path(os.environ["CDC_SHARED"]) / "data" / "kodak"
    paths = sorted(folder.glob("kodim*.png"))[: options.images]
    options.out.mkdir(parents=True, exist_ok=True)
    modes = tuple((int(s), float(g)) for s, g in (mode.split(":") for mode in options.modes.split(",")))
    rows: list[Row] = []
    with running_server() as (client, _):
        for path in paths:
            rows += measure(client, path, modes)
            print(f"{path.name} done", flush=True)
    means = summarise(rows)
    (options.out / "kodak.json").write_text(json.dumps({"rows": rows, "means": means}, indent=1))
    report(means, options)


if __name__ == "__main__":
    main()
