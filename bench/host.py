"""What a machine offers, and what a technique may need from it."""

from __future__ import annotations

import importlib.util
import shutil
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.spec import WorkloadSpec

CONTEXT_BYTES = {"cpu": 0, "cuda": 600 << 20}
"""Bytes of a GPU that a process takes for CUDA's context and kernels before its first tensor: an allowance."""

MEMORY_MARGIN = {"cpu": 1.3, "cuda": 1.1}
"""How many times the known memory a rival may take: an allowance. If that is not enough, a GPU refuses the allocation,
and the arm is measured alone; on a CPU the kernel kills a process."""


def rival_bytes(device: str, known_bytes: float) -> float:
    """Bytes of the device that must be free for one more arm. `known_bytes` is the most that one has taken in
    tensors."""
    return MEMORY_MARGIN[device] * (known_bytes + CONTEXT_BYTES[device])


RANKS = (2, 4, 8, 16, 32, 64)
"""The numbers of ranks in scaling plans: up to eight hosts with eight GPUs each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What the machine offers to techniques and plans. `memory_bytes` is the free memory of the device.

    `capability` is CUDA's (major, minor), None without a GPU. `gpu_uuids` are those of the GPUs in CUDA's order, as
    torch gives them: without NVML's prefix. Of several `hosts` this is the leader, and each lends an arm `ranks_each`.
    `need_bytes` returns the bytes that the tensors of one process take for plain training of a workload, or None if
    that is unknown. The function itself is None if nobody can tell.
    """

    device: str
    gpus: int = 0
    cores: int = 2
    memory_bytes: int = 0
    capability: tuple[int, int] | None = None
    gpu_uuids: tuple[str, ...] = ()
    need_bytes: Callable[[WorkloadSpec], int | None] | None = None
    hosts: int = 1
    ranks_each: int = 0

    @property
    def ranks(self) -> int:
        """The ranks of a technique that takes all there are: every GPU, or two on a CPU; or what all hosts lend."""
        if self.hosts > 1:
            return self.hosts * self.ranks_each
        return max(2, self.gpus) if self.device == "cuda" else 2

    def fitting(self, workloads: Sequence[WorkloadSpec]) -> list[WorkloadSpec]:
        """The workloads that fit. If none does, the one that needs the least, whose arms then take turns on the
        device."""
        if self.need_bytes is None or len(workloads) == 1:
            return list(workloads)
        fitting = [spec for spec in workloads if self.fits(spec)]
        # A workload of unknown need counts as fitting, so if none fits, all needs are known.
        return fitting or [min(workloads, key=self.need_bytes)]  # type: ignore[arg-type]

    def fits(self, workload: WorkloadSpec) -> bool:
        """Whether there is room for a rival beside the baseline; true if nobody can tell."""
        need = self.need_bytes(workload) if self.need_bytes else None
        if need is None:
            return True
        return need + CONTEXT_BYTES[self.device] + rival_bytes(self.device, need) <= self.memory_bytes


@dataclass(frozen=True, slots=True)
class Need:
    """A requirement in `words`. Called with a host, it returns why the host does not meet it, or None."""

    words: str
    reason: Callable[[Host], str | None]

    def __call__(self, host: Host) -> str | None:
        return self.reason(host)


def gpu(minimum: tuple[int, int] = (0, 0), what: str = "a GPU") -> Need:
    """A CUDA device of at least this compute capability."""

    def reason(host: Host) -> str | None:
        if host.device != "cuda" or host.capability is None:
            return f"needs {what}; this run is on {host.device}"
        if host.capability < minimum:
            return f"needs {what}; this GPU has compute capability {host.capability[0]}.{host.capability[1]}"
        return None

    return Need(what, reason)


cpu = Need("a CPU", lambda host: None if host.device == "cpu" else f"needs a CPU; this run is on {host.device}")
"""For techniques that are a setting or a part of the CPU."""


def not_the_baseline_on(device: str, default: str) -> Need:
    """Any device but this one, on which the baseline does the same anyway. `default` describes that."""

    def reason(host: Host) -> str | None:
        return f"is the baseline itself on {device}, where {default}" if host.device == device else None

    return Need(f"a device other than {device}", reason)


def on_gpu(need: Need) -> Need:
    """This need if the run is on a GPU; on a CPU the technique has no such need."""
    return Need(f"on a GPU {need.words}", lambda host: need(host) if host.device == "cuda" else None)


def package(module: str, install: str) -> Need:
    """An importable module; `install` is the pip requirement that provides it."""

    def reason(host: Host) -> str | None:
        if importlib.util.find_spec(module) is None:
            return f"needs the package {module}: python -m pip install {install}"
        return None

    return Need(f"the package {install}", reason)


def _no_compiler(host: Host) -> str | None:
    candidates = ("g++", "clang++") if host.device == "cpu" else ("gcc", "clang", "cc")
    if not any(shutil.which(name) for name in candidates):
        return f"needs a compiler on the PATH, one of {', '.join(candidates)}: apt install g++"
    headers = _python_headers()
    if host.device == "cuda" and not (headers / "Python.h").exists():
        return f"needs Python.h to launch kernels, but it is not in {headers}: apt install python3-dev"
    return None


def _python_headers() -> Path:
    """The folder in which triton looks for Python.h (triton/runtime/build.py); Debian's own scheme names one without
    it."""
    scheme = sysconfig.get_default_scheme()
    return Path(sysconfig.get_paths("posix_prefix" if scheme == "posix_local" else scheme)["include"])


compiler = Need("a compiler", _no_compiler)
"""A C++ compiler, which torch.compile needs on a CPU; or a C compiler and Python's headers, which triton needs on a GPU
to build the extensions that launch its kernels."""
