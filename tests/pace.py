"""Compare how long updates were predicted to take with how long they then took.

    python -m tests.pace --measure gpt2/nano bert/tiny      # on a quiet machine
    python -m tests.pace                                    # what the records say; the page is rendered by tests.before

The predictions are those of `trainpace run --dry-run`. The same arms are measured in a heat, through the code path of
every run. A line of docs/predictions/pace-cpu.jsonl is one arm; measuring a workload on a machine replaces its lines.
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

from bench.plans import COMMON
from bench.spec import BASELINE, Plan, Protocol, WorkloadSpec
from harness.heats.sweep import Sweep
from harness.preparation import pacing, predicting
from harness.preparation.pacing import BESIDE, HIGH, LOW, paces_of
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record
from results.compare import compare
from tests import ROOT

KEPT = ROOT / "docs" / "predictions" / "pace-cpu.jsonl"
PROTOCOL = Protocol(warmup_s=0.6, rounds_s=1.0, certify_steps=1)

SURE = 0.05
"""A measured speed-up has a sign if it differs from 1 by more than this."""

HELD = 0.96
"""The share of the updates behind an interval that it contains. Workloads differ from each other, so for a new one the
interval contains about nine updates in ten."""

Line = dict[str, Any]


def measure(model: str, without: Sequence[str], fork_server: ForkServer) -> Iterator[Line]:
    """A line for each technique whose pace is predicted. All operators are timed again, however long that takes. Raises
    ValueError if the baseline's pace was not predicted or not measured."""
    compositions = tuple((name,) for name in COMMON if name not in without)
    plan = Plan(
        name="pace", workloads=(WorkloadSpec(model=model),), compositions=compositions, repetitions=2, protocol=PROTOCOL
    )
    prepared = prepare(plan, fork_server)
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainpace-") as folder, pytest.MonkeyPatch.context() as patch:
        for module in (pacing, predicting):
            patch.setattr(module, "cache_folder", lambda: Path(folder))
        patch.setattr(pacing, "PATIENCE_S", 3600.0)
        found = {label: pace for (_, label), pace in paces_of(prepared, fork_server).items()}
    predicting_s = time.monotonic() - begun_s
    known = tuple(names for names in compositions if found.get("+".join(names)) and found["+".join(names)].step_time_s)
    records: list[Record] = []
    with tempfile.TemporaryDirectory(prefix="trainpace-") as folder:
        Sweep(
            dataclasses.replace(prepared, plan=dataclasses.replace(plan, compositions=known)),
            run_id="pace",
            keep=records.append,
            choose=lambda _: [],
            log=Path(folder) / "arms.log",
        ).run(fork_server)
    rows = compare(records, prepared.machine)
    if (plain := found[BASELINE]).step_time_s is None or rows[0].step_time_s is None:
        raise ValueError(f"{model}: {plain.reason or rows[0].reason}, so nothing is kept")
    for row in rows:
        if row.step_time_s and found[row.techniques].step_time_s:
            yield {
                "workload": model,
                "techniques": row.techniques,
                "operators_s": (found[row.techniques].step_time_s or 0.0) / BESIDE,
                "step_time_s": row.step_time_s,
                "predicting_s": round(predicting_s, 1),
                "machine": prepared.machine.cpu,
            }


def section(lines: Sequence[Line]) -> str:
    """The section of the page about paces."""
    if not lines:
        return "Nothing has been measured yet."
    rows = [
        "| workload | machine | arms | median error | largest | speed-up, median error | signs right | predicted in |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    heats = by_heat(lines)
    rows += [_row(name, machine, heat, f"{heat[0]['predicting_s']:.0f} s") for (name, machine), heat in heats.items()]
    if len(heats) > 1:
        rows.append(_row("all", "", lines, ""))
    held = [held_by_others(lines, name) for name in dict.fromkeys(name for name, _ in heats)]
    inside, outside = (sum(counts) for counts in zip(*held, strict=True))
    low, high = bounds(lines)
    far = sorted(lines, key=lambda line: -abs(_error(line)))[:6]
    return "\n".join(
        [
            *rows,
            "",
            f"An update takes {beside(lines):.2f} times as long as its operators together, the median of these: "
            f"trainpace says {BESIDE:g}. Of what it then predicts, {100 * HELD:.0f} % of the updates took {low:.2f} to "
            f"{high:.2f} times as long: it prints {LOW:g} to {HIGH:g}. Bounds that are made from other workloads alone "
            f"hold {inside} of {inside + outside} arms ({100 * inside / (inside + outside):.0f} %). A sign counts "
            f"where the measured speed-up is farther than {100 * SURE:.0f} % from 1. Farthest off:",
            "",
            "| workload | technique | predicted | measured | error |",
            "| --- | --- | ---: | ---: | ---: |",
            *(
                f"| {line['workload']} | {line['techniques']} | {1e3 * _predicted_s(line):.1f} ms | "
                f"{1e3 * line['step_time_s']:.1f} ms | {100 * _error(line):+.0f} % |"
                for line in far
            ),
        ]
    )


def by_heat(lines: Sequence[Line]) -> dict[tuple[str, str], list[Line]]:
    """The lines of each workload on each machine."""
    heats: dict[tuple[str, str], list[Line]] = {}
    for line in lines:
        heats.setdefault((line["workload"], line["machine"]), []).append(line)
    return heats


def beside(lines: Sequence[Line]) -> float:
    """The median ratio of the measured time to the sum over operators."""
    median: float = statistics.median(line["step_time_s"] / line["operators_s"] for line in lines)
    return median


def bounds(lines: Sequence[Line]) -> tuple[float, float]:
    """The bounds between which most ratios of measured to predicted times lie."""
    ratios = sorted(line["step_time_s"] / _predicted_s(line) for line in lines)
    cut = int((1 - HELD) / 2 * len(ratios))
    return ratios[cut], ratios[-1 - cut]


def held_by_others(lines: Sequence[Line], left_out: str) -> tuple[int, int]:
    """How many of a workload's arms lie within the bounds from all other workloads, and how many do not."""
    others = [line for line in lines if line["workload"] != left_out] or lines
    low, high = bounds(others)
    own = [line["step_time_s"] / _predicted_s(line) for line in lines if line["workload"] == left_out]
    inside = sum(low <= ratio <= high for ratio in own)
    return inside, len(own) - inside


def speedups(heat: Sequence[Line]) -> list[tuple[float, float]]:
    """The measured and the predicted speed-up of each rival."""
    baseline = next(line for line in heat if line["techniques"] == BASELINE)
    return [
        (baseline["step_time_s"] / line["step_time_s"], baseline["operators_s"] / line["operators_s"])
        for line in heat
        if line is not baseline
    ]


def signs(lines: Sequence[Line]) -> list[bool]:
    """For each speed-up that has a sign, whether the sign was predicted."""
    pairs = [pair for heat in by_heat(lines).values() for pair in speedups(heat)]
    return [(measured > 1) == (predicted > 1) for measured, predicted in pairs if abs(measured - 1) > SURE]


def kept() -> list[Line]:
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.exists() else []


def _row(name: str, machine: str, lines: Sequence[Line], took: str) -> str:
    errors = sorted(abs(_error(line)) for line in lines)
    pairs = [pair for heat in by_heat(lines).values() for pair in speedups(heat)]
    off = statistics.median(abs(predicted / measured - 1) for measured, predicted in pairs)
    right = signs(lines)
    return (
        f"| {name} | {machine} | {len(lines)} | {100 * statistics.median(errors):.1f} % | {100 * errors[-1]:.0f} % | "
        f"{100 * off:.1f} % | {sum(right)} of {len(right)} | {took} |"
    )


def _predicted_s(line: Line) -> float:
    predicted_s: float = BESIDE * line["operators_s"]
    return predicted_s


def _error(line: Line) -> float:
    error: float = _predicted_s(line) / line["step_time_s"] - 1
    return error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", default=[], metavar="MODEL")
    parser.add_argument("--without", nargs="+", default=[], metavar="TECHNIQUE", help="that takes too long here")
    asked = parser.parse_args()
    if asked.measure:
        with ForkServer() as fork_server:
            for model in asked.measure:
                try:
                    made = list(measure(model, asked.without, fork_server))
                except ValueError as error:
                    print(error, flush=True)
                    continue
                new = {(line["workload"], line["machine"]) for line in made}
                others = [line for line in kept() if (line["workload"], line["machine"]) not in new]
                KEPT.parent.mkdir(exist_ok=True)
                KEPT.write_text("".join(json.dumps(line) + "\n" for line in (*others, *made)), encoding="utf-8")
                print(_row(model, made[0]["machine"], made, f"{made[0]['predicting_s']:.0f} s"), flush=True)
    print(section(kept()))


if __name__ == "__main__":
    main()
