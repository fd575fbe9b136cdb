"""Where training images lie: folders, tar shards, Vimeo-90k clips. Reading one image touches that image alone."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from model.errors import InvalidParameter
from model.types import Pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
VIMEO_FRAMES = 7


@dataclass(frozen=True)
class Clip:
    """One training item: an image, or some frames of which any may be taken.

    Attributes:
        file: the file that holds it.
        spans: (offset, length) in bytes of each frame within `file`; empty: the frames are the files `frames`.
        frames: file names, relative to `file`'s folder, where each frame is a file of its own.
    """

    file: Path
    spans: tuple[tuple[int, int], ...] = ()
    frames: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.spans) or len(self.frames)


@dataclass(frozen=True)
class Source:
    """A folder or shard and what is in it."""

    path: Path
    kind: str
    clips: tuple[Clip, ...]

    def manifest(self) -> dict[str, Any]:
        """What the record beside a checkpoint says of it: kind, number of clips, a hash over names and sizes."""
        digest = hashlib.sha256()
        for clip in self.clips:
            digest.update(f"{clip.file.name} {clip.spans} {clip.frames}\n".encode())
        return {"path": str(self.path), "kind": self.kind, "clips": len(self.clips), "sha256": digest.hexdigest()}


def open_sources(paths: Sequence[Path]) -> list[Source]:
    """List what the paths hold; no image is decoded.

    Raises:
        InvalidParameter: a path is missing, of no known kind, or holds no image.
    """
    return [_open(path) for path in paths]


def read_frame(clip: Clip, frame: int = 0) -> Pixels:
    """Decode one frame of a clip, uint8 [H, W, 3].

    Raises:
        InvalidParameter: it is no image; the message names the file.
    """
    try:
        if clip.spans:
            offset, length = clip.spans[frame]
            with clip.file.open("rb") as file:
                file.seek(offset)
                data = file.read(length)
        else:
            data = (clip.file.parent / clip.frames[frame]).read_bytes()
        return np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InvalidParameter(f"{clip.file}: cannot be read as an image ({error})") from error


def _open(path: Path) -> Source:
    if path.suffix == ".tar" and path.is_file():
        source = Source(path, "tar", _tar_clips(path))
    elif (path / "sequences").is_dir():
        source = Source(path, "vimeo-90k", _vimeo_clips(path))
    elif path.is_dir():
        names = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        source = Source(path, "folder", tuple(Clip(p, frames=(p.name,)) for p in names))
    else:
        raise InvalidParameter(f"{path}: neither a folder nor a .tar file")
    if not source.clips:
        raise InvalidParameter(f"{path}: holds no image")
    return source


def _tar_clips(path: Path) -> tuple[Clip, ...]:
    with tarfile.open(path) as tar:
        members = [m for m in tar if m.isfile() and m.name.lower().endswith(SUFFIXES)]
    return tuple(Clip(path, spans=((m.offset_data, m.size),)) for m in members)


def _vimeo_clips(path: Path) -> tuple[Clip, ...]:
    """The clips that sep_trainlist.txt (or tri_trainlist.txt) names; without a list, all that are there."""
    lists = [p for name in ("sep_trainlist.txt", "tri_trainlist.txt") if (p := path / name).is_file()]
    if lists:
        names = [line.strip() for line in lists[0].read_text().splitlines() if line.strip()]
        folders = [path / "sequences" / name for name in names]
    else:
        folders = sorted(p.parent for p in (path / "sequences").glob("*/*/im1.png"))
    frames = tuple(f"im{i}.png" for i in range(1, VIMEO_FRAMES + 1))
    return tuple(Clip(folder / frames[0], frames=frames) for folder in folders)
