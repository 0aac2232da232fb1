"""The summary of a run that comparing many runs needs, and whether they may be compared."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.spec import BASELINE
from harness.record import Record, Status
from results.pace import log_pace
from results.statistics import Moments, moments

ALIKE = ("batch", "sequence", "corpus_sha256")
"""What the baselines of a workload must share. Runs that are taken as one must also share the workload's sources; runs
that are compared need not, because the comparison may be one of code."""

OF_A_MACHINE = ("machine_id", "device")

LETTERS = 12
"""Characters of a checksum that are shown."""

Paces = Mapping[str, Mapping[str, Moments]]
"""By workload and techniques, the moments of ln(time per token) over the repetitions that succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The conditions under which a run was measured: each name with all its values, as text; `workloads` by workload.
    `heats` has the values that differ within any one heat, which should be on one machine."""

    run: Mapping[str, Sequence[str]]
    heats: Mapping[str, Sequence[str]]
    workloads: Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What comparing many runs needs of each: none of its steps."""

    run_id: str
    started_at: str
    commit: str | None
    conditions: Conditions
    paces: Paces


def summary(records: Sequence[Record], commit: str | None = None) -> Summary:
    """The summary of the records of one run; `commit` is the one that its machine's description names."""
    return Summary(
        run_id=records[0].run_id,
        started_at=min(record.started_at for record in records),
        commit=commit,
        conditions=conditions(records),
        paces={
            workload: {techniques: moments(values) for techniques, values in own.items()}
            for workload, own in paces(records).items()
        },
    )


def conditions(records: Sequence[Record]) -> Conditions:
    # An arm may have its own batch; the workload's is the baseline's.
    baselines: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.techniques == BASELINE:
            baselines[record.workload].append(record)
    heats: dict[tuple[str, int, int], list[Record]] = defaultdict(list)
    for record in records:
        heats[record.workload, record.repetition, record.heat_part].append(record)
    mixed = {name: [_values(own, name) for own in heats.values()] for name in OF_A_MACHINE}
    return Conditions(
        run={name: _values(records, name) for name in OF_A_MACHINE},
        heats={
            name: sorted({value for values in found if len(values) > 1 for value in values})
            for name, found in mixed.items()
        },
        workloads={
            workload: {name: _values(own, name) for name in (*ALIKE, "workload_sha256")}
            for workload, own in baselines.items()
        },
    )


def _values(records: Iterable[Record], name: str) -> list[str]:
    return sorted({str(getattr(record, name)) for record in records})


def paces(records: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
    """By workload and techniques, the arm's paces: one per repetition, the mean over its processes."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in records:
        if item.status is Status.OK and (pace := log_pace(item)) is not None:
            found[item.workload, item.techniques][item.repetition].append(pace)
    by_workload: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (workload, techniques), repetitions in found.items():
        by_workload[workload][techniques] = [statistics.fmean(values) for values in repetitions.values()]
    return dict(by_workload)


def incomparable(runs: Sequence[Conditions], *, as_one: bool = False) -> list[str]:
    """Why runs under these conditions must not be compared, in words; empty if they may.

    `as_one`: the runs are to be taken as one.
    """
    differences = []
    for name in OF_A_MACHINE:
        # In a single run on several machines, ratios are taken within heats.
        told = [run.heats[name] for run in runs] if len(runs) == 1 else [run.run[name] for run in runs]
        values = sorted({value for values in told for value in values})
        if len(values) > 1:
            differences.append(f"the runs differ in {name}: {', '.join(values)}")
    workloads = dict.fromkeys(workload for run in runs for workload in run.workloads)
    for name in (*ALIKE, *(["workload_sha256"] if as_one else [])):
        for workload in workloads:
            own = [run.workloads[workload][name] for run in runs if workload in run.workloads]
            shown = sorted({value[:LETTERS] for values in own for value in values})
            if len(shown) > 1:
                differences.append(f"the runs differ in the {name} of {workload}: {', '.join(shown)}")
    return differences
