"""Programs that the tests run, and the packages of Debian's that bring them.

`python -m tests.programs` installs what is missing, as root or by sudo; what it cannot install it names. With
CDC_REQUIRE_PROGRAMS set, as CI sets it, a test fails that lacks one of them; otherwise it skips and says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

# Program -> package. kubectl is not among them: Debian's is older than the manifests.
PACKAGES = {
    "redis-server": "redis-server",
    "chromium": "chromium",
    "promtool": "prometheus",
    "docker-compose": "docker-compose",
    "strip": "binutils",
    "cjxl": "libjxl-tools",
    "node": "nodejs",
    "npm": "npm",
}
ALTERNATIVES = {"chromium": ("chromium-browser", "google-chrome")}
APT_S = 600.0


def find(program: str) -> str | None:
    """Path of a program, or of one that does as well; None where there is none. CDC_CHROMIUM names a Chromium."""
    if program == "chromium" and (given := os.environ.get("CDC_CHROMIUM")):
        return given
    return next(filter(None, map(shutil.which, (program, *ALTERNATIVES.get(program, ())))), None)


def need(program: str) -> str:
    """Path of a program; the test skips without it, and fails where CI promises what a package brings."""
    path = find(program)
    if path is not None:
        return path
    package = PACKAGES.get(program)
    reason = f"there is no {program} here" + (f" (Debian: {package})" if package else "")
    if package and os.environ.get("CDC_REQUIRE_PROGRAMS"):
        pytest.fail(reason)
    pytest.skip(reason)


def install() -> list[str]:
    """Install what is missing; return the programs that are missing still."""
    packages = sorted({package for program, package in PACKAGES.items() if find(program) is None})
    if packages and shutil.which("apt-get"):
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
            try:
                subprocess.run(
                    [*prefix, "apt-get", "-qq", *step], check=True, timeout=APT_S, env=env, stdout=subprocess.DEVNULL
                )
            except (OSError, subprocess.SubprocessError) as error:
                print(f"apt-get {step[0]}: {error}", file=sys.stderr)
                break
    return [program for program in PACKAGES if find(program) is None]


def main() -> int:
    """Install, and name what could not be."""
    missing = install()
    for program in missing:
        print(f"no {program}: its tests cannot run; install {PACKAGES[program]}", file=sys.stderr)
    return 1 if missing and os.environ.get("CDC_REQUIRE_PROGRAMS") else 0


if __name__ == "__main__":
    sys.exit(main())
