"""Tables for LaTeX, with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "γ": r"$\gamma$"}
SPECIAL["\\"] = r"\textbackslash{}"


def tabular(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A `tabular` with the first column flush left and the others flush right. Cells are plain text."""
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}", r"\toprule", _line(header), r"\midrule"]
    return "\n".join([*lines, *(_line(row) for row in rows), r"\bottomrule", r"\end{tabular}"])


def bd_rate_tables(records: Sequence[dict[str, Any]]) -> str:
    """One table for each data set and metric: BD-rate in percent of each codec (column) against each anchor (row)."""
    tables = []
    for data, metric in dict.fromkeys((r["data"], r["metric"]) for r in records):
        own = [r for r in records if (r["data"], r["metric"]) == (data, metric)]
        tests = list(dict.fromkeys(r["test"] for r in own))
        found = {(r["anchor"], r["test"]): r["percent"] for r in own}
        rows = []
        for anchor in dict.fromkeys(r["anchor"] for r in own):
            values = [found.get((anchor, t)) for t in tests]
            rows.append([anchor, *("--" if v is None else f"{v:+.1f}" for v in values)])
        tables.append(f"% BD-rate in percent by {metric} on {data}\n" + tabular(["anchor", *tests], rows))
    return "\n\n".join(tables) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join("".join(SPECIAL.get(c, c) for c in cell) for cell in cells) + r" \\"
