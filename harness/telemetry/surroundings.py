"""What can be found out without torch, which takes seconds to import: processor, memory, drivers, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench import __version__
from harness.message import Message
from harness.telemetry import cgroups
from harness.telemetry.gpus import Gpus, installed

PACKAGES = ("torch", "transformers", "tokenizers", "torchao", "torch-pruning", "numpy", "nvidia-ml-py")

QUIET_PCT = 10.0
"""How much of the CPU other programs may use for the machine to count as quiet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was checked. `verdict` is yes or no; `detail` is what was seen, or why not."""

    what: str
    verdict: str
    detail: str

    @classmethod
    def of(cls, what: str, holds: bool, detail: str) -> Finding:
        return cls(what=what, verdict="yes" if holds else "no", detail=detail)


def look() -> list[Finding]:
    """The processor, the memory, the GPUs according to their driver, other programs, and the packages."""
    cores, seen = cgroups.cores(), os.cpu_count() or 1
    memory, left = cgroups.memory_bytes(), cgroups.available_memory_bytes()
    driver, no_driver = Gpus("cuda", ()).driver()
    chips = installed()
    versions: dict[str, str] = software()["packages"]
    packages = [f"{name} {versions.get(name, 'missing')}" for name in dict.fromkeys((*versions, *PACKAGES))]
    return [
        Finding.of("CPU", True, f"{cpu_name()}: {cores} of {seen} cores may be used here"),
        Finding.of("memory", True, f"{memory / 2**30:.1f} GiB, {left / 2**30:.1f} of them free"),
        Finding.of("GPU driver", driver is not None, driver or no_driver or "unknown"),
        Finding.of("GPU", not isinstance(chips, str), chips if isinstance(chips, str) else "; ".join(chips)),
        quiet(),
        Finding.of("Python", True, f"{platform.python_version()} on {platform.system()} {platform.release()}"),
        Finding.of("packages", set(PACKAGES) <= set(versions), ", ".join(packages)),
    ]


def quiet() -> Finding:
    """Whether other programs leave the machine alone, as far as one second shows."""
    busy_pct = psutil.cpu_percent(interval=1.0)
    return Finding.of("quiet machine", busy_pct < QUIET_PCT, f"other processes use {busy_pct:.0f} % of the CPU now")


def software() -> Message:
    """Task: the versions of Python and of the packages that the arms use."""
    versions = {name: _version(name) for name in PACKAGES}
    packages = {"trainpace": __version__} | {name: version for name, version in versions.items() if version}
    return {"python": platform.python_version(), "packages": packages}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu_name() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def git_state(folder: Path | None = None) -> tuple[str | None, bool | None]:
    """Commit of a folder (None: this process's), and whether tracked files differ from it; both None outside git."""
    command = ["git", "status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, cwd=folder)
    except (OSError, subprocess.TimeoutExpired):
        return None, None
    lines = shown.stdout.splitlines()
    commits = [line.split()[-1] for line in lines if line.startswith("# branch.oid")]
    if shown.returncode or not commits or commits[0] == "(initial)":
        return None, None
    return commits[0], any(not line.startswith("#") for line in lines)
