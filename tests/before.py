"""Compare what is predicted before anything runs with what is then measured.

    python -m tests.before --measure gpt2/nano bert/mini    # on a quiet or busy machine: bytes do not depend on it
    python -m tests.before                                  # the page, docs/before.md

Every technique with a prediction is measured by itself, in processes of its own, through the code path of every run. A
line of docs/predictions/memory-cpu.jsonl is one arm; measuring a workload replaces its lines.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.host import compiler
from bench.registry import techniques
from bench.spec import Plan, WorkloadSpec
from harness.heats.conformance import PROTOCOL
from harness.heats.sweep import Sweep
from harness.preparation import predicting
from harness.preparation.forecast import Forecasts, forecast
from harness.preparation.prepared import Prepared, prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record
from reports.wording import quantity
from tests import ROOT, pace
from tests.conftest import let_be

KEPT = ROOT / "docs" / "predictions" / "memory-cpu.jsonl"
PAGE = ROOT / "docs" / "before.md"

OF_TEXT, OTHERS = WorkloadSpec(model="", batch=8, sequence=64), WorkloadSpec(model="", batch=8)
WITHIN = 0.005
"""Predictions that are further off than this share are named."""

INTRODUCTION = """# Before it runs

What `trainpace run --dry-run` says of the memory of arms, held against what training then allocated on a CPU: each
technique by itself, in processes of its own, with torch's profiler counting two updates
([how](measuring.md#how-much-memory-before-it-runs)). No GPU has been asked yet. Of the step time see
[below](#step-time).

```
python -m tests.before --measure MODEL ...   # measure, into docs/predictions/memory-cpu.jsonl
python -m tests.before                       # render this page from it
```
"""


STEP_TIME = """## Step time

What it says of the time of a step, held against the step times of a run ([how](measuring.md#how-fast-before-it-runs)).

```
python -m tests.pace --measure MODEL ...     # measure on a quiet machine, into docs/predictions/pace-cpu.jsonl
python -m tests.before                       # render this page from it
```
"""


def measure(model: str, fork_server: ForkServer) -> Iterator[dict[str, Any]]:
    """A line for each technique that can run here."""
    shape = OTHERS if model.partition("/")[0] in ("vit", "resnet", "whisper") else OF_TEXT
    spec = dataclasses.replace(shape, model=model)
    protocol = dataclasses.replace(PROTOCOL, certify_steps=1)
    every = tuple((name,) for name in techniques())
    plan = Plan(name="before", workloads=(spec,), compositions=every, repetitions=1, protocol=protocol)
    prepared = prepare(plan, fork_server)
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainpace-") as folder, pytest.MonkeyPatch.context() as patch:
        # No prediction comes from an earlier cache.
        patch.setattr(predicting, "cache_folder", lambda: Path(folder))
        forecasts = forecast(prepared, fork_server)
    cell_s = (time.monotonic() - begun_s) / len(prepared.trials(prepared.entries[0]))
    # The first record of an arm is that of the process that replays.
    allocated = {record.techniques: record for record in reversed(_run(prepared, forecasts, fork_server))}
    for trial in prepared.trials(prepared.entries[0]):
        found, record = forecasts.of(spec.name, trial.label), allocated.get(trial.label)
        yield {
            "workload": spec.name,
            "techniques": trial.label,
            "predicted_peak_bytes": found.peak_bytes,
            "allocated_peak_bytes": record.measurement.allocated_peak_bytes if record else None,
            "reason": found.reason or (record.reason if record else None),
            "cell_s": round(cell_s, 2),
            "machine": prepared.machine.cpu,
        }


def _run(prepared: Prepared, forecasts: Forecasts, fork_server: ForkServer) -> list[Record]:
    known, every = forecasts.device_bytes(prepared.entries[0].spec.name), techniques()
    # Compiled arms are not built again to count their allocations.
    compiled = {name for name, item in every.items() if compiler in item.needs}
    chosen = tuple((name,) for (name,) in prepared.plan.compositions if name in known and name not in compiled)
    plan = dataclasses.replace(prepared.plan, compositions=chosen)
    kept: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="trainpace-") as folder, pytest.MonkeyPatch.context() as patch:
        # Bytes do not depend on other programs.
        let_be(patch)
        Sweep(
            dataclasses.replace(prepared, plan=plan),
            run_id="before",
            keep=kept.append,
            choose=lambda _: [],
            forecasts=forecasts,
            log=Path(folder) / "arms.log",
        ).run(fork_server)
    return kept


def page(lines: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    parts = [INTRODUCTION, "| workload | arms | median error | 95 % within | largest | a prediction takes |"]
    parts.append("| --- | ---: | ---: | ---: | ---: | ---: |")
    workloads = list(dict.fromkeys(line["workload"] for line in lines))
    parts += [_row(name, [line for line in lines if line["workload"] == name]) for name in workloads]
    if len(workloads) > 1:
        parts.append(_row("all", lines))
    parts += ["", f"Farther off than {quantity.percent(100 * WITHIN)}:", ""]
    parts += ["| workload | technique | predicted | allocated | error |", "| --- | --- | ---: | ---: | ---: |"]
    parts += [
        f"| {line['workload']} | {line['techniques']} | {line['predicted_peak_bytes']:,} | "
        f"{line['allocated_peak_bytes']:,} | {100 * _error(line):+.2f} % |"
        for line in sorted(filter(_is_known, lines), key=lambda line: -abs(_error(line)))
        if abs(_error(line)) > WITHIN
    ]
    parts += ["", "Not known, and why:", "", "| technique | workloads | reason |", "| --- | --- | --- |"]
    unknown: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if not _is_known(line):
            reason = line["reason"] or "it was predicted, and not measured: its batches grow, or it is compiled"
            unknown.setdefault((line["techniques"], reason.replace("|", "/")), []).append(line["workload"])
    parts += [
        f"| {label} | {'all' if len(names) == len(workloads) else ', '.join(names)} | {reason} |"
        for (label, reason), names in unknown.items()
    ]
    machines = sorted({line["machine"] for line in lines})
    parts += ["", f"Measured on: {', '.join(machines)}.", "", STEP_TIME, pace.section(pace.kept())]
    return "\n".join(parts) + "\n"


def _is_known(line: dict[str, Any]) -> bool:
    return line["predicted_peak_bytes"] is not None and line["allocated_peak_bytes"] is not None


def _error(line: dict[str, Any]) -> float:
    error: float = line["predicted_peak_bytes"] / line["allocated_peak_bytes"] - 1
    return error


def _row(name: str, lines: Sequence[dict[str, Any]]) -> str:
    errors = sorted(abs(_error(line)) for line in lines if _is_known(line))
    cell_s = statistics.fmean(line["cell_s"] for line in lines)
    shown = [f"{100 * value:.3f} %" for value in (statistics.median(errors), errors[int(0.95 * (len(errors) - 1))])]
    return f"| {name} | {len(errors)} | {' | '.join(shown)} | {100 * errors[-1]:.2f} % | {cell_s:.1f} s |"


def kept() -> list[dict[str, Any]]:
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", default=[], metavar="MODEL")
    models = parser.parse_args().measure
    if models:
        with ForkServer() as fork_server:
            for model in models:
                made = list(measure(model, fork_server))
                others = [line for line in kept() if line["workload"] != made[0]["workload"]]
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text("".join(json.dumps(line) + "\n" for line in (*others, *made)), encoding="utf-8")
                print(_row(made[0]["workload"], made), flush=True)
    PAGE.write_text(page(kept()), encoding="utf-8")


if __name__ == "__main__":
    main()
