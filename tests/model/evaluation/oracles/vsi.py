"""VSI (Zhang, Shen & Li, IEEE TIP 23(10), 2014) over the saliency SDSP (Zhang, Gu & Li, ICIP 2013)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.types import Pixels
from tests.model.evaluation.oracles.fsim import alike, gradient, shrunk

Plane = npt.NDArray[np.float64]
SIDE = 256  # pixels; saliency is found on a square
SIGMA_F, OMEGA_0, SIGMA_D, SIGMA_C = 1.34, 0.021, 145.0, 0.001  # VSI's choice, not the saliency paper's own
C_SALIENCY, C_GRADIENT, C_CHROMA = 1.27, 386.0, 130.0
GRADIENT_POWER, CHROMA_POWER = 0.4, 0.02
LMN = np.array([[0.06, 0.63, 0.27], [0.30, 0.04, -0.35], [0.34, -0.60, 0.17]])
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
D50 = np.array([0.9642, 1.0, 0.8251])


def vsi(reference: Pixels, picture: Pixels, *, corners: bool = True) -> float:
    """Similarity of uint8 [H, W, 3]: 1 for equal ones, lower for others.

    Args:
        reference, image: the two.
        corners: the saliency map returns from 256x256 by interpolation that keeps its corners in place; else, as in the
            authors' program, by one that keeps pixel areas in place and averages where it shrinks.
    """
    a, b = (p.astype(np.float64) for p in (reference, picture))
    saliency = [_stretched(resized(saliency_of(p), a.shape[:2], corners=corners)) for p in (a, b)]
    saliency = [shrunk(s[:, :, None])[:, :, 0] for s in saliency]
    (l1, m1, n1), (l2, m2, n2) = (np.moveaxis(shrunk(p) @ LMN.T, 2, 0) for p in (a, b))
    likeness = alike(saliency[0], saliency[1], C_SALIENCY)
    likeness = likeness * alike(gradient(l1), gradient(l2), C_GRADIENT) ** GRADIENT_POWER
    chroma = (alike(m1, m2, C_CHROMA) * alike(n1, n2, C_CHROMA)).astype(np.complex128)
    likeness = likeness * (chroma**CHROMA_POWER).real
    weight = np.maximum(*saliency)
    return float((likeness * weight).sum() / weight.sum())


def saliency_of(picture: Plane) -> Plane:
    """SDSP of values 0..255, [256, 256]: band-passed Lab, times nearness to the centre, times warmth of colour."""
    square = np.stack([resized(picture[:, :, c], (SIDE, SIDE), corners=False) for c in range(3)], axis=2)
    lab = lab_of(square / 255)
    frequencies = np.fft.fftfreq(SIDE)
    radius = np.hypot(frequencies[:, None], frequencies[None])
    inside = (radius > 0) & (radius <= 0.5)
    band = np.zeros_like(radius)
    band[inside] = np.exp(-(np.log(radius[inside] / OMEGA_0) ** 2) / (2 * SIGMA_F**2))
    detail = np.fft.ifft2(np.fft.fft2(lab, axes=(0, 1)) * band[:, :, None], axes=(0, 1)).real
    offset = np.arange(1, SIDE + 1) - SIDE / 2
    centre = np.exp(-(offset[:, None] ** 2 + offset[None] ** 2) / SIGMA_D**2)
    warmth = _stretched(lab[:, :, 1]) ** 2 + _stretched(lab[:, :, 2]) ** 2
    return np.asarray(np.linalg.norm(detail, axis=2) * centre * (1 - np.exp(-warmth / SIGMA_C**2)))


def lab_of(rgb: Plane) -> Plane:
    """sRGB 0..1 [H, W, 3] -> CIELAB, with the authors' white of D50."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ XYZ.T / D50
    f = np.where(xyz > 0.008856, np.cbrt(xyz), (903.3 * xyz + 16) / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def resized(plane: Plane, shape: tuple[int, ...], *, corners: bool) -> Plane:
    """Bilinear interpolation; without corners it averages where it shrinks."""
    if not corners:
        image = Image.fromarray(plane.astype(np.float32))
        return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), dtype=np.float64)
    for axis, count in enumerate(shape):
        at = np.linspace(0, plane.shape[axis] - 1, count)
        below = np.minimum(at.astype(int), plane.shape[axis] - 2)
        share = (at - below)[:, None] if axis == 0 else at - below
        plane = plane.take(below, axis) * (1 - share) + plane.take(below + 1, axis) * share
    return plane


def _stretched(plane: Plane) -> Plane:
    """To 0..1."""
    return np.asarray((plane - plane.min()) / (plane.max() - plane.min()))
