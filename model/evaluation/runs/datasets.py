"""The paper's data sets with its preparation, and folders or .tar files of one's own."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from model.errors import InvalidParameter
from model.sources import Clip, open_sources
from model.types import Pixels

Preparation = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Known:
    """A data set that is found by its name.

    Attributes:
        name, label: as typed, as printed.
        folders: names of the folder below a data folder.
        count: images of the whole set after selection; 0 where it is not fixed.
        preparation: one word that names `prepare`; part of every cache key.
        accepts: whether an image of (width, height) belongs to the set.
        origin: where the files come from, for the message where they are missing.
    """

    name: str
    label: str
    folders: tuple[str, ...]
    count: int
    preparation: str
    prepare: Preparation
    accepts: Callable[[tuple[int, int]], bool]
    origin: str


@dataclass(frozen=True)
class Item:
    """One image of a data set, not yet read: where it lies, its name and how it is prepared."""

    name: str
    clip: Clip
    preparation: str

    def read_bytes(self) -> bytes:
        """Bytes of the file as stored.

        Raises:
            InvalidParameter: unreadable; the message names the file.
        """
        try:
            if self.clip.spans:
                offset, length = self.clip.spans[0]
                with self.clip.file.open("rb") as file:
                    file.seek(offset)
                    return file.read(length)
            return (self.clip.file.parent / self.clip.frames[0]).read_bytes()
        except OSError as error:
            raise InvalidParameter(f"{self.name}: cannot be read ({error})") from error


@dataclass(frozen=True)
class DataSet:
    """What is measured on: a name, a printed name, images in a fixed order, and how many a whole set has (0: any)."""

    name: str
    label: str
    items: tuple[Item, ...]
    whole: int = 0


@dataclass(frozen=True)
class Prepared:
    """An image as codecs see it: uint8 [H, W, 3], and the SHA-256 of its file and of its pixels with their shape."""

    pixels: Pixels
    file_sha256: str
    pixels_sha256: str


def _as_is(image: Image.Image) -> Image.Image:
    return image


def _square(side: int) -> Preparation:
    def prepare(image: Image.Image) -> Image.Image:
        return image.resize((side, side), Image.Resampling.LANCZOS)

    return prepare


def _short_side_crop(side: int) -> Preparation:
    def prepare(image: Image.Image) -> Image.Image:
        scale = side / min(image.size)
        width, height = (max(side, round(s * scale)) for s in image.size)
        left, top = (width - side) // 2, (height - side) // 2
        resized = image.resize((width, height), Image.Resampling.LANCZOS)
        return resized.crop((left, top, left + side, top + side))

    return prepare


def _any_size(size: tuple[int, int]) -> bool:
    return True


KNOWN = {
    d.name: d
    for d in (
        Known(
            "kodak",
            "Kodak",
            ("kodak", "Kodak"),
            24,
            "none",
            _as_is,
            lambda size: sorted(size) == [512, 768],
            "kodim01.png .. kodim24.png from https://r0k.us/graphics/kodak/",
        ),
        Known(
            "tecnick",
            "Tecnick",
            ("tecnick", "Tecnick", "TESTIMAGES"),
            100,
            "resize512",
            _square(512),
            _any_size,
            "the 100 colour images of the SAMPLING set from https://testimages.org",
        ),
        Known(
            "div2k",
            "DIV2K",
            ("div2k", "DIV2K_valid_HR", "DIV2K/DIV2K_valid_HR"),
            100,
            "short768crop768",
            _short_side_crop(768),
            _any_size,
            "DIV2K_valid_HR.zip from https://data.vision.ee.ethz.ch/cvl/DIV2K/",
        ),
        Known(
            "coco2017",
            "COCO 2017",
            ("coco2017", "coco/test2017", "test2017"),
            0,
            "over512resize384",
            _square(384),
            lambda size: min(size) > 512,
            "test2017.zip from https://cocodataset.org/#download",
        ),
    )
}
PREPARE: dict[str, Preparation] = {d.preparation: d.prepare for d in KNOWN.values()}


def data_folders(given: Path | None = None) -> list[Path]:
    """Folders in which known data sets are searched: `given`, then $CDC_DATA, then $CDC_SHARED/data."""
    found = [given] if given else []
    if os.environ.get("CDC_DATA"):
        found.append(Path(os.environ["CDC_DATA"]))
    if os.environ.get("CDC_SHARED"):
        found.append(Path(os.environ["CDC_SHARED"]) / "data")
    return found


def open_data(name: str, folder: Path | None = None, limit: int | None = None) -> DataSet:
    """Find a known data set by name, or take `name` as a folder or .tar file; no pixels are decoded.

    Raises:
        InvalidParameter: neither known nor a path, or a known set whose files are missing; says how to get them.
    """
    known = KNOWN.get(name)
    if known is None:
        path = Path(name)
        if not path.exists():
            raise InvalidParameter(f"{name}: no data set ({', '.join(KNOWN)}), folder or .tar file of that name")
        items = _items(path, "none")
        return DataSet(path.stem, path.stem, tuple(items[:limit]))
    folders = data_folders(folder)
    for candidate in (base / sub for base in folders for sub in known.folders):
        if candidate.is_dir():
            items = _selected(candidate, known)
            if known.count and len(items) != known.count:
                raise InvalidParameter(f"{candidate}: {known.label} has {known.count} images, here are {len(items)}")
            return DataSet(known.name, known.label, tuple(items[:limit]), len(items))
    searched = ", ".join(map(str, folders)) or "none: give --data-dir or set CDC_DATA"
    raise InvalidParameter(
        f"{known.label} is not here. Put {known.origin} into a folder {known.folders[0]!r} below one of the data "
        f"folders ({searched})"
    )


def prepare(item: Item, data: bytes | None = None) -> Prepared:
    """Decode an image and prepare it.

    Raises:
        InvalidParameter: it is no image; the message names it.
    """
    data = item.read_bytes() if data is None else data
    try:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InvalidParameter(f"{item.name}: cannot be read as an image ({error})") from error
    pixels = np.array(PREPARE[item.preparation](image))
    return Prepared(pixels, sha256(data), pixels_sha256(pixels))


def sha256(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pixels_sha256(pixels: Pixels) -> str:
    """SHA-256 over "HEIGHTxWIDTH" and the values of uint8 [H, W, 3] in row order."""
    height, width = pixels.shape[:2]
    return hashlib.sha256(f"{height}x{width}".encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _items(path: Path, preparation: str) -> list[Item]:
    (source,) = open_sources([path])
    clips: Sequence[Clip] = source.clips
    # Members of a tar have no name of their own in a clip: their number stands for it.
    names = [f"{path.name}#{i:05d}" if c.spans else str(c.file.relative_to(path)) for i, c in enumerate(clips)]
    return [Item(n, c, preparation) for n, c in zip(names, clips, strict=True)]


def _selected(folder: Path, known: Known) -> list[Item]:
    kept = []
    for item in _items(folder, known.preparation):
        with Image.open(item.clip.file) as image:  # reads the header alone
            if known.accepts(image.size):
                kept.append(item)
    return kept
