"""The options of encode and decode, which requests, jobs and both clients share."""

from __future__ import annotations

from typing import Literal, TypedDict

Format = Literal["png", "webp", "jpeg"]
Colour = Literal["keep", "srgb"]
Fit = Literal["inside", "contain", "cover"]


class EncodeOptions(TypedDict, total=False):
    """Options of an encode.

    quality: 1..100; 50 if no target is given.
    target_bpp: bits per pixel of the whole file to aim at.
    max_bytes: best quality within this size.
    effort: 1..9: one pass (1, the default), or ever more rounds of refinement, for a smaller file at the same error.
    model: name of the model; None: the default.
    alpha: "keep" (default) stores transparency without loss, "drop" lays the image over white.
    metadata: "copyright" stores creator, credit, copyright and terms; "keep" these, and EXIF without location; "strip"
        is the default.
    first_frame: take the first frame of an animation, which is refused otherwise.
    drawing: "refuse" (default) an icon, screenshot or line art that is smaller as lossless WebP than above quality 50;
        "allow" it.
    colour: "keep" (default) leaves Display P3, Adobe RGB and ProPhoto RGB as they are; "srgb" converts to sRGB.
    callback: of a job: an https:// address that is told its end, where the service sends webhooks.
    deadline_s: seconds after which the service gives up.
    """

    quality: int | None
    target_bpp: float | None
    max_bytes: int | None
    effort: int
    model: str | None
    alpha: Literal["keep", "drop"]
    metadata: Literal["strip", "copyright", "keep"]
    first_frame: bool
    drawing: Literal["refuse", "allow"]
    colour: Colour
    callback: str | None
    deadline_s: float | None


class DecodeOptions(TypedDict, total=False):
    """Options of a decode.

    steps: denoising steps; None: the model's own; "auto": what the load affords within the deadline.
    gamma: strength of sampled texture, 0..2, 1 as the original's; None: the model's own. 0: closest to the original.
    seed: of the start noise; None: derived from the file, so the same image every time.
    model: name of the model; None: the newest that fits the file.
    deterministic: bit-equal on one type of device whatever else is served.
    format: of the answer: "png" (default), "webp" or "jpeg".
    region: the part to decode, "x,y,w,h" in pixels or "pct:x,y,w,h" in percent; None: all.
    width, height: of the answer in pixels; with one of them the other follows. Nothing is enlarged.
    fit: with both. "inside" (default): as large as fits, in proportion; "contain": padded to exactly that size;
        "cover": exactly that size, the middle of the region.
    colour: "keep" (default) the file's colour space, with its profile; "srgb": converted.
    callback: of a job: an https:// address that is told its end, where the service sends webhooks.
    deadline_s: seconds after which the service gives up.
    """

    steps: int | Literal["auto"] | None
    gamma: float | None
    seed: int | None
    model: str | None
    deterministic: bool
    format: Format
    region: str | None
    width: int | None
    height: int | None
    fit: Fit
    colour: Colour
    callback: str | None
    deadline_s: float | None
