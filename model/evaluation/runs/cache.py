"""What was measured once: a record for each (image, codec, parameters), and the coded files themselves."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from model.evaluation.coders.models import Value

RECORD_VERSION = 1  # raised when a record changes its meaning


@dataclass(frozen=True)
class Row:
    """One decoded image.

    Attributes:
        data, image: names of the data set and of the image.
        file_sha256, preparation: what the pixels were made from, and how.
        pixels_sha256: of the prepared pixels.
        width, height: in pixels.
        codec, version, parameters: what coded it.
        bytes, bpp: size of the whole file; bits of it per pixel.
        encode_seconds, decode_seconds: as measured then, whatever else ran.
        coded_sha256: of the coded file, which the cache keeps.
        metrics: "name" -> value.
    """

    data: str
    image: str
    file_sha256: str
    preparation: str
    pixels_sha256: str
    width: int
    height: int
    codec: str
    version: str
    parameters: dict[str, Value]
    bytes: int
    bpp: float
    encode_seconds: float
    decode_seconds: float
    coded_sha256: str
    metrics: dict[str, float] = field(default_factory=dict)

    def with_metrics(self, metrics: dict[str, float]) -> Row:
        """The same row with further metrics."""
        return replace(self, metrics={**self.metrics, **metrics})

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)


def key_of(file_sha256: str, preparation: str, codec: str, version: str, parameters: dict[str, Value]) -> str:
    """What a row is found by: SHA-256 over everything that decides it."""
    content = [RECORD_VERSION, file_sha256, preparation, codec, version, dict(sorted(parameters.items()))]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Cache:
    """A folder of records (`rows/`) and coded files (`files/`). Written by one process, read by any."""

    def __init__(self, folder: Path) -> None:
        """The folder is made when something is stored."""
        self.folder = folder

    def get(self, key: str) -> Row | None:
        """The row of that key, None if there is none or it cannot be read."""
        try:
            return Row(**json.loads(self._row(key).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def put(self, key: str, row: Row) -> None:
        """Store a row; the file appears whole or not at all."""
        write_whole(self._row(key), row.to_json().encode())

    def file(self, sha256: str) -> bytes | None:
        """A coded file, None if it is not here or damaged."""
        try:
            data = self._file(sha256).read_bytes()
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == sha256 else None

    def put_file(self, data: bytes) -> str:
        """Store a coded file; returns its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self._file(sha256).is_file():
            write_whole(self._file(sha256), data)
        return sha256

    def _row(self, key: str) -> Path:
        return self.folder / "rows" / key[:2] / f"{key}.json"

    def _file(self, sha256: str) -> Path:
        return self.folder / "files" / sha256[:2] / sha256


def default_folder() -> Path:
    """$CDC_EVALUATION_CACHE, else ~/.cache/cdc/evaluation."""
    return Path(os.environ.get("CDC_EVALUATION_CACHE") or Path.home() / ".cache" / "cdc" / "evaluation")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
