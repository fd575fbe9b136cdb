"""Encode or decode all files of a folder or bucket with Ray Data: python examples/ray_data.py encode SOURCE TARGET.

    pip install 'cdc-codec[serve]' 'ray[data]'
    python examples/ray_data.py encode photos archive --workers 2 --threads 4 quality=40
    python examples/ray_data.py decode s3://bucket/archive s3://bucket/images steps=1 format=webp

SOURCE and TARGET are any that fsspec opens. Each worker is a Ray actor with a model of its own, which takes a batch of
files at a time and puts their tiles together into its forward passes. A file of TARGET is there whole or not at all, so
another run goes on where the last one stopped. At the end TARGET/manifest.jsonl has a line for each file: its name, its
bytes, or what is wrong with it.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import fsspec

from cdc_client import Client
from service.local import local_client

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
MANIFEST = "manifest.jsonl"
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be done: files of `source` into `target`, with options of the client's encode or decode."""

    operation: str
    source: str
    target: str
    options: Mapping[str, Any]
    threads: int = 1

    @property
    def ending(self) -> str:
        """What is put behind the name of a file."""
        return ".cdc" if self.operation == "encode" else f".{self.options.get('format', 'png')}"


class Transcoder:
    """What a worker does: names of files in, what became of them out. Its model is loaded once."""

    def __init__(self, job: Job, client: Client | None = None) -> None:
        """`client`: of a service that is there already, instead of one of this worker's own."""
        self._open = ExitStack()
        if client is None:
            logging.getLogger("service").setLevel(logging.CRITICAL)  # each failure is in the manifest
            client = self._open.enter_context(local_client(threads=job.threads))
        self._many = client.encode_many if job.operation == "encode" else client.decode_many
        self._job = job
        self._source, self._target = fsspec.core.url_to_fs(job.source), fsspec.core.url_to_fs(job.target)

    def __call__(self, batch: Mapping[str, Iterable[Any]]) -> dict[str, list[Any]]:
        """All files of a batch are under way at once."""
        names = [str(name) for name in batch["name"]]
        files = [self._read(name) for name in names]
        there = [file for file in files if isinstance(file, bytes)]
        made = self._many(there, concurrency=max(1, len(there)), return_errors=True, **self._job.options)
        rows = [
            self._row(name, file, next(made) if isinstance(file, bytes) else file)
            for name, file in zip(names, files, strict=True)
        ]
        return {key: [row[key] for row in rows] for key in rows[0]}

    def _read(self, name: str) -> bytes | OSError:
        files, root = self._source
        try:
            data: bytes = files.cat_file(f"{root}/{name}")
        except OSError as error:
            return error
        return data

    def _row(self, name: str, source: bytes | OSError, made: Any) -> Row:
        size = len(source) if isinstance(source, bytes) else 0
        if isinstance(made, Exception):
            return row_of(name, "", size, 0, f"{type(made).__name__}: {made}")
        files, root = self._target
        path = f"{root}/{name}{self._job.ending}"
        files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        with files.transaction, files.open(path, "wb") as out:  # it appears when the block ends
            out.write(made.data)
        return row_of(name, name + self._job.ending, size, len(made.data))


def row_of(name: str, file: str, source_bytes: int, size: int, error: str = "") -> Row:
    """A line of the manifest."""
    return {"name": name, "file": file, "source_bytes": source_bytes, "bytes": size, "error": error}


def address_of(place: str) -> str:
    """An address that means the same to every worker."""
    files, root = fsspec.core.url_to_fs(place)
    return str(files.unstrip_protocol(root))


def option_of(pair: str) -> tuple[str, Any]:
    """NAME=VALUE; a value that is no number, true or false is a text. Raises ValueError."""
    name, value = pair.split("=", 1)
    try:
        return name, value if name == "model" else json.loads(value)
    except json.JSONDecodeError:
        return name, value


def sizes_of(url: str, endings: tuple[str, ...]) -> dict[str, int]:
    """Files below a folder, with their bytes, by their names in it.

    A key of a bucket may have "..", which would lead out of the target's folder: it is passed over.
    """
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    found = files.find(root, detail=True) if files.exists(root) else {}
    return {
        str(PurePosixPath(path).relative_to(PurePosixPath(root))): int(info["size"])
        for path, info in found.items()
        if path.lower().endswith(endings) and ".." not in path.split("/")
    }


def plan(job: Job) -> tuple[list[str], list[Row]]:
    """Names that are left to do, and rows of those that are done."""
    done = sizes_of(job.target, (job.ending,))
    left, rows = [], []
    for name, size in sorted(sizes_of(job.source, IMAGES if job.operation == "encode" else (".cdc",)).items()):
        if (file := name + job.ending) in done:
            rows.append(row_of(name, file, size, done[file]))
        else:
            left.append(name)
    return left, rows


def transcoded(names: list[str], job: Job, workers: int, batch: int) -> Iterator[Row]:
    """Do it with Ray; yields rows as they come."""
    import ray

    done = ray.data.from_items([{"name": name} for name in names]).map_batches(
        Transcoder, fn_constructor_args=(job,), batch_size=batch, concurrency=workers, num_cpus=job.threads
    )
    yield from done.iter_rows()


def write_manifest(target: str, rows: list[Row]) -> None:
    """Write a line for each file."""
    files, root = fsspec.core.url_to_fs(target)
    files.makedirs(root, exist_ok=True)
    with files.transaction, files.open(f"{root}/{MANIFEST}", "wb") as out:
        out.write("".join(json.dumps(row) + "\n" for row in sorted(rows, key=lambda row: str(row["name"]))).encode())


def main(arguments: list[str] | None = None) -> int:
    """Return 1 where a file failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("operation", choices=["encode", "decode"])
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE", help="of the client's encode or decode")
    parser.add_argument("--workers", type=int, default=1, help="Ray actors, each with a model")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of each")
    parser.add_argument("--batch", type=int, default=16, help="files that a worker has at a time")
    given = parser.parse_intermixed_args(arguments)
    if wrong := [option for option in given.options if "=" not in option]:
        parser.error(f"an option is NAME=VALUE, not {wrong[0]}")
    options = dict(map(option_of, given.options))
    job = Job(given.operation, address_of(given.source), address_of(given.target), options, given.threads)
    left, rows = plan(job)
    print(f"{len(rows)} files are done, {len(left)} are left")
    if left:
        rows += transcoded(left, job, given.workers, given.batch)
    write_manifest(job.target, rows)
    failed = sum(bool(row["error"]) for row in rows)
    print(f"{len(rows) - failed} files, {sum(row['bytes'] for row in rows)} bytes; {failed} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
