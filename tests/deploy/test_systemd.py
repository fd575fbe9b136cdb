"""The systemd units: their commands exist, they stop as the service wants it, and shut off what it does not need."""

from __future__ import annotations

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

from service.settings import Settings

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / f"{name}.service")
    return parser


@pytest.mark.parametrize(("name", "command"), [("cdc-api", "serve"), ("cdc-worker", "worker")])
def test_units(name: str, command: str) -> None:
    service = unit(name)["Service"]
    program, *arguments = service["ExecStart"].split()
    assert Path(program).name == "cdc"
    assert arguments == [command]
    assert float(service["TimeoutStopSec"]) > Settings().grace_s + 5
    assert service["KillMode"] == "mixed"  # workers' processes are ended by their parent
    for name in ("NoNewPrivileges", "PrivateTmp", "DynamicUser", "RestrictNamespaces"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


@pytest.mark.parametrize("name", ["cdc-api", "cdc-worker"])
def test_systemd_takes_them(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    text = (UNITS / f"{name}.service").read_text().replace("/opt/cdc/.venv/bin/cdc", "/bin/true")
    (tmp_path / f"{name}.service").write_text(text)
    done = subprocess.run([analyze, "verify", tmp_path / f"{name}.service"], capture_output=True, text=True, timeout=60)
    assert name not in done.stderr, done.stderr
