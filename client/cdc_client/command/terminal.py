"""What commands share: inputs and outputs that are checked before any work, plain words, reports, progress."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_WORDS = {
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "is a folder, not a file",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EPIPE: "the reader of the output has gone",
}


class Refused(Exception):
    """A command cannot be done. The reason names the file or option, and is all that the caller is shown."""


def read_bytes(source: str) -> bytes:
    """Bytes of a file, or of standard input for `-`. Raises OSError; Refused where there are none."""
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    if not data:
        raise Refused(f"{_shown(source)}: is empty")
    return data


@contextmanager
def naming(source: str, *kinds: type[Exception]) -> Iterator[None]:
    """Put the name of the input before what errors of `kinds` say. Raises Refused."""
    try:
        yield
    except kinds as error:
        raise Refused(f"{_shown(source)}: {error}") from error


def _shown(source: str) -> str:
    return "standard input" if source == "-" else source


def report(values: dict[str, Any], as_json: bool, *, err: bool = False) -> None:
    """Print a flat record, one `name value` a line, or as JSON."""
    if as_json:
        typer.echo(json.dumps(values), err=err)
        return
    width = max(map(len, values))
    for name, value in values.items():
        typer.echo(f"{name:<{width}}  {value}", err=err)


def plain(error: OSError) -> str:
    """Say what the system refused, without its number: `photo.jpg: no such file or folder`."""
    words = _WORDS.get(error.errno or 0) or (error.strerror or str(error)).lower()
    return words if error.filename is None else f"{os.fsdecode(error.filename)}: {words}"


def check_output(out: str, *, source: str, force: bool, endings: Collection[str] = ()) -> None:
    """Refuse an output that could not or should not be written, before anything is computed.

    Args:
        out: where to write; `-` is standard output.
        source: the input, which is never replaced.
        force: replace a file that is there.
        endings: that `out` must have, with dots, in lower case; empty: any.

    Raises:
        Refused: the reason.
    """
    if out == "-":
        return
    path = Path(out)
    if path.is_dir():
        raise Refused(f"{out}: is a folder, not a file")
    if endings and path.suffix.lower() not in endings:
        raise Refused(f"{out}: the name must end in {', '.join(endings)}; --format takes any name")
    if not path.parent.is_dir():
        raise Refused(f"{out}: there is no folder {path.parent}")
    if not path.exists():
        writable = os.access(path.parent, os.W_OK | os.X_OK)
    else:
        if source != "-" and Path(source).exists() and path.samefile(source):
            raise Refused(f"{out}: is the input as well")
        if path.is_file() and not force:
            raise Refused(f"{out}: is there already; --force replaces it")
        writable = os.access(path, os.W_OK)
    if not writable:
        raise Refused(f"{out}: permission denied")


def write_output(out: str, data: bytes) -> None:
    """Write a file whole or not at all: one that is replaced stays as it was where the disk is full."""
    if out == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(out).resolve()  # a link is written through
    if path.exists() and not path.is_file():  # a device or a pipe
        path.write_bytes(data)
        return
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        error.filename = out
        raise
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def progress(text: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """A bar with the time that is left, on standard error; without `total`, one that only moves.

    Yields what is to be called for each part of `total` that is done.
    """
    columns = (TextColumn(text), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    console = Console(stderr=True)
    # Where nobody watches, even a bar that leaves nothing behind would leave an empty line.
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=total)
        yield lambda: bar.advance(task)
