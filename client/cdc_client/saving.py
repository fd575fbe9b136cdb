"""An answer that goes to a file as it comes: whole or not at all, and checked against its digest."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from cdc_client.errors import ConnectionFailed

_DIGEST = re.compile(r"[0-9a-f]{64}")


class FileSink:
    """Takes the bytes of a file. As context manager: on success the file is there, on failure it is as it was.

    `etag` is the answer's, whose SHA-256 the bytes must have; one that says nothing of the kind is passed over.

    Raises:
        ConnectionFailed: the bytes are not those of the digest.
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path, etag: str) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name[:200]}.{os.getpid()}.{id(self):x}.part")
        self._digest = etag.strip('"')
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = self._part.open("wb")

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._hash.update(data)
        self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._file.close()
            if kind is None:
                if _DIGEST.fullmatch(self._digest) and self._hash.hexdigest() != self._digest:
                    raise ConnectionFailed("the answer arrived damaged: its bytes do not have its digest")
                self._part.replace(self._path)
        finally:
            self._part.unlink(missing_ok=True)
