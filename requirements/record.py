"""Write what every locked package requires to requires.json: `python requirements/record.py`.

Needs the network and a pip of 23.3 or newer; `requirements/compile` runs it.

With it a test proves, without installing anything, that nothing a locked package may want is missing from its lock.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

FOLDER = Path(__file__).parent
NAME_AND_VERSION = re.compile(r"^([a-z0-9][a-z0-9._-]*==[^\s;\\]+)", re.MULTILINE)
REQUESTS = 4
PYTHONS = ("3.11", "3.13", "3.12")  # tried in this order: some versions are for later Pythons alone


def requires_of(requirement: str) -> list[str]:
    """Return the Requires-Dist lines of one version of a package, as its author wrote them."""
    wheels = [["--only-binary=:all:", "--python-version", python] for python in PYTHONS]
    foreign = ["--only-binary=:all:", "--platform", "win_amd64"]
    for options in (*wheels, foreign, []):  # the last one builds the metadata of a package without wheels
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", *options]
            command += ["--target", folder]
            done = subprocess.run(  # noqa: S603
                [*command, "--report", str(report), requirement], check=False, capture_output=True, text=True
            )
            if done.returncode == 0:
                (found,) = json.loads(report.read_text())["install"]
                return sorted(found["metadata"].get("requires_dist", []))
    raise SystemExit(f"{requirement}: {done.stderr}")


def main() -> None:
    """Read the locks, ask the index, write the file. What is known already is not asked for again."""
    path = FOLDER / "requires.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    locked = sorted({r for lock in FOLDER.glob("*.lock") for r in NAME_AND_VERSION.findall(lock.read_text())})
    new = [r for r in locked if r not in known]
    with ThreadPoolExecutor(REQUESTS) as pool:
        found = {r: known[r] for r in locked if r in known} | dict(zip(new, pool.map(requires_of, new), strict=True))
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
