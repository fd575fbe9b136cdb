"""Compress a folder of photographs and decode some of it again: python examples/archive.py PHOTOS ARCHIVE [URL]."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cdc_client import AsyncClient, Unusable


async def main(photos: Path, archive: Path, url: str | None) -> None:
    archive.mkdir(parents=True, exist_ok=True)
    sources = sorted(path for path in photos.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    async with AsyncClient(url) as cdc:
        for path in sources:
            try:
                small = await cdc.encode(path, target_bpp=0.3)
            except Unusable as error:  # not an image, or one over the limits: the others go on
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            small.save(archive / f"{path.stem}.cdc")
            print(f"{path.name}: {path.stat().st_size} -> {len(small.data)} bytes, {small.bpp:.2f} bit per pixel")
        files = sorted(archive.glob("*.cdc"))
        number = 0
        async for picture in cdc.decode_many(files, concurrency=4, steps=1, gamma=0.0):
            picture.save(files[number].with_suffix(".png"))
            number += 1
        print(f"{number} images decoded")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None))
