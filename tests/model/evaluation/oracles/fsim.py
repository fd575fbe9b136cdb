"""FSIMc (Zhang, Zhang, Mou & Zhang, IEEE TIP 20(8), 2011) over Kovesi's phase congruency (Videre 1(3), 1999)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import convolve

from model.types import Pixels

Plane = npt.NDArray[np.float64]
Bands = npt.NDArray[np.complex128]
SCALES, ORIENTATIONS = 4, 4
WAVELENGTHS = 6 * 2.0 ** np.arange(SCALES)  # pixels
BANDWIDTH = math.log(0.55)  # of the log-Gabor function, in ln of frequency
SPREAD = math.pi / ORIENTATIONS / 1.2  # radians
NOISE_DEVIATIONS = 2.0
NOISE_RESCALE = 1.7  # Kovesi's empirical divisor of the noise threshold
T_CONGRUENCY, T_GRADIENT, T_CHROMA, CHROMA_POWER = 0.85, 160.0, 200.0, 0.03
YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def fsim(reference: Pixels, picture: Pixels) -> float:
    """Similarity of uint8 [H, W, 3] with even sides: 1 for equal ones, lower for others."""
    (y1, i1, q1), (y2, i2, q2) = (np.moveaxis(shrunk(p.astype(np.float64)) @ YIQ.T, 2, 0) for p in (reference, picture))
    pc1, pc2 = phase_congruency(y1), phase_congruency(y2)
    likeness = alike(pc1, pc2, T_CONGRUENCY) * alike(gradient(y1), gradient(y2), T_GRADIENT)
    chroma = alike(i1, i2, T_CHROMA) * alike(q1, q2, T_CHROMA)
    # Opposite hues make the product negative; the modulus of its power is meant.
    likeness = likeness * np.abs(chroma) ** CHROMA_POWER
    weight = np.maximum(pc1, pc2)
    return float((likeness * weight).sum() / weight.sum())


def shrunk(picture: Plane) -> Plane:
    """Means of squares so that the short side comes near 256 (only images from 384 on change)."""
    side = max(1, round(min(picture.shape[:2]) / 256))
    height, width = (n // side * side for n in picture.shape[:2])
    blocks = picture[:height, :width].reshape(height // side, side, width // side, side, -1)
    return np.asarray(blocks.mean(axis=(1, 3)))


def alike(a: Plane, b: Plane, constant: float) -> Plane:
    """The papers' similarity of two maps."""
    return np.asarray((2 * a * b + constant) / (a**2 + b**2 + constant))


def gradient(plane: Plane) -> Plane:
    """Magnitude of Scharr's gradient, zeros beyond the rim."""
    kernel = np.outer([3, 10, 3], [1, 0, -1]) / 16
    return np.hypot(convolve(plane, kernel, mode="constant"), convolve(plane, kernel.T, mode="constant"))


def phase_congruency(plane: Plane) -> Plane:
    """Kovesi's PC_2 summed over orientations, 0..1."""
    spectrum = np.fft.fft2(plane)
    energy, amplitude = np.zeros(plane.shape), np.zeros(plane.shape)
    for orientation in range(ORIENTATIONS):
        filters = [log_gabor(plane.shape, w, orientation) for w in WAVELENGTHS]
        responses: Bands = np.stack([np.fft.ifft2(spectrum * f) for f in filters])
        total = responses.sum(axis=0)
        direction = total / np.maximum(np.abs(total), 1e-12)
        # The real part is cosine of the phase's deviation times amplitude, the imaginary part the sine.
        turned = responses * direction.conj()
        local = (turned.real - np.abs(turned.imag)).sum(axis=0)
        energy += np.maximum(local - noise_threshold(responses[0], filters), 0)
        amplitude += np.abs(responses).sum(axis=0)
    return np.asarray(energy / np.maximum(amplitude, 1e-12))


def noise_threshold(finest: Bands, filters: list[Plane]) -> float:
    """Energy that noise alone would reach, estimated from the median response of the finest scale."""
    power = np.median(np.abs(finest) ** 2) / math.log(2) / (filters[0] ** 2).sum()
    # Squared energy expected of noise of that power through all scales: the kernels' squared sum, pairs twice.
    kernels = np.stack([np.fft.ifft2(f).real for f in filters]) * math.sqrt(filters[0].size)
    products = np.einsum("ihw,jhw->ij", kernels, kernels)
    squared = 2 * power * np.trace(products) + 4 * power * np.triu(products, 1).sum()
    rayleigh = math.sqrt(squared / 2)
    mean, deviation = rayleigh * math.sqrt(math.pi / 2), rayleigh * math.sqrt(2 - math.pi / 2)
    return (mean + NOISE_DEVIATIONS * deviation) / NOISE_RESCALE


def log_gabor(shape: tuple[int, ...], wavelength: float, orientation: int) -> Plane:
    """One filter in the frequency plane, under a Butterworth low pass that clears the corners."""
    rows, columns = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    radius = np.hypot(rows, columns)
    radius[0, 0] = 1
    radial = np.exp(-(np.log(radius * wavelength) ** 2) / (2 * BANDWIDTH**2)) / (1 + (radius / 0.45) ** 30)
    radial[0, 0] = 0
    angle = np.angle((columns - 1j * rows) * np.exp(-1j * math.pi * orientation / ORIENTATIONS))
    return np.asarray(radial * np.exp(-(angle**2) / (2 * SPREAD**2)))
