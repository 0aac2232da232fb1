"""What the GPU is and does: the doctor's findings, counters under load, and the speed of products and copies."""

from __future__ import annotations

import statistics
import time
from collections import Counter

import torch

from bench.spec import Protocol
from harness.message import Message
from harness.preparation.doctor import diagnose
from harness.telemetry.surroundings import Finding
from reports.wording.quantity import energy as joules
from reports.wording.quantity import flops, share, significant
from tests.gpu_acceptance.arms import check, warm_arm
from tests.gpu_acceptance.rows import failed, judged, needs_gpu, not_run, within
from tests.gpu_acceptance.stand import Stand

TECHNIQUE = "technique "
"""How the doctor's findings on techniques begin."""

MAY_LACK = {"MFU", "quiet machine"}
"""Findings that may fail through no fault of trainpace: no published peak for MFU, or a machine that is not quiet."""

CPU_LACKS = {"GPU figures", "GPU energy", "GPU heat"}

LOAD_S = 8.0
ENERGY_WITHIN = (0.95, 1.05)
"""The bounds of the energy counter over power times time; both come from NVML, sampled in different ways."""

DROPPING = "thermal"
DROPPED_FROM = 0.01
"""The policy that counts as throttling for the gate, and the share of the time from which it drops a repetition."""

PEAK_WITHIN = (0.5, 1.02)
"""The bounds of a measured rate over the one that is published or follows from clocks. Above them a clock is wrong."""

COPY_BYTES = 2**30
COPIES = 10


def doctor(stand: Stand) -> None:
    """How many of the doctor's findings are positive; a negative one must be about a technique, or in MAY_LACK."""
    findings = diagnose(stand.fork_server(), stand.device)
    lacking = [finding for finding in findings if finding.verdict == "no"]
    about_techniques = [finding for finding in lacking if finding.what.startswith(TECHNIQUE)]
    others = [finding for finding in lacking if finding not in about_techniques]
    allowed = MAY_LACK | (CPU_LACKS if stand.device == "cpu" else set())
    seen = [
        f"{len(findings) - len(lacking)} yes, {len(lacking)} no",
        *(f"{item.what}: {item.detail}" for item in others),
    ]
    stand.tell(
        judged(
            "doctor",
            "; ".join([*seen, *_reasons(about_techniques)]),
            f"no only of techniques, {', '.join(sorted(allowed))}",
            holds=not {item.what for item in others} - allowed,
        )
    )


def _reasons(lacking: list[Finding]) -> list[str]:
    """The findings on techniques, with equal reasons counted: a reason begins with the technique's name."""
    told = Counter(item.detail.removeprefix(f"{item.what.removeprefix(TECHNIQUE)} ") for item in lacking)
    return [f"{count} technique{'s' * (count > 1)}: {reason}" for reason, count in told.most_common()]


def energy(stand: Stand) -> None:
    """A window of load: the energy counter against the sampled power, and what each throttle policy has counted."""
    if stand.device != "cuda":
        stand.tell(needs_gpu("energy counter / power x time"))
        stand.tell(needs_gpu("throttle policies"))
        return
    # Done before there is an arm: a pause would let the chip cool down between warm-up and window.
    watched = stand.gpus
    arm = warm_arm(stand, ("amp_bf16",), Protocol(sustained_s=LOAD_S))
    before, begun = watched.violations_s(), time.monotonic()
    arm.sustain(watched)
    after, window_s = watched.violations_s(), time.monotonic() - begun
    check(arm)
    arm.end()
    found = arm.measurement
    if found.sustained_energy_j is None or not found.sample_gpu_power_w or found.sustained_s is None:
        stand.tell(failed("energy counter / power x time", "; ".join(found.unknown) or "no reading and no reason"))
    else:
        by_power_j = statistics.fmean(found.sample_gpu_power_w) * found.sustained_s
        ratio = found.sustained_energy_j / by_power_j
        watts = f"{len(found.sample_gpu_power_w)} samples of {statistics.fmean(found.sample_gpu_power_w):.0f} W"
        seen = f"{ratio:.3f}: {joules(found.sustained_energy_j)}, {watts} over {found.sustained_s:.1f} s"
        bounds = f"{ENERGY_WITHIN[0]} to {ENERGY_WITHIN[1]}"
        stand.tell(judged("energy counter / power x time", seen, bounds, holds=within(ratio, *ENERGY_WITHIN)))
    _tell_reasons(stand, found.throttle_reasons)
    for policy, start in before.items():
        tell_policy(stand, policy, start, after[policy], window_s)


def _tell_reasons(stand: Stand, reasons: list[str] | None) -> None:
    what = "clock event reasons under load"
    if reasons is None:
        stand.tell(not_run(what, "NVML does not tell them"))
        return
    seen = ", ".join(reasons) or "none"
    stand.tell(judged(what, seen, "no heat", holds="thermal" not in seen))


def tell_policy(stand: Stand, policy: str, before_s: float | str, after_s: float | str, window_s: float) -> None:
    """Policies that do not drop repetitions are shown for information."""
    what = f"policy {policy} under load"
    if isinstance(before_s, str) or isinstance(after_s, str):
        stand.tell(not_run(what, str(before_s if isinstance(before_s, str) else after_s)))
        return
    held_s = after_s - before_s
    drops = policy == DROPPING
    expected = f"under {share(DROPPED_FROM)}: above, the gate drops" if drops else "no more than the window"
    limit = DROPPED_FROM if drops else 1.1
    seen = f"{held_s:.3f} s of {window_s:.1f} s ({share(held_s / window_s)})"
    stand.tell(judged(what, seen, expected, holds=0 <= held_s / window_s <= limit))


def rates(stand: Stand) -> None:
    """Matrix products against the published peaks, and copies against the limits of bus and memory."""
    fork_server = stand.fork_server()
    machine = stand.machine
    found: dict[str, float] = fork_server.run(
        "harness.preparation.machine:matmul_peaks", {"device": stand.device}, 120.0
    )
    for name, rate in found.items():
        what, peak = f"matmul rate, {name}", machine.published_flops_per_s.get(name)
        if peak is None:
            reason = f"no published peak on file for {machine.device_name}"
            stand.tell(not_run(what, f"measured {flops(rate)}, but {reason}"))
        else:
            _tell_rate(stand, what, rate, peak, f"{flops(rate)}, {share(rate / peak)} of {flops(peak)}")
    if stand.device != "cuda":
        stand.tell(needs_gpu("copies on the device"))
        stand.tell(needs_gpu("copies from pinned memory"))
        return
    copied: Message = fork_server.run(f"{__name__}:copy_rates", {}, 120.0)
    _tell_copies(stand, "copies on the device", copied["device_bytes_per_s"], copied["memory_bytes_per_s"])
    _tell_copies(stand, "copies from pinned memory", copied["pinned_bytes_per_s"], _bus_bytes_per_s(stand))


def _tell_copies(stand: Stand, what: str, rate: float, peak: float | None) -> None:
    seen = f"{significant(rate / 1e9)} GB/s"
    if peak is None:
        stand.tell(not_run(what, f"measured {seen}, but the rate of the chip's own bus is unknown"))
    else:
        _tell_rate(stand, what, rate, peak, f"{seen}, {share(rate / peak)} of {significant(peak / 1e9)} GB/s")


def _tell_rate(stand: Stand, what: str, rate: float, peak: float, seen: str) -> None:
    expected = f"{share(PEAK_WITHIN[0])} to {share(PEAK_WITHIN[1])}"
    stand.tell(judged(what, seen, expected, holds=within(rate / peak, *PEAK_WITHIN)))


def copy_rates() -> Message:
    """Task: bytes per second of the fastest of several copies. On the device a byte is read and written, so it counts
    twice. `memory_bytes_per_s` follows from the memory's clock and width, at two transfers per clock; None if torch
    does not report them."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    pinned = torch.ones(COPY_BYTES // 4, dtype=torch.uint8, pin_memory=True)
    properties = torch.cuda.get_device_properties(0)
    clock_khz, width_bits = (getattr(properties, name, None) for name in ("memory_clock_rate", "memory_bus_width"))
    return {
        "device_bytes_per_s": 2 * _copy_rate(target, source),
        "pinned_bytes_per_s": _copy_rate(target[: len(pinned)], pinned),
        "memory_bytes_per_s": 2e3 * clock_khz * width_bits / 8 if clock_khz and width_bits else None,
    }


def _copy_rate(target: torch.Tensor, source: torch.Tensor) -> float:
    times_s = []
    for _ in range(COPIES):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        target.copy_(source, non_blocking=True)
        end.record()
        torch.cuda.synchronize()
        # elapsed_time is in milliseconds.
        times_s.append(begin.elapsed_time(end) * 1e-3)
    return float(source.numel() / min(times_s))


GIGATRANSFERS_PER_S = {1: 2.5, 2: 5.0, 3: 8.0, 4: 16.0, 5: 32.0, 6: 64.0}
"""The rate of one PCI Express lane, by generation: PCI-SIG, https://pcisig.com/specifications."""


def _bus_bytes_per_s(stand: Stand) -> float | None:
    """What the lanes between host and chip can carry in one direction; None if NVML does not report it."""
    import pynvml

    generations = stand.gpus.each(pynvml.nvmlDeviceGetMaxPcieLinkGeneration)
    lanes = stand.gpus.each(pynvml.nvmlDeviceGetMaxPcieLinkWidth)
    if isinstance(generations, str) or isinstance(lanes, str) or generations[0] not in GIGATRANSFERS_PER_S:
        return None
    # Up to generation 2, ten bits encode eight; later, 130 encode 128.
    coded = 0.8 if generations[0] <= 2 else 128 / 130
    return GIGATRANSFERS_PER_S[generations[0]] * 1e9 / 8 * int(lanes[0]) * coded
