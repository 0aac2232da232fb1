"""What this machine is and can do. Whatever needs torch runs in a forked task, so that no parent process holds a
GPU."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from bench.host import Host
from bench.spec import WorkloadSpec
from bench.techniques.precision import let_products_round_to_tf32
from harness.message import Message
from harness.processes.fork_server import ForkServer
from harness.record import Machine
from harness.telemetry import cgroups
from harness.telemetry.driver import is_too_old, why_unusable
from harness.telemetry.gpus import Gpus
from harness.telemetry.peaks import published_peaks, why_no_peaks
from harness.telemetry.surroundings import cpu_name, git_state
from harness.timing.clock import clock_for


def probe_device(device: str) -> Message:
    """Task: what torch sees of the device. Raises ValueError if it is not there."""
    if device == "cuda" and (reason := why_unusable()):
        raise ValueError(f"device 'cuda' is not available: {reason}; or use --device cpu")
    facts: Message = {
        "device_name": cpu_name(),
        "gpus": 0,
        "capability": None,
        "gpu_memory_bytes": None,
        "gpu_free_bytes": None,
        "gpu_uuids": [],
        "cuda": None,
        "threads": torch.get_num_threads(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        facts |= {
            "device_name": properties.name,
            "gpus": torch.cuda.device_count(),
            "capability": [properties.major, properties.minor],
            "gpu_memory_bytes": properties.total_memory,
            "gpu_free_bytes": torch.cuda.mem_get_info(0)[0],
            # NVML finds devices by UUID: their numbers depend on variables that NVML ignores.
            "gpu_uuids": [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())],
            "cuda": torch.version.cuda,
        }
    return facts


def default_device() -> str:
    """Task: cuda if torch sees a GPU, or would with a newer driver (the user is then told so); else cpu."""
    return "cuda" if torch.cuda.is_available() or is_too_old() else "cpu"


def matmul_peaks(device: str) -> dict[str, float]:
    """Task: FLOP/s of the fastest of several square matrix products in each number format, 2 n^3 FLOP each.

    The size is 1024 on a CPU (512 for the half formats, which can be very slow there) and 8192 on a GPU.
    """
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    peaks = {name: matmul_peak(torch.device(device), dtype) for name, dtype in formats.items()}
    if device == "cuda":
        let_products_round_to_tf32()
        peaks["tf32"] = matmul_peak(torch.device(device), torch.float32)
    return peaks


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of several square matrix products."""
    size = 8192 if device.type == "cuda" else 1024 if dtype == torch.float32 else 512
    left = torch.randn(size, size, device=device).to(dtype)
    right = torch.randn(size, size, device=device).to(dtype)
    return 2 * size**3 / _best_s(device, lambda: torch.matmul(left, right))


def _best_s(device: torch.device, run: Callable[[], object]) -> float:
    """Seconds of the fastest run."""
    run()  # The first time may load libraries and kernels.
    times_s: list[float] = []
    clock = clock_for(device)
    while sum(times_s) < 0.3 or len(times_s) < 3:
        clock.start()
        run()
        clock.mark()
        times_s.append(clock.stop().host_s)
    return min(times_s)


CACHED_BYTES, UNCACHED_BYTES = 1 << 18, 1 << 26
"""Bytes of each of the three tensors of an addition: together they fit into a core's cache, or into no cache at all."""


def memory_rates(device: str) -> dict[str, float]:
    """Task: bytes per second that additions of float32 tensors read and write, in memory and, on a CPU, in the
    caches."""
    sizes = {"memory": UNCACHED_BYTES} | ({"caches": CACHED_BYTES} if device == "cpu" else {})
    return {name: memory_rate(torch.device(device), size) for name, size in sizes.items()}


def memory_rate(device: torch.device, size: int) -> float:
    """Bytes per second that additions of float32 tensors of `size` bytes read and write, at best."""
    left, right, result = (torch.ones(size // 4, device=device) for _ in range(3))
    times = UNCACHED_BYTES // size

    def add() -> None:
        for _ in range(times):
            torch.add(left, right, out=result)

    return 3 * size * times / _best_s(device, add)


def host(device: str, facts: Message, need_bytes: Callable[[WorkloadSpec], int | None] | None = None) -> Host:
    """What the machine offers, from the facts of `probe_device`."""
    capability = facts["capability"]
    return Host(
        device=device,
        gpus=facts["gpus"],
        cores=cgroups.cores(),
        memory_bytes=facts.get("gpu_free_bytes") or cgroups.available_memory_bytes(),
        capability=tuple(capability) if capability else None,
        # The code of another revision, on the other side of a comparison, may not report them.
        gpu_uuids=tuple(facts.get("gpu_uuids", ())),
        need_bytes=need_bytes,
    )


def describe_machine(
    fork_server: ForkServer, device: str, facts: Message, *, folder: Path | None = None, peaks: bool = True
) -> Machine:
    """Everything about the machine that a reader of the numbers needs. The git commit is that of `folder` (None: the
    one where the run was started). Without `peaks` no products and additions are timed, which would take seconds."""
    published = published_peaks(facts["device_name"])
    unknown = {} if published else {"mfu": why_no_peaks(facts["device_name"])}
    if not peaks:
        unknown["matmul_share"] = "no matrix products were timed"
    if device == "cpu":
        unknown["gpu"] = "the run is on the CPU"
    driver, why_no_driver = Gpus(device, ()).driver()
    if device == "cuda" and why_no_driver:
        unknown["driver"] = why_no_driver
    if device == "cuda" and facts.get("cuda") is None:
        unknown["cuda"] = "torch names no CUDA release that it was built for"
    commit, dirty = git_state(folder)
    if commit is None:
        unknown["git_commit"] = "the run was not started in a git checkout"
    installed = fork_server.run("harness.telemetry.surroundings:software", {}, 60.0)
    identity = {
        "device": device,
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "node": hashlib.sha256(platform.node().encode()).hexdigest()[:8],
        **{key: facts[key] for key in ("device_name", "gpus", "threads")},
    }
    return Machine(
        machine_id=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12],
        device=device,
        device_name=facts["device_name"],
        gpus=facts["gpus"],
        gpu_memory_bytes=facts["gpu_memory_bytes"],
        capability=facts["capability"],
        driver=driver,
        cuda=facts.get("cuda"),
        cpu=cpu_name(),
        cpu_cores=cgroups.cores(),
        threads=facts["threads"],
        memory_bytes=cgroups.memory_bytes(),
        system=f"{platform.system()} {platform.release()}",
        **installed,
        matmul_flops_per_s=fork_server.run("harness.preparation.machine:matmul_peaks", {"device": device}, 120.0)
        if peaks
        else {},
        memory_bytes_per_s=fork_server.run("harness.preparation.machine:memory_rates", {"device": device}, 120.0)
        if peaks
        else {},
        published_flops_per_s=dict(published.flops_per_s) if published else {},
        published_source=published.source if published else None,
        git_commit=commit,
        git_dirty=dirty,
        unknown=unknown,
    )
