"""What of a run is needed where many are set beside each other, and whether they may be."""

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
"""What the baselines of a workload have to share; and where two runs are taken for one, also the workload's sources: to
compare two is to see what another code does."""

OF_A_MACHINE = ("machine_id", "device")

LETTERS = 12
"""Of a checksum, that are told."""

Paces = Mapping[str, Mapping[str, Moments]]
"""By workload and techniques, of the logarithms of the time a token of the repetitions that ended well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Under what a run was measured: each name with all that it was, in words; `workloads` by workload. `heats` has
    what heats mix, each of which is to be of one machine."""

    run: Mapping[str, Sequence[str]]
    heats: Mapping[str, Sequence[str]]
    workloads: Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What of a run is needed where many are set beside each other: none of its steps."""

    run_id: str
    started_at: str
    commit: str | None
    conditions: Conditions
    paces: Paces


def summary(records: Sequence[Record], commit: str | None = None) -> Summary:
    """Of the records of one run, and the commit that its machine's description names."""
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
    # An arm may have a batch of its own: the workload's is the baseline's.
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
    """Of each arm that has any; of each repetition the mean over its processes."""
    found: dict[tuple[str, str], dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for item in records:
        if item.status is Status.OK and (pace := log_pace(item)) is not None:
            found[item.workload, item.techniques][item.repetition].append(pace)
    by_workload: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for (workload, techniques), repetitions in found.items():
        by_workload[workload][techniques] = [statistics.fmean(values) for values in repetitions.values()]
    return dict(by_workload)


def incomparable(runs: Sequence[Conditions], *, as_one: bool = False) -> list[str]:
    """In words, why what was measured under these conditions must not be set beside each other; empty if it may.

    `as_one`: the runs are to be taken for one.
    """
    differences = []
    for name in OF_A_MACHINE:
        # Within a run of several machines all ratios are of heats.
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
