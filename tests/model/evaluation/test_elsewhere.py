"""Curves from other people's files, tables for LaTeX, and the conventions of metrics beside the paper's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from model.errors import InvalidParameter
from model.evaluation.coders.models import Mode, models
from model.evaluation.figures.catalogue import FIGURES
from model.evaluation.figures.curves import write_summary
from model.evaluation.figures.elsewhere import read_curves
from model.evaluation.figures.latex import tabular
from model.evaluation.metrics.catalogue import FURTHER, choose, function_of, tensor_of
from model.evaluation.metrics.texture import fine_energy
from model.evaluation.runs.session import bd_rates
from model.types import Pixels
from model.weights.published import import_checkpoint
from tests.model.test_paper import save_random

CSV = "data,codec,bpp,psnr,lpips\nkodak,theirs,0.36,28.6,\nkodak,theirs,0.18,26.7,0.05\nkodak,others,0.2,27.5,0.04\n"


def test_csv_and_json_give_the_same_curves(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text(CSV)
    entries = [
        {"data": "kodak", "codec": "theirs", "bpp": [0.18, 0.36], "psnr": [26.7, 28.6]},
        {"data": "kodak", "codec": "others", "bpp": [0.2], "psnr": [27.5]},
    ]
    (tmp_path / "c.json").write_text(json.dumps(entries))
    for name in ("c.csv", "c.json"):
        first, second = read_curves(tmp_path / name)
        assert (first.label, second.label) == ("theirs", "others")
        assert first.values("psnr") == ([0.18, 0.36], [26.7, 28.6])
    assert read_curves(tmp_path / "c.csv")[0].values("lpips") == ([0.18], [0.05])
    write_summary(read_curves(tmp_path / "c.csv"), tmp_path / "summary.csv")
    assert "nan" not in (tmp_path / "summary.csv").read_text()


def test_they_enter_bd_rates(tmp_path: Path) -> None:
    lines = [f"kodak,{n},{r * f},{p}" for n, f in (("a", 1), ("b", 0.5)) for r, p in ((0.1, 26), (0.2, 29), (0.4, 32))]
    (tmp_path / "c.csv").write_text("\n".join(["data,codec,bpp,psnr", *lines]))
    rates = bd_rates(read_curves(tmp_path / "c.csv"), ["psnr"], against_published=False)
    assert {(r["anchor"], r["test"]): (r["percent"], r["overlap"]) for r in rates}["a", "b"] == (-50.0, 1.0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.csv", "data,codec,psnr\n", "no column 'bpp'"),
        ("c.csv", "data,codec,bpp,psnr\nkodak,a,zero,1\n", "line 2: could not convert"),
        ("c.csv", "data,codec,bpp\nkodak,a,-1\n", "line 2: bpp is out of range"),
        ("c.csv", "data,codec,bpp,psnr\nkodak,a,1,inf\n", "line 2: psnr is out of range"),
        ("c.csv", "data,codec,bpp,beauty\nkodak,a,1,1\n", "no metric 'beauty'"),
        ("c.csv", "data,codec,bpp\nkodak,,1\n", "line 2: codec is missing"),
        ("c.csv", "data,codec,bpp\nkodak,a,1,2\n", "more cells"),
        ("c.csv", 'data,codec,bpp\nkodak,"a"b,1\n', "c.csv: "),
        ("c.json", "{}", "a list of objects"),
        ("c.json", '[{"data": "k", "codec": "a", "bpp": [1, 2], "psnr": [1]}]', "entry 0: bpp and metrics"),
        ("c.json", "nonsense", "Expecting value"),
    ],
)
def test_faults_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidParameter, match=message):
        read_curves(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"none\.csv"):
        read_curves(tmp_path / "none.csv")


def test_latex_escapes_its_cells() -> None:
    text = tabular(["codec", "5 %"], [["a_b & c", r"\x γ"]])
    assert r"a\_b \& c & \textbackslash{}x $\gamma$ \\" in text
    assert text.startswith("\\begin{tabular}{lr}\n\\toprule\ncodec & 5 \\% \\\\")


def plain_ssim(first: Any, second: Any) -> float:
    """SSIM (Wang et al. 2004) of planes 0..255, by the formula, where the window of 11x11 lies within."""
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def mean(plane: Any) -> Any:
        return convolve2d(plane, window, mode="valid")

    m, n = mean(first), mean(second)
    variances = mean(first**2) - m**2 + mean(second**2) - n**2
    c, d = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * m * n + c) * (2 * (mean(first * second) - m * n) + d)
    return float((similarity / ((m**2 + n**2 + c) * (variances + d))).mean())


def test_ssim_of_luma(damaged: list[tuple[Pixels, Pixels]]) -> None:
    for a, b in damaged:
        first, second = (p @ np.array([0.299, 0.587, 0.114]) for p in (a, b))
        assert function_of("ssim-y")(a, b) == pytest.approx(plain_ssim(first, second), abs=1e-4)
    assert not set(choose(["all"])) & {m.name for m in FURTHER}


def test_multi_scale_similarity_of_luma(photograph: Pixels) -> None:
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    a, b = photograph[:512].copy(), photograph[:512].copy()
    b[::2] = b[1::2]
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    first, second = ((255 * tensor_of(p) * weights).sum(1, keepdim=True) for p in (a, b))
    expected = float(ms_ssim(second, first, data_range=255.0))
    assert function_of("ms-ssim-y")(a, b) == pytest.approx(expected, abs=2e-3)


def test_figures_have_the_papers_numbers() -> None:
    data = {name: FIGURES[name].data for name in ("2", "7", "16", "17", "18", "19")}
    assert data == {
        "2": ("div2k",),
        "7": ("coco2017",),
        "16": ("coco2017",),
        "17": ("tecnick",),
        "18": ("kodak",),
        "19": ("div2k",),
    }
    kinds = {name: FIGURES[name].kind for name in ("4", "5", "14", "15")}
    assert kinds == {"4": "rate", "5": "crops", "14": "seeds", "15": "states"}
    assert FIGURES["4"].gammas == (1.0,)


def test_fine_energy_is_that_of_three_haar_bands(photograph: Pixels) -> None:
    a, b, c, d = (photograph[i::2, j::2].astype(float) for i in (0, 1) for j in (0, 1))
    bands = (a - b + c - d, a + b - c - d, a - b - c + d)
    assert fine_energy(photograph) == pytest.approx(sum(np.square(band / 2).sum() for band in bands), rel=1e-9)
    smooth = np.repeat(np.repeat(photograph[::2, ::2], 2, axis=0), 2, axis=1)
    assert function_of("fine-energy")(photograph, smooth) == 0
    assert function_of("fine-energy")(photograph, photograph) == 1


def test_eps_takes_its_own_steps(tmp_path: Path) -> None:
    for variant in ("x", "eps"):
        import_checkpoint(save_random(variant, tmp_path)[1], tmp_path / f"{variant}.safetensors")  # type: ignore[arg-type]
    x, eps = models(["cdc-x", "cdc-eps"], [50], [Mode(1), Mode(17, 0.8)], tmp_path, eps_steps=500)
    assert [p["steps"] for p in x.points] == [1, 17]
    assert [p["steps"] for p in eps.points] == [500, 500]
