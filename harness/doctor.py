"""What this machine can and cannot measure, and why."""

from __future__ import annotations

from dataclasses import dataclass

import psutil

from bench.composition import unmet
from bench.registry import techniques
from harness.machine import describe_machine, host
from harness.nursery import Nursery
from harness.prepare import device_facts
from harness.telemetry import Gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `verdict` is yes or no; `detail` is what was seen, or why not."""

    what: str
    verdict: str
    detail: str


def diagnose(nursery: Nursery, device: str) -> list[Finding]:
    """Look at the device, its counters, the load of other processes, and every technique's needs."""
    facts = device_facts(nursery, device)
    machine = describe_machine(nursery, device, facts)
    gpus = Gpus(device, facts["gpus"])
    here = host(device, facts)
    busy_pct = psutil.cpu_percent(interval=1.0)
    peaks = ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in machine.matmul_flops_per_s.items())
    findings = [
        _finding("device", True, f"{device}: {machine.device_name}, {machine.cpu_cores} cores"),
        _finding("step time", True, "device events" if device == "cuda" else "the host's clock"),
        _finding("matmul peak", True, peaks),
        _finding("MFU", not machine.unknown.get("mfu"), machine.unknown.get("mfu", machine.published_source or "")),
        _finding("GPU figures", gpus.reason is None, gpus.reason or "NVML answers"),
        _finding("GPU energy", gpus.energy_j(1) is not None, gpus.reason or "the chip's energy counter"),
        _finding("quiet machine", busy_pct < 10, f"other processes use {busy_pct:.0f} % of the CPU now"),
    ]
    for name, technique in techniques().items():
        reason = unmet([technique], here)
        findings.append(_finding(f"technique {name}", reason is None, reason or technique.caption))
    return findings


def _finding(what: str, holds: bool, detail: str) -> Finding:
    return Finding(what=what, verdict="yes" if holds else "no", detail=detail)
