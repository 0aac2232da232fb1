"""What this machine can and cannot measure, and why."""

from __future__ import annotations

from bench.composition import unmet
from bench.registry import techniques
from harness.preparation.machine import describe_machine, host
from harness.preparation.prepared import device_facts
from harness.processes.fork_server import ForkServer
from harness.telemetry.driver import overlooked
from harness.telemetry.gpus import POLICIES, Gpus
from harness.telemetry.surroundings import Finding, quiet


def diagnose(fork_server: ForkServer, device: str) -> list[Finding]:
    """Look at the device, its counters, the load of other processes, and every technique's needs.

    If a GPU cannot be used, that is a finding, and the others are about the CPU.
    """
    try:
        facts = device_facts(fork_server, device)
    except ValueError as error:
        if device == "cpu":
            raise
        return [Finding.of("device", False, str(error)), *diagnose(fork_server, "cpu")]
    machine = describe_machine(fork_server, device, facts)
    here = host(device, facts)
    peaks = ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in machine.matmul_flops_per_s.items())
    findings = [
        Finding.of("device", True, f"{device}: {machine.device_name}, {machine.cpu_cores} cores"),
        Finding.of("step time", True, "device events" if device == "cuda" else "the host's clock"),
        Finding.of("matmul peak", True, peaks),
        Finding.of("MFU", not machine.unknown.get("mfu"), machine.unknown.get("mfu", machine.published_source or "")),
        *gpu_findings(Gpus(device, here.gpu_uuids)),
        quiet(),
    ]
    if device == "cpu" and (reason := overlooked()):
        findings.append(Finding.of("GPU", False, reason))
    for name, technique in techniques().items():
        reason = unmet([technique], here)
        findings.append(Finding.of(f"technique {name}", reason is None, reason or technique.caption))
    return findings


def gpu_findings(gpus: Gpus) -> list[Finding]:
    """What NVML reports on the GPUs, and why, for each figure that it does not report."""
    sample, energies_j, held_s = gpus.sample(), gpus.energies_j(), gpus.violations_s()
    unknown = [f"{name}: {reason}" for name, reason in sample.items() if isinstance(reason, str)]
    energy = energies_j if isinstance(energies_j, str) else "the chips' energy counters"
    held = [f"{policy} {_seconds(held_s[policy])}" for policy in POLICIES]
    return [
        Finding.of("GPU figures", not unknown, gpus.reason or "; ".join(unknown) or "NVML answers"),
        Finding.of("GPU energy", not isinstance(energies_j, str), energy),
        Finding.of(
            "GPU heat", not isinstance(held_s["thermal"], str), gpus.reason or f"held back by {', '.join(held)}"
        ),
    ]


def _seconds(held_s: float | str) -> str:
    return f"unknown ({held_s})" if isinstance(held_s, str) else f"{held_s:.3f} s"
