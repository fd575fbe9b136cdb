"""The command `cdc` in this process, and what came of it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cdc_client import __main__ as cli


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Standard output, which must be one JSON object and nothing else."""
        (line,) = self.out.decode().splitlines()
        return dict(json.loads(line))


def cdc(*arguments: str | Path, stdin: bytes = b"") -> Done:
    """Run `cdc` in this process."""
    out, err = io.BytesIO(), io.BytesIO()
    streams = [io.TextIOWrapper(raw, write_through=True) for raw in (io.BytesIO(stdin), out, err)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cdc", *map(str, arguments)])
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return Done(code, out.getvalue(), err.getvalue().decode())


def refused(done: Done) -> str:
    """The one line that says why, without its prefix; nothing is on standard output."""
    assert (done.code, done.out) == (1, b"")
    (line,) = done.err.splitlines()
    assert line.startswith("cdc: ")
    return line.removeprefix("cdc: ")
