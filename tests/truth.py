"""Is what trainpace prints true? A heat as any run has it, held against bare training loops that run alone.

    python -m tests.truth [--model gpt2/nano] [--arms 2] [--arms 17] [--repetitions N]

In every repetition, before each round of the heat, bare loops of the same model (harness/bare_loop.py), plain and under
the three techniques, step alone for a second each, all in processes of their own, while every arm is parked. What the
sweep then reports is divided by what the bare loops showed in the same minute: step time and tokens a second of the
baseline, and the speed-ups. Each figure comes with its 95 % interval over repetitions of fresh processes.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from bench.host import Host
from bench.plans import COMMON, quick
from bench.spec import BASELINE, Plan, WorkloadSpec
from harness.bare_loop import TECHNIQUES, BareLoop
from harness.nursery import Nursery
from harness.prepare import Prepared, prepare
from harness.record import Record, Status
from harness.sweep import Progress, Sweep
from results.compare import compare
from results.pace import rate_per_s, step_time_s
from results.statistics import interval

MODELS = ("gpt2/nano", "gpt2/tiny", "bert/mini", "tests/convolutional.py:make_model")
WINDOW_S = 1.0


def compositions(arms: int, repetition: int) -> tuple[tuple[str, ...], ...]:
    """The rivals: in a small heat one of the techniques by turns, in a large one the common ones."""
    known = [name for name in TECHNIQUES if name]
    if arms == 2:
        return ((known[repetition % len(known)],),)
    others = [name for name in COMMON if name not in known]
    return tuple((name,) for name in [*known, *others][: arms - 1])


def heat(prepared: Prepared, nursery: Nursery, bare: dict[str, BareLoop], draw: random.Random) -> dict[str, float]:
    """One repetition: ln of what is reported over what the bare loops show, by figure."""
    windows: dict[str, list[float]] = defaultdict(list)

    def between_rounds(progress: Progress) -> None:
        if progress.phase.startswith("round"):
            for name in draw.sample(list(bare), len(bare)):
                windows[name].append(bare[name].window(WINDOW_S).step_s)

    with tempfile.TemporaryDirectory(prefix="trainpace-truth-") as folder:
        sweep = Sweep(
            prepared,
            run_id="truth",
            keep=lambda record: None,
            choose=lambda records: [],
            show=between_rounds,
            log=Path(folder) / "arms.log",
        )
        sweep.run(nursery)
    return against(sweep.records, {name: statistics.median(found) for name, found in windows.items()}, prepared)


def against(records: Sequence[Record], bare_s: dict[str, float], prepared: Prepared) -> dict[str, float]:
    plain = [record for record in records if record.techniques == BASELINE and record.status is Status.OK]
    times_s = [time_s for record in plain if (time_s := step_time_s(record))]
    rates = [rate for record in plain if (rate := rate_per_s(record, "tokens"))]
    tokens = prepared.entries[0].batch * (prepared.entries[0].sequence or 1)
    found = {"step time": math.log(statistics.fmean(times_s) / bare_s[""])}
    if rates:
        found["tokens a second"] = math.log(statistics.fmean(rates) * bare_s[""] / tokens)
    for row in compare(records, prepared.machine):
        if row.techniques in bare_s and row.speedup is not None:
            found[f"speed-up of {row.techniques}"] = math.log(row.speedup * bare_s[row.techniques] / bare_s[""])
    return found


def measure(nursery: Nursery, model: str, arms: int, repetitions: int) -> dict[str, list[float]]:
    """All repetitions of one model in heats of so many arms."""
    found: dict[str, list[float]] = defaultdict(list)
    draw = random.Random(0)
    protocol = quick(Host(device="cpu")).protocol
    for repetition in range(repetitions):
        plan = Plan(
            name="truth",
            workloads=(WorkloadSpec(model=model),),
            compositions=compositions(arms, repetition),
            repetitions=1,
            seed=repetition,
            protocol=protocol,
        )
        prepared = prepare(plan, nursery)
        wanted = ["", *(name for name in TECHNIQUES if (name,) in plan.compositions)]
        with contextlib.ExitStack() as stack:
            bare: dict[str, BareLoop] = {}
            for name in wanted:
                if name == "checkpoint_activations" and ".py" in model:
                    continue
                bare[name] = stack.enter_context(BareLoop(model, "--technique", name))
                bare[name].warm_up()
            for figure, value in heat(prepared, nursery, bare, draw).items():
                found[figure].append(value)
                print(f"  {model} {arms} arms {repetition}: {figure} {math.exp(value):.3f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--arms", type=int, action="append", choices=(2, 17))
    parser.add_argument("--repetitions", type=int, default=6)
    options = parser.parse_args()
    with Nursery() as nursery:
        for model in options.model or MODELS:
            for arms in options.arms or (2, 17):
                for figure, logs in measure(nursery, model, arms, options.repetitions).items():
                    show(f"{model}, {arms} arms: {figure} / bare loop", logs)


def show(name: str, logs: list[float]) -> None:
    found = interval(logs)
    bounds = "[unknown]"
    if found.low is not None and found.high is not None:
        bounds = f"[{math.exp(found.low):.3f}, {math.exp(found.high):.3f}]"
    print(f"{name}: {math.exp(found.estimate):.3f} {bounds} ({found.method})", flush=True)


if __name__ == "__main__":
    main()
