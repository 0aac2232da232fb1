"""What the control groups of a process allow it, and what they count: memory, CPU time, OOM kills.

The limits of all enclosing groups apply too, so all are read, from the innermost to the root of what is mounted.
Version 2 has one tree, version 1 one for each controller (cgroups(7), and the kernel's admin-guide on each).
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

import psutil

_PROC = Path("/proc/self")


def groups(controller: str, proc: Path = _PROC) -> list[Path]:
    """The folders of the groups of a controller (`memory`, `cpu`) that this process is in, innermost first."""
    own: dict[str, str] = {}
    for line in _lines(proc / "cgroup"):
        _, controllers, path = line.split(":", 2)
        own |= dict.fromkeys(controllers.split(","), path)
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        root, mounted = before.split()[3:5]
        kind, _, options = [*after.split(" ", 2), "", ""][:3]
        # The tree of version 2 has every controller that version 1 does not have.
        is_of_it = controller in options.split(",") if kind == "cgroup" else kind == "cgroup2" and controller not in own
        where = own.get(controller if kind == "cgroup" else "")
        if is_of_it and where is not None:
            # In a container without its own cgroup namespace, paths start at the root of the host's tree.
            folder, top = Path(mounted) / where.removeprefix(root.rstrip("/")).strip("/"), Path(mounted)
            return [item for item in (folder, *folder.parents) if item.is_relative_to(top)]
    return []


def cores() -> int:
    """How many cores this process may keep busy: those that it may run on, within any quota."""
    return max(1, math.floor(min([len(os.sched_getaffinity(0)), *_cpu_limits()])))


def _cpu_limits() -> list[float]:
    """The quotas of the groups, in cores."""
    found = []
    for folder in groups("cpu"):
        quota, period = [*(_text(folder / "cpu.max") or "").split(), "", ""][:2]
        quota = quota or _text(folder / "cpu.cfs_quota_us") or ""
        period = period or _text(folder / "cpu.cfs_period_us") or ""
        if quota.isdigit() and period.isdigit():
            found.append(int(quota) / int(period))
    return found


def throttled_s() -> float | None:
    """Seconds for which quotas have held back processes of these groups; None if no group counts them."""
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}
    counted = [
        int(value) * units[name]
        for folder in groups("cpu")
        for name, value in _table(folder / "cpu.stat").items()
        if name in units
    ]
    return sum(counted) if counted else None


def memory_bytes() -> int:
    """How much memory there is for this process: the machine's, or what a group allows."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _memory())])


def available_memory_bytes() -> int:
    """How much of it is left. A group's page cache can be reclaimed, as on the whole machine, and counts as left."""
    return max(0, min([psutil.virtual_memory().available, *(left for _, left in _memory())]))


def _memory() -> list[tuple[int, int]]:
    """For each group that limits memory: the limit, and what is left of it, in bytes."""
    found = []
    for folder in groups("memory"):
        limit = _text(folder / "memory.max") or _text(folder / "memory.limit_in_bytes") or ""
        used = _text(folder / "memory.current") or _text(folder / "memory.usage_in_bytes") or ""
        if limit.isdigit() and used.isdigit() and int(limit) < psutil.virtual_memory().total:
            stat = _table(folder / "memory.stat")
            files = int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)
            found.append((int(limit), int(limit) - int(used) + files))
    return found


def oom_kills() -> int:
    """How many processes the kernel has killed for lack of memory: in this group if it counts them, else on the
    machine."""
    for folder in groups("memory")[:1]:
        for name in ("memory.events", "memory.oom_control"):
            if (count := _table(folder / name).get("oom_kill")) is not None:
                return int(count)
    return int(_table(Path("/proc/vmstat")).get("oom_kill", 0))


def _table(file: Path) -> dict[str, str]:
    """Parse lines of a name and a value."""
    pairs = (line.partition(" ") for line in _lines(file))
    return {name: value.strip() for name, _, value in pairs}


def _lines(file: Path) -> list[str]:
    return (_text(file) or "").splitlines()


def _text(file: Path) -> str | None:
    with contextlib.suppress(OSError):
        return file.read_text().strip()
    return None
