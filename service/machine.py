"""What this process may use of its machine: the limits of its container, where it runs in one.

Sources: control groups v2 (Linux, Documentation/admin-guide/cgroup-v2.rst: memory.max, cpu.max) and v1
(memory.limit_in_bytes, cpu.cfs_quota_us, cpu.cfs_period_us). A container sees its own group at the root of the tree.
"""

from __future__ import annotations

import os
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def memory_limit(groups: Path = GROUPS) -> int:
    """Bytes of memory: the machine's, or less where the container has a limit."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [_number(groups / name) for name in ("memory.max", "memory/memory.limit_in_bytes")]
    return min([whole, *(int(limit) for limit in limits if limit is not None and limit > 0)])


def cpu_limit(groups: Path = GROUPS) -> int:
    """CPUs, at least 1: those that the process may be scheduled on, or less where the container has a quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, period = None, None
    if words := _words(groups / "cpu.max"):
        quota, period = _float(words[0]), _float(words[-1])
    else:
        quota, period = _number(groups / "cpu/cpu.cfs_quota_us"), _number(groups / "cpu/cpu.cfs_period_us")
    if quota is None or period is None or quota <= 0 or period <= 0:  # "max" and -1: no quota
        return cpus
    return max(1, min(cpus, round(quota / period)))


def _number(path: Path) -> float | None:
    words = _words(path)
    return _float(words[0]) if words else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _float(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
