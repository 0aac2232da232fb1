"""`trainpace run --calibrate N`: heats of idle copies of the baseline, by the path of every run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import json
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

import typer

from bench import __version__
from bench.spec import BASELINE, Plan, WorkloadSpec
from harness.heats.sweep import Sweep
from harness.preparation.prepared import Prepared, prepare
from harness.processes.bare_loop import BareLoop
from harness.processes.fork_server import ForkServer
from harness.record import Record
from reports.wording import sentences
from results import idle as outcomes
from results import store
from results.compare import compare

BARE_S = 2.0

MODULES = ("bench.idle",)
"""Where the idle techniques are, which are not there unless it is imported."""


def rivals(plan: Plan) -> Plan:
    """The plan with idle copies of the baseline in place of its techniques, on its first model."""
    (idle,) = map(importlib.import_module, MODULES)
    return dataclasses.replace(
        plan, name="calibration", workloads=plan.workloads[:1], compositions=idle.COMPOSITIONS, budget_s=None
    )


def calibrate(plan: Plan, fork_server: ForkServer, heats: int, folder: Path) -> None:
    """Measure so many heats of the plan, keep what they come to, and say what all of this machine's add up to."""
    for number in range(heats):
        chosen = dataclasses.replace(plan, seed=plan.seed + number * plan.repetitions * 2)
        prepared = prepare(chosen, fork_server)
        begun, at = time.monotonic(), f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S+00:00}"
        bare_s = _bare_s(chosen.workloads[0], chosen.device)
        records = _heat(prepared, fork_server, folder / f"heat-{number + 1:03}")
        bare_s += _bare_s(chosen.workloads[0], chosen.device)
        rows = compare(records, prepared.machine)
        step_s = next(row.step_time_s for row in rows if row.techniques == BASELINE)
        found = outcomes.outcome(
            rows,
            version=__version__,
            at=at,
            device=chosen.device,
            step_bias=step_s / statistics.fmean(bare_s) if step_s and bare_s else None,
            seconds=time.monotonic() - begun,
        )
        if found is None:
            typer.echo(f"heat {number + 1}: nothing could be compared; its records are in {folder}")
            continue
        outcomes.append(prepared.machine.machine_id, found)
        typer.echo(f"heat {number + 1}: {sentences.idle_heat(found)}")
    typer.echo(sentences.error_rate(outcomes.error_rate(outcomes.load(prepared.machine.machine_id))))


def _heat(prepared: Prepared, fork_server: ForkServer, folder: Path) -> list[Record]:
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps(prepared.plan.to_json(), indent=2), encoding="utf-8")
    keep = functools.partial(store.write, folder=folder, machine=prepared.machine, plan=prepared.plan)
    sweep = Sweep(prepared, run_id=folder.name, keep=keep, choose=lambda records: [], log=folder / "arms.log")
    sweep.run(fork_server)
    return sweep.records


def _bare_s(spec: WorkloadSpec, device: str) -> list[float]:
    """The step time of a bare loop that runs alone; none of a model that such a loop cannot train."""
    shape = [f"--{name}={value}" for name in ("batch", "sequence") if (value := getattr(spec, name)) is not None]
    with BareLoop(spec.model, *shape, "--device", device) as bare, contextlib.suppress(RuntimeError):
        bare.warm_up()
        return [bare.window(BARE_S).step_s]
    return []
