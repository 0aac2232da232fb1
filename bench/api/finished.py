"""Finished runs: their arms and steps as frames, their reports, and comparisons of two runs. Does not import torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench import catalogue
from bench.spec import Plan
from harness.record import Machine, Record
from reports.formats import export
from results import publishing, store, summaries
from results.compaction import MANIFEST, compact
from results.compare import Comparison
from results.compare import compare as compared
from results.idle import error_rate, load
from results.pace import counted_steps
from results.runs import compare_runs, told
from results.summary import conditions, incomparable

if TYPE_CHECKING:
    import pandas as pd

Where = str | Path

STEP = ("workload", "techniques", "repetition", "heat_part", "copy", "phase", "round", "step_time_s", "counted")
"""The columns of `Run.steps`."""


class Run:
    """A finished run, read from its folder: the `records`, `machine` and `plan`, and the results as frames."""

    def __init__(self, folder: Where) -> None:
        """Raises ValueError if the folder holds no records, or records of another schema version."""
        self.folder = Path(folder)
        self.records: list[Record] = store.read(self.folder)
        """One record per arm and repetition, with every raw step."""
        self.machine: Machine = store.read_machine(self.folder)
        self.machines: list[Machine] = store.read_machines(self.folder)
        """Every machine that it was measured on; `machine` is the one with the most records."""
        self.plan: Plan = store.read_plan(self.folder)

    @property
    def comparisons(self) -> list[Comparison]:
        """One comparison per arm, baselines first."""
        return compared(self.records, self.machine)

    def arms(self) -> pd.DataFrame:
        """Return a frame with one row per arm. Its columns are the fields of `results.compare.Comparison`; unknown
        values are missing."""
        return _frame([export.plain(item) for item in self.comparisons], export.FIELDS)

    def steps(self) -> pd.DataFrame:
        """Return a frame with one row per timed step, in the order in which the steps were taken.

        `phase` is first, warm-up, window or round. `round` is the number of the round, missing in other phases.
        `step_time_s` is in seconds. A step is `counted` if it enters the speed-up: the first steps of a turn and all
        steps of a disturbed round do not.
        """
        return _frame([row for record in self.records for row in _steps(record)], STEP)

    def render(self) -> Path:
        """Write report.html again, atomically, and return its path."""
        fresh = self.folder / ".report.html"
        fresh.write_text(page(self.records, self.machine, self.plan, self.machines), encoding="utf-8")
        return fresh.replace(self.folder / "report.html")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the answer as a picture and in one line."""
        from reports.page import notebook

        return notebook.render(self.comparisons, self.folder / "report.html")


def compare(run: Where | Run, head: Where | Run | None = None, *, force: bool = False) -> pd.DataFrame:
    """Compare the arms of a run with its baseline, or with `head` the arms of that run with the same arms of `run`, as
    `trainpace compare` does.

    Returns a frame with one row per arm and the fields of `results.compare.Comparison`. Raises ValueError for runs on
    different machines or data, unless `force` is given.
    """
    runs = [item if isinstance(item, Run) else Run(item) for item in (run, head) if item is not None]
    differences = incomparable([conditions(item.records) for item in runs])
    if differences and not force:
        raise ValueError(f"{'; '.join(differences)}: use force=True to compare them anyway")
    if head is None:
        return runs[0].arms()
    base, other = (told(item.records, item.machine) for item in runs)
    return _frame([export.plain(item) for item in compare_runs(base, other)], export.FIELDS)


def page(records: Sequence[Record], machine: Machine, plan: Plan, machines: Sequence[Machine] = ()) -> str:
    """The report as HTML, with the error rate that this machine's calibrations have shown."""
    from reports.page import html, large  # They draw with matplotlib, which takes half a second to import.

    comparisons = compared(records, machine)
    if len(comparisons) > large.MANY:
        return large.render(comparisons, machine, plan, records[0].run_id)
    return html.render(
        comparisons,
        records,
        machine,
        plan,
        captions=catalogue.captions(),
        known=error_rate(load(machine.machine_id)),
        machines=machines,
    )


def page_of(folders: Sequence[Path]) -> str:
    """The report on the runs in these folders, as if they were one. A run with very many arms is shown from its
    summary, without reading its steps again."""
    from reports.page import large

    first = folders[0]
    machine, plan = store.read_machine(first), store.read_plan(first)
    if len(folders) == 1 and len((known := summaries.told(first)).comparisons) > large.MANY:
        return large.render(known.comparisons, machine, plan, known.summary.run_id)
    machines = {item.machine_id: item for folder in folders for item in store.read_machines(folder)}
    return page(store.join([store.read(folder) for folder in folders]), machine, plan, list(machines.values()))


def _steps(record: Record) -> Iterator[dict[str, object]]:
    arm = {
        "workload": record.workload,
        "techniques": record.techniques,
        "repetition": record.repetition,
        "heat_part": record.heat_part,
        "copy": record.copy,
    }
    measured, before = record.measurement, {"round": None, "counted": False}
    first, warmup = measured.warmup_step_times_s[:1], measured.warmup_step_times_s[1:]
    for phase, times_s in (("first", first), ("warm-up", warmup), ("window", measured.sustained_step_times_s)):
        yield from (arm | {"phase": phase, "step_time_s": time_s} | before for time_s in times_s)
    counted = {place for _, places in counted_steps(record) for place in places}
    for place, (index, time_s) in enumerate(zip(measured.round_index, measured.round_step_times_s, strict=True)):
        yield arm | {"phase": "round", "step_time_s": time_s, "round": index, "counted": place in counted}


def _frame(rows: Sequence[dict[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns)).convert_dtypes()


def published(folder: Where, out: Where) -> Path:
    """Write a copy of a run to a new folder, for others to compare with, without our user names, host names and paths.
    Raises ValueError if the folder exists."""
    run, target = Run(folder), Path(out)
    if target.exists():
        raise ValueError(f"{str(out)!r} already exists: give a new folder")
    made = publishing.published(run.records, run.machines, run.plan)
    target.mkdir(parents=True)
    for record in made.records:
        store.write(record, target, machine=made.machines[record.machine_id], plan=made.plan)
    compact(target)
    # The manifest lists the parts that this file was made of. The copy has no use for it.
    (target / "records" / MANIFEST).unlink()
    (target / "plan.json").write_text(json.dumps(made.plan.to_json(), indent=2), encoding="utf-8")
    told = [dataclasses.asdict(machine) for machine in made.machines.values()]
    (target / "machine.json").write_text(json.dumps(told[0] if len(told) == 1 else told, indent=2), encoding="utf-8")
    (target / "left-out.txt").write_text("\n".join(publishing.LEFT_OUT) + "\n", encoding="utf-8")
    Run(target).render()
    return target
