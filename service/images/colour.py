"""Colours of a file to sRGB: by its ICC profile, or by the primaries and the curve that it signals."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from service.images.signal import BT709, SRGB, Signal, rgb_to_srgb, srgb_inverse
from service.images.tone import tone_map

Samples = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
Plane = npt.NDArray[np.uint8]

MAX_ICC_BYTES = 4 * 1024**2  # press profiles have up to 3 MiB
BAND_PIXELS = 1 << 20  # converted at a time, which bounds the memory for floats
_ROUNDED = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_ENCODED = np.round(255 * srgb_inverse(np.arange(65536) / 65535)).astype(np.uint8)


def to_srgb(samples: Samples, cmyk: bool, colours: tuple[bytes | Signal, ...]) -> Plane:
    """Return uint8 [H, W, 3] sRGB.

    Args:
        samples: uint8 or uint16 [H, W] grey, [H, W, 3] RGB, or uint8 [H, W, 4] CMYK.
        cmyk: whether samples are CMYK.
        colours: ICC profiles and signals, the one to prefer first. A profile that is damaged or belongs to another kind
            of pixels is passed over; without a usable one RGB is taken for sRGB.
    """
    for colour in colours:
        if isinstance(colour, Signal):
            if not cmyk:
                return eight_bits_rgb(samples) if colour == SRGB else from_signal(samples, colour)
        elif (converted := _from_profile(samples, cmyk, colour)) is not None:
            return converted
    return np.array(Image.fromarray(samples, "CMYK").convert("RGB")) if cmyk else eight_bits_rgb(samples)


def eight_bits(samples: Samples) -> Plane:
    """Round uint16 samples to uint8; uint8 ones stay."""
    return samples if samples.dtype == np.uint8 else _ROUNDED[samples]  # type: ignore[return-value]


def eight_bits_rgb(samples: Samples) -> Plane:
    """Samples as they are, but for their depth: [H, W] or [H, W, 3] -> uint8 [H, W, 3]."""
    plane = eight_bits(samples)
    return plane if plane.ndim == 3 else np.repeat(plane[..., None], 3, axis=2)


def from_signal(samples: Samples, signal: Signal) -> Plane:
    """Samples of a signal to sRGB: uint8 or uint16 [H, W] or [H, W, 3] -> uint8 [H, W, 3].

    What sRGB cannot show is clipped.
    """
    unit = 1 if samples.dtype == np.uint8 else 256
    values = np.arange(256 * unit) / (256 * unit - 1)
    if not signal.full_range:
        values = np.clip((np.arange(256 * unit) / unit - 16) / 219, 0, 1)
    light = signal.curve(values).astype(np.float32)
    matrix = None if signal.primaries == BT709 else rgb_to_srgb(signal.primaries).T.astype(np.float32)
    height, width = samples.shape[:2]
    out = np.empty((height, width, 3), np.uint8)
    step = max(1, BAND_PIXELS // width)
    for top in range(0, height, step):
        part = samples[top : top + step]
        band = light[part if part.ndim == 3 else np.repeat(part[..., None], 3, axis=2)]
        if signal.hdr:
            band = tone_map(band, signal)
        if matrix is not None:
            band = band @ matrix
        out[top : top + step] = _ENCODED[(np.clip(band, 0, 1) * 65535 + 0.5).astype(np.uint16)]
    return out


def profile_of_rgb(icc: bytes) -> ImageCms.ImageCmsProfile | None:
    """The ICC profile of RGB samples; None where it is damaged, or of another kind of samples."""
    if not 128 <= len(icc) <= MAX_ICC_BYTES:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        return profile if profile.profile.xcolor_space.strip() == "RGB" else None
    except Exception:  # lcms and Pillow raise many types
        return None


def _from_profile(samples: Samples, cmyk: bool, icc: bytes) -> Plane | None:
    """Convert by an ICC profile, perceptually; None when it is damaged or of another kind of pixels."""
    if not 128 <= len(icc) <= MAX_ICC_BYTES:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        space = profile.profile.xcolor_space.strip()
        mode = "CMYK" if cmyk else "L" if samples.ndim == 2 else "RGB"
        if mode not in {"RGB": ("RGB", "L"), "GRAY": ("L",), "CMYK": ("CMYK",)}.get(space, ()):
            return None
        if space == "RGB" and ImageCms.getProfileDescription(profile).strip().startswith("sRGB"):
            return eight_bits_rgb(samples)  # the transform would change values by rounding alone
        source = Image.fromarray(
            eight_bits_rgb(samples) if space == "RGB" else eight_bits(samples), None if not cmyk else "CMYK"
        )
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(source, profile, target, ImageCms.Intent.PERCEPTUAL, "RGB")
        return None if converted is None else np.array(converted)
    except Exception:  # a damaged profile: lcms and Pillow raise many types
        return None
