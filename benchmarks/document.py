"""Write docs/benchmarks.md: the prose of document.md.jinja, with the figures of results/*.json.

python -m benchmarks.document
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from benchmarks.record import Rows, table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCUMENT = HERE.parent / "docs" / "benchmarks.md"
Record = Mapping[str, Any]


def load() -> dict[str, Record]:
    """All records, by the names of their files."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))}


def machine_of(record: Record) -> str:
    """A machine in words, as far as its record says."""
    machine = record["machine"]
    memory = f", {machine['memory_gib']:g} GiB" if machine["memory_gib"] else ""
    features = ", ".join(machine["features"])
    gpu = machine["gpu"] or "no GPU"
    return (
        f"{machine['processor']}, {machine['cores']} cores{memory}, {features}: {machine['auto_precision']} "
        f"by `precision=auto`; {gpu}; torch {record['versions']['torch']}"
    )


def about(record: Record, machines: list[str]) -> str:
    """Where figures come from, in one line: command, date, machine, weights, load, and what else was noted."""
    weights = f"weights {record['weights']['version']}" if record["weights"] else "weights not noted"
    verb = "measured" if record["origin"] == "measured" else "transcribed, of"
    parts = [
        f"{verb} {record['date']}",
        f"machine {machines.index(machine_of(record)) + 1}",
        weights,
        f"load {'not noted' if record['load'] is None else record['load']}",
        *([f"others used {others} cores"] if (others := record.get("cores_of_others")) is not None else []),
    ]
    note = f". {record['note'][:1].upper()}{record['note'][1:]}" if record["note"] else ""
    command = (
        f"`{record['command']}`" if " -" in record["command"] or "make" in record["command"] else record["command"]
    )
    return f"{command} ({', '.join(parts)}){note}."


def pick(rows: Rows, **values: Any) -> Mapping[str, Any]:
    """The one row that has these values."""
    (row,) = (row for row in rows if all(row[name] == value for name, value in values.items()))
    return row


def render(records: Mapping[str, Record]) -> str:
    """The document as the template and these records make it.

    Raises:
        jinja2.UndefinedError: the template names a record or a figure that is not there.
    """
    machines = sorted({machine_of(r) for r in records.values()})
    codecs = sorted({(r["weights"]["version"], r["weights"]["codec_id"]) for r in records.values() if r["weights"]})
    environment = jinja2.Environment(  # noqa: S701 - Markdown of our own records, no HTML
        loader=jinja2.FileSystemLoader(HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals |= {
        "about": lambda record: about(record, machines),
        "table": table,
        "pick": pick,
        "machines": machines,
        "codecs": codecs,
    }
    return environment.get_template("document.md.jinja").render(records)


def main() -> None:
    DOCUMENT.write_text(render(load()), encoding="utf-8")


if __name__ == "__main__":
    main()
