"""Files and folders in, a file each out: which, whether they are up to date, what became of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import typer

from cdc_client.command.backend import Backend, Made
from cdc_client.command.report import Row, Totals, print_row, print_table_head, print_totals
from cdc_client.command.terminal import (
    Refused,
    check_output,
    naming,
    plain,
    progress,
    read_bytes,
    report,
    write_output,
)
from cdc_client.many import in_order

FORMATS: dict[str, Literal["png", "webp", "jpeg"]] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
IMAGE_ENDINGS = frozenset(
    {*FORMATS, ".avif", ".bmp", ".gif", ".heic", ".jxl", ".pgm", ".ppm", ".tif", ".tiff"}
)  # what is no name for a .cdc file
READABLE = IMAGE_ENDINGS - {".heic", ".jxl", ".pgm"}


@dataclass(frozen=True)
class Operation:
    """What is done to files.

    Attributes:
        verb: for the progress bar.
        reads: endings of the files that are taken from a folder.
        ending: of the files it makes in a folder.
        endings: that a name of OUT must have, empty for any.
        derived: what it makes is never an original, so that an older one may be replaced unasked.
    """

    verb: Literal["encoding", "decoding"]
    reads: frozenset[str]
    ending: str
    endings: tuple[str, ...]
    derived: bool


ENCODE = Operation("encoding", READABLE, ".cdc", (), derived=True)
DECODE = Operation("decoding", frozenset({".cdc"}), ".png", tuple(FORMATS), derived=False)


def decode_to(format: Literal["png", "webp", "jpeg"] | None) -> Operation:
    """A decode to that format whatever the name of its file; None: by the ending of the name, png in a folder."""
    endings = {"png": ".png", "webp": ".webp", "jpeg": ".jpg"}
    return DECODE if format is None else replace(DECODE, ending=endings[format], endings=())


def format_of(out: str) -> Literal["png", "webp", "jpeg"]:
    """The format of the ending of a name; png for one that says nothing."""
    return FORMATS.get(Path(out).suffix.lower(), "png")


@dataclass(frozen=True)
class Task:
    """A file to read and where to write what it becomes; `-` is standard input or output."""

    source: str
    out: str


@dataclass(frozen=True)
class Plan:
    """All that a command does. `single`: one file to a name of its own."""

    operation: Operation
    tasks: tuple[Task, ...]
    single: bool


def plan_of(operation: Operation, files: Sequence[str], out: str | None) -> Plan:
    """Return what is to be done: `IN OUT` is a single file, FILES with -o FOLDER any number of files and folders.

    Raises:
        typer.BadParameter: there is no place for what is made.
        Refused: the folder cannot be made.
    """
    if out is None and len(files) == 2:
        return Plan(operation, (Task(files[0], files[1]),), single=True)
    if out is None:
        raise typer.BadParameter("say where to write: IN OUT for a single file, -o FOLDER for more")
    alone = len(files) == 1 and not Path(files[0]).is_dir()
    named = Path(out).suffix.lower() in (*FORMATS, ".cdc", *IMAGE_ENDINGS) or out == "-"
    if alone and named and not Path(out).is_dir() and not out.endswith("/"):
        return Plan(operation, (Task(files[0], out),), single=True)
    if "-" in files or out == "-":
        raise typer.BadParameter("`-` is for a single file: IN OUT")
    if Path(out).exists() and not Path(out).is_dir():
        raise Refused(f"{out}: is a file, not a folder")
    tasks = tuple(
        Task(str(source), str((Path(out) / below).with_suffix(operation.ending)))
        for source, below in _sources(files, operation.reads)
    )
    if not tasks:
        raise Refused(f"{', '.join(files)}: no file to take; endings are {', '.join(sorted(operation.reads))}")
    return Plan(operation, tasks, single=False)


def _sources(files: Sequence[str], endings: frozenset[str]) -> Iterator[tuple[Path, Path]]:
    """Each file, and its path below the folder that was named; folders are walked, links to folders are not followed.

    Hidden files and folders are left out, and what has another ending; a file that is named itself is always taken.
    """
    for name in files:
        root = Path(name)
        if not root.is_dir():
            yield root, Path(root.name)
            continue
        for folder, below, names in os.walk(root):
            below[:] = sorted(n for n in below if not n.startswith("."))
            for found in sorted(names):
                path = Path(folder) / found
                if path.suffix.lower() in endings and not found.startswith("."):
                    yield path, path.relative_to(root)


def run(plan: Plan, work: Callable[[bytes], Made], backend: Backend, jobs: int, as_json: bool, force: bool) -> int:
    """Do it; return how many files failed. A single file's failure is raised.

    Raises:
        Refused: why a single file cannot be done.
        OSError: of a single file.
    """
    if plan.single:
        _run_single(plan, work, backend, as_json, force)
        return 0
    taken: dict[str, str] = {}
    start, totals = time.perf_counter(), Totals()
    for task in plan.tasks:
        taken.setdefault(task.out, task.source)

    def attempt(task: Task) -> Row:
        try:
            if taken[task.out] != task.source:
                raise Refused(f"{task.source}: {task.out} is for {taken[task.out]}; give them another folder each")
            return _one_of_many(task, plan.operation, work, backend, force)
        except OSError as error:
            return Row(task.source, task.out, failure=_with_name(task.source, plain(error)))
        except Refused as error:
            return Row(task.source, task.out, failure=str(error))

    names = [task.source for task in plan.tasks]
    print_table_head(names, plan.operation.verb, as_json)
    with progress(plan.operation.verb, len(plan.tasks)) as advance:
        for future in in_order(attempt, plan.tasks, jobs):
            row = future.result()
            totals.add(row)
            print_row(row, names, plan.operation.verb, as_json)
            advance()
    print_totals(totals, plan.operation.verb, time.perf_counter() - start, as_json)
    return totals.failed


def _run_single(plan: Plan, work: Callable[[bytes], Made], backend: Backend, as_json: bool, force: bool) -> None:
    (task,) = plan.tasks
    ending = Path(task.out).suffix.lower()
    if plan.operation.derived and ending in IMAGE_ENDINGS:
        hint = "several images go to a folder: -o FOLDER"
        raise Refused(f"{task.out}: an encode writes a .cdc file, and {ending} is the ending of an image; {hint}")
    check_output(task.out, source=task.source, force=force, endings=plan.operation.endings)
    data = read_bytes(task.source)
    with naming(task.source, *backend.failures):
        made = work(data)
    write_output(task.out, made.data)
    report(made.report, as_json, err=task.out == "-")


def _one_of_many(task: Task, operation: Operation, work: Callable[[bytes], Made], backend: Backend, force: bool) -> Row:
    """Raises Refused, OSError."""
    out, source = Path(task.out), Path(task.source)
    if out.is_file() and source.is_file() and not force:
        if out.stat().st_mtime >= source.stat().st_mtime:
            return Row(task.source, task.out, skipped=True)
        force = operation.derived
    out.parent.mkdir(parents=True, exist_ok=True)
    check_output(task.out, source=task.source, force=force)
    data = read_bytes(task.source)
    with naming(task.source, *backend.failures):
        made = work(data)
    write_output(task.out, made.data)
    return Row(task.source, task.out, len(data), len(made.data), made.report)


def _with_name(source: str, reason: str) -> str:
    return reason if ": " in reason else f"{source}: {reason}"


def inspect(files: Sequence[str], backend: Backend, as_json: bool) -> int:
    """Print what files are, one record each; return how many failed. A single file's failure is raised.

    Raises:
        Refused: why a single file cannot be read.
        OSError: of a single file.
    """
    if len(files) == 1 and not Path(files[0]).is_dir():
        report(_inspected(files[0], backend, as_json), as_json)
        return 0
    if "-" in files:
        raise typer.BadParameter("`-` is for a single file")
    names = [str(path) for path, _ in _sources(files, DECODE.reads)]
    if not names:
        raise Refused(f"{', '.join(files)}: there is no .cdc file")
    failed = 0
    print_table_head(names, "inspecting", as_json)
    for name in names:
        row = Row(name)
        try:
            row = replace(row, report=_inspected(name, backend, as_json))
        except OSError as error:
            row = replace(row, failure=_with_name(name, plain(error)))
        except Refused as error:
            row = replace(row, failure=str(error))
        failed += row.failure is not None
        print_row(row, names, "inspecting", as_json)
    return failed


def print_symbols(files: Sequence[str], backend: Backend) -> int:
    """Print the SHA-256 over the symbols of each file. Raises Refused, OSError for the first that cannot be read."""
    for name in files:
        data = read_bytes(name)
        with naming(name, *backend.failures):
            digest = backend.symbols(data)
        typer.echo(digest)
    return 0


def _inspected(name: str, backend: Backend, as_json: bool) -> dict[str, Any]:
    data = read_bytes(name)
    with naming(name, *backend.failures):
        values = backend.inspect(data)
    if not as_json:
        values["sections"] = ", ".join(f"{k} {v} B" for k, v in values["sections"].items())
    return values
