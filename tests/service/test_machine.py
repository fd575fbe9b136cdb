"""Limits of a container, from files as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.machine import cpu_limit, memory_limit

WHOLE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
CPUS = len(os.sched_getaffinity(0))


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, WHOLE),
        ({"memory.max": "max\n"}, WHOLE),
        ({"memory.max": "536870912\n"}, 512 << 20),
        ({"memory/memory.limit_in_bytes": "268435456\n"}, 256 << 20),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, WHOLE),  # v1's way of saying none
        ({"memory.max": "rubbish"}, WHOLE),
        ({"memory.max": ""}, WHOLE),
    ],
)
def test_memory(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert memory_limit(write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, CPUS),
        ({"cpu.max": "max 100000\n"}, CPUS),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": f"{100000 * CPUS * 4} 100000\n"}, CPUS),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CPUS),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu.max": "rubbish"}, CPUS),
    ],
)
def test_cpus(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    assert cpu_limit(write(tmp_path, files)) == expected
