"""Machines side by side: how much faster one is than another, from the baselines that both have measured."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import special

from bench.spec import BASELINE
from harness.record import Machine, Record
from results.statistics import CONFIDENCE
from results.summary import paces


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A machine of a run against the reference, the one with most heats. `speed` is the reference's time per token over
    this machine's, over the `workloads` whose baselines both have measured; None without any. The bounds are None where
    there is no spread."""

    machine: Machine
    heats: int
    speed: float | None
    low: float | None
    high: float | None
    workloads: tuple[str, ...]
    is_reference: bool = False


def side_by_side(records: Sequence[Record], machines: Sequence[Machine]) -> list[Beside]:
    """Each machine with records, the one with most heats first."""
    heats: dict[str, set[tuple[str, int, int]]] = defaultdict(set)
    for record in records:
        heats[record.machine_id].add((record.workload, record.repetition, record.heat_part))
    known = sorted(
        (machine for machine in machines if machine.machine_id in heats),
        key=lambda machine: -len(heats[machine.machine_id]),
    )
    paces = {machine.machine_id: _paces(records, machine.machine_id) for machine in known}
    return [
        _beside(machine, len(heats[machine.machine_id]), paces[known[0].machine_id], paces[machine.machine_id])
        for machine in known
    ]


def _paces(records: Sequence[Record], machine_id: str) -> dict[str, Sequence[float]]:
    """By workload, the baseline's paces, one per repetition."""
    own = paces([record for record in records if record.machine_id == machine_id])
    return {workload: found[BASELINE] for workload, found in own.items() if BASELINE in found}


def _beside(
    machine: Machine, heats: int, reference: dict[str, Sequence[float]], own: dict[str, Sequence[float]]
) -> Beside:
    """The mean over workloads. The spread is pooled, because all workloads ran on the same two machines."""
    shared = [workload for workload in own if workload in reference]
    if own is reference or not shared:
        return Beside(
            machine=machine,
            heats=heats,
            speed=1.0 if own is reference else None,
            low=None,
            high=None,
            workloads=tuple(shared),
            is_reference=own is reference,
        )
    differences = [statistics.fmean(reference[name]) - statistics.fmean(own[name]) for name in shared]
    speed = statistics.fmean(differences)
    samples = [values for name in shared for values in (reference[name], own[name])]
    degrees = sum(len(values) - 1 for values in samples)
    low = high = None
    if degrees:
        squares = sum((value - statistics.fmean(values)) ** 2 for values in samples for value in values)
        variance = squares / degrees * sum(1 / len(values) for values in samples) / len(shared) ** 2
        half = float(special.stdtrit(degrees, (1 + CONFIDENCE) / 2)) * math.sqrt(variance)
        low, high = math.exp(speed - half), math.exp(speed + half)
    return Beside(machine=machine, heats=heats, speed=math.exp(speed), low=low, high=high, workloads=tuple(shared))
