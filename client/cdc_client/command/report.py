"""What is printed of many files: a line each, as a table or as JSON, and their sum."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import typer

Verb = Literal["encoding", "decoding", "inspecting"]
MAX_NAME = 48  # characters of a file's name in the table
HEADS: dict[Verb, str] = {
    "encoding": f"{'image':>10}{'.cdc':>10}{'saved':>9}{'bpp':>9}",
    "decoding": f"{'.cdc':>10}{'image':>10}{'pixels':>14}{'steps':>7}",
    "inspecting": f"{'.cdc':>10}{'pixels':>14}{'bpp':>9}{'quality':>9}",
}


@dataclass(frozen=True)
class Row:
    """What became of a file; sizes in bytes."""

    source: str
    out: str | None = None
    bytes_in: int = 0
    bytes_out: int = 0
    report: dict[str, Any] = field(default_factory=dict)
    skipped: bool = False
    failure: str | None = None


@dataclass
class Totals:
    """Sums over rows. Sizes are of the files that were made."""

    done: int = 0
    skipped: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, row: Row) -> None:
        """Count a row."""
        self.failed += row.failure is not None
        self.skipped += row.skipped
        self.done += not row.skipped and row.failure is None
        self.bytes_in += row.bytes_in
        self.bytes_out += row.bytes_out


def size(count: int) -> str:
    """A number of bytes for people: 812 B, 45.2 kB, 3.1 MB."""
    if count < 1000:
        return f"{count} B"
    value, unit = (count / 1000, "kB") if count < 999_950 else (count / 1_000_000, "MB")
    return f"{value:.1f} {unit}"


def saved(before: int, after: int) -> float:
    """The share of the bytes that is gone; negative where a file grew."""
    return 1 - after / before if before else 0.0


def print_table_head(names: Sequence[str], verb: Verb, as_json: bool) -> None:
    """The first line of the table."""
    if not as_json:
        typer.echo(f"{'file':<{_width(names)}}{HEADS[verb]}")


def print_row(row: Row, names: Sequence[str], verb: Verb, as_json: bool) -> None:
    """A line of the table; a failure goes to standard error."""
    if as_json:
        typer.echo(json.dumps(_values(row, verb)))
        return
    if row.failure is not None:
        typer.echo(f"cdc: {row.failure}", err=True)
        return
    text = "  up to date" if row.skipped else _columns(row, verb)
    name = row.source if len(row.source) <= MAX_NAME else "..." + row.source[3 - MAX_NAME :]
    typer.echo(f"{name:<{_width(names)}}{text}")


def print_totals(totals: Totals, verb: Verb, seconds: float, as_json: bool) -> None:
    """The last line."""
    if as_json:
        values: dict[str, Any] = {**vars(totals), "seconds": round(seconds, 2)}
        if verb == "encoding":
            values["saved"] = round(saved(totals.bytes_in, totals.bytes_out), 4)
        typer.echo(json.dumps(values))
        return
    text = f"{totals.done} done, {totals.skipped} up to date, {totals.failed} failed"
    if totals.done:
        text += f": {size(totals.bytes_in)} to {size(totals.bytes_out)}"
        if verb == "encoding":
            text += f", {saved(totals.bytes_in, totals.bytes_out):.1%} saved"
    typer.echo(f"{text}, in {seconds:.1f} s")


def _width(names: Sequence[str]) -> int:
    return min(MAX_NAME, max(map(len, names), default=4)) + 2


def _columns(row: Row, verb: Verb) -> str:
    values = row.report
    pixels = f"{values['width']}x{values['height']}"
    if verb == "encoding":
        share = f"{saved(row.bytes_in, row.bytes_out):.1%}"
        return f"{size(row.bytes_in):>10}{size(row.bytes_out):>10}{share:>9}{values['bpp']:>9.3f}"
    if verb == "decoding":
        return f"{size(row.bytes_in):>10}{size(row.bytes_out):>10}{pixels:>14}{values['steps']:>7}"
    quality = "-" if values["quality"] is None else str(values["quality"])
    return f"{size(values['bytes']):>10}{pixels:>14}{values['bpp']:>9.3f}{quality:>9}"


def _values(row: Row, verb: Verb) -> dict[str, Any]:
    if row.failure is not None:
        return {"file": row.source, "error": row.failure}
    if verb == "inspecting":
        return {"file": row.source, **row.report}
    if row.skipped:
        return {"file": row.source, "out": row.out, "skipped": True}
    values: dict[str, Any] = {"bytes_in": row.bytes_in, "bytes_out": row.bytes_out}
    if verb == "encoding":
        values["saved"] = round(saved(row.bytes_in, row.bytes_out), 4)
    return {"file": row.source, "out": row.out, **values, **row.report}
