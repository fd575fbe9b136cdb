"""The decoder's files (`cdc weights export --onnx`): where they are, and that they are the ones that are meant.

They are looked for in this order: the folder that the caller or CDC_DECODER names; an installed `cdc-codec`, which
carries those of the shipped model; the cache, filled from the service at CDC_URL, which serves them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from cdc_client.errors import ConnectionFailed, DecoderUnavailable

MANIFEST = "decoder.json"
FORMAT = "cdc-decoder/1"
GROUP = "cdc_client.decoders"  # entry points: functions that return a folder
MAX_BYTES = 64 << 20  # of a file that is fetched
TIMEOUT_S = 60.0
NAME = re.compile(r"[a-z]+-[0-9a-f]{16}\.(onnx|safetensors)")


@dataclass(frozen=True)
class DecoderFiles:
    """A folder with a manifest, and its values."""

    folder: Path
    manifest: Mapping[str, Any]

    @property
    def codec_id(self) -> bytes:
        """Of the files that it decodes."""
        return bytes.fromhex(str(self.manifest["codec_id"]))

    def read(self, part: str) -> bytes:
        """A file's bytes. Raises DecoderUnavailable where they are not those of its hash."""
        entry = self.manifest["files"][part]
        try:
            data: bytes = (self.folder / entry["file"]).read_bytes()
        except OSError as error:
            raise DecoderUnavailable(f"{entry['file']}: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise DecoderUnavailable(f"{entry['file']} is damaged: its content is not what {MANIFEST} says")
        return data

    def integers(self) -> dict[str, npt.NDArray[Any]]:
        """The integer tensors by the names of FORMAT.md."""
        data = self.read("integers")
        start = 8 + int.from_bytes(data[:8], "little")
        types = {"I16": "<i2", "I32": "<i4", "I64": "<i8"}
        found = {}
        for name, entry in json.loads(data[8:start]).items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                values = np.frombuffer(data[start + first : start + last], types[entry["dtype"]])
                found[name.removeprefix("entropy.")] = values.reshape(entry["shape"])
        return found


def find_files(folder: str | Path | None = None, url: str | None = None) -> DecoderFiles:
    """The decoder's files: of `folder`, of `url` (a service), or where this module's docstring says.

    Raises:
        DecoderUnavailable: there are none, or they are of another version of this program.
        ConnectionFailed: the service cannot be reached.
    """
    folder = folder or os.environ.get("CDC_DECODER")
    if folder:
        return _open(Path(folder))
    if url is None:
        for entry in entry_points(group=GROUP):
            return _open(Path(entry.load()()))
    url = url or os.environ.get("CDC_URL")
    if url:
        return _fetch(url.rstrip("/"))
    raise DecoderUnavailable(
        "no decoder here: name its folder in CDC_DECODER (`cdc weights export --onnx` makes it), a service that "
        "has it in CDC_URL, or install cdc-codec"
    )


def _open(folder: Path) -> DecoderFiles:
    try:
        return DecoderFiles(folder, _checked((folder / MANIFEST).read_bytes()))
    except OSError as error:
        raise DecoderUnavailable(f"{folder / MANIFEST}: {error.strerror}") from error


def _checked(data: bytes) -> Mapping[str, Any]:
    """A manifest; the names in it may become paths."""
    try:
        manifest = json.loads(data)
        names = [entry["file"] for entry in manifest["files"].values()]
        good = manifest["format"] == FORMAT and all(NAME.fullmatch(name) for name in names)
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise DecoderUnavailable(f"{MANIFEST} is not a manifest of {FORMAT}")
    return manifest  # type: ignore[no-any-return]


def _fetch(url: str) -> DecoderFiles:
    """Fetch what the cache lacks; files are named by their content, so what is there is right."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cdc" / "decoder"
    with httpx.Client(timeout=TIMEOUT_S) as http:
        manifest = _checked(_get(http, f"{url}/decoder/{MANIFEST}"))
        files = DecoderFiles(cache, manifest)
        cache.mkdir(parents=True, exist_ok=True)
        for part, entry in manifest["files"].items():
            path = cache / entry["file"]
            if not path.is_file():
                data = _get(http, f"{url}/decoder/{entry['file']}")
                unfinished = path.with_suffix(f".{os.getpid()}")
                unfinished.write_bytes(data)
                unfinished.replace(path)
            try:
                files.read(part)
            except DecoderUnavailable:
                path.unlink(missing_ok=True)
                raise
    return files


def _get(http: httpx.Client, url: str) -> bytes:
    data = bytearray()
    try:
        with http.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise DecoderUnavailable(f"{url}: answered {answer.status_code}; the service has no decoder to give")
            for chunk in answer.iter_bytes():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise DecoderUnavailable(f"{url}: has more than {MAX_BYTES} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ConnectionFailed(f"{url}: {type(error).__name__}: {error}") from error
    return bytes(data)
