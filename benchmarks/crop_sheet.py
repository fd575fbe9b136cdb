"""A sheet of details of Kodak images at the same bytes: the original, WebP, AVIF, one file of ours at gamma 0 and 1.

    CDC_SHARED=FOLDER python -m benchmarks.crop_sheet [--quality 25] [--out docs/images/crops.webp]

WebP (method 6) and AVIF (speed 4) are of the whole image, at the greatest quality that needs no more bytes than ours;
where even the least quality needs more, the caption says so by its bytes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.config import rate_of_quality
from model.weights.registry import Registry

SIDE, ZOOM, GAP, CAPTION = 112, 2, 6, 20
DETAILS = (  # image, left, top
    ("face", "kodim04", 190, 270),
    ("grass and water", "kodim13", 100, 330),
    ("water", "kodim06", 330, 330),
    ("masonry", "kodim01", 300, 280),
    ("foliage", "kodim22", 560, 120),
    ("sky", "kodim21", 60, 60),
)


def within(limit: int, save: Callable[[int], bytes]) -> bytes:
    """The file of the greatest quality 1..100 of at most `limit` bytes, else that of quality 1."""
    low, high = 1, 100
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(save(middle)) <= limit else (low, middle - 1)
    return save(low)


def saver(image: Image.Image, kind: str, **options: int) -> Callable[[int], bytes]:
    def save(quality: int) -> bytes:
        out = BytesIO()
        image.save(out, kind, quality=quality, **options)
        return out.getvalue()

    return save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quality", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path("docs/images/crops.webp"))
    options = parser.parse_args()
    folder = Path(os.environ["CDC_SHARED"]) / "data" / "kodak"
    codec = Registry(precision="float32").get()
    rows = []
    for name, stem, left, top in DETAILS:
        image = Image.open(folder / f"{stem}.png").convert("RGB")
        file = codec.pack(codec.analyse(np.asarray(image)), rate_of_quality(options.quality))
        webp = within(len(file), saver(image, "WEBP", method=6))
        avif = within(len(file), saver(image, "AVIF", speed=4))
        tiles = [(f"{name}", np.asarray(image))]
        for label, data in (("WebP", webp), ("AVIF", avif)):
            tiles.append((f"{label}, {len(data):,} bytes", np.asarray(Image.open(BytesIO(data)).convert("RGB"))))
        for gamma in (0.0, 1.0):
            word = "faithful" if gamma == 0 else "natural"
            tiles.append((f"ours, {word}, {len(file):,} bytes", codec.decode(file, 1, gamma)))
        rows.append([(text, pixels[top : top + SIDE, left : left + SIDE]) for text, pixels in tiles])
        print(f"{stem}: {len(file)} bytes, WebP {len(webp)}, AVIF {len(avif)}", flush=True)
    side = SIDE * ZOOM
    width, height = len(rows[0]) * (side + GAP) - GAP, len(rows) * (side + CAPTION + GAP)
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for i, row in enumerate(rows):
        for j, (text, pixels) in enumerate(row):
            x, y = j * (side + GAP), i * (side + CAPTION + GAP)
            sheet.paste(Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST), (x, y))
            draw.text((x, y + side + 2), text, fill="black", font=font)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(options.out, quality=85, method=6)


if __name__ == "__main__":
    main()
