"""Is what trainpace prints true? Compares an ordinary heat with bare training loops that run alone.

    python -m tests.truth [--model gpt2/nano] [--arms 2] [--arms 17] [--repetitions N] [--without pure_bf16]

In every repetition, bare loops of the same model (harness/processes/bare_loop.py) run between the rounds of the heat,
plain and under the three techniques. Each steps alone for a while in its own process, while every arm is parked. The
step time and the tokens per second of the baseline, and the speed-ups, as reported by the sweep, are divided by those
of the bare loops in the same minute. Two processes of the same program differ by some per cent for as long as they
live. So there are several bare loops of each kind, a large heat has each technique several times, and every repetition
has fresh processes. Each figure comes with its 95 % interval over repetitions.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import random
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import idle
from bench.host import Host
from bench.plans import quick
from bench.spec import BASELINE, Plan, WorkloadSpec, parse_composition
from harness.heats.sweep import Progress, Sweep
from harness.preparation.prepared import Prepared, prepare
from harness.processes.bare_loop import TECHNIQUES, BareLoop
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from results.compare import compare
from results.pace import rate_per_s, step_time_s
from results.statistics import interval

MODELS = ("gpt2/nano", "gpt2/tiny", "bert/mini", "tests/convolutional.py:make_model")
RIVALS = {2: 1, 17: 16}
LOOPS = 4
WINDOW_S = 0.15
"""The length of a bare loop's window, one per round. Disturbances of a shared machine last longer than that, so four
windows of this length show more than one of 0.6 s."""

ROUNDS_S = 1.6
"""Seconds of counted steps for each arm: more than in `quick`, so that there are many rounds to compare."""


def compositions(known: Sequence[str], arms: int, repetition: int) -> tuple[tuple[str, ...], ...]:
    """The rivals: the techniques in turn, each combined with an idle one that distinguishes it from its copies."""
    return tuple(
        (known[(repetition + index) % len(known)], f"idle_{1 + index // len(known)}") for index in range(RIVALS[arms])
    )


def techniques_of(model: str, without: Sequence[str]) -> list[str]:
    """The techniques that a bare loop has too: only transformers' models have a switch for activation checkpointing."""
    left_out = {"", *without, *(["checkpoint_activations"] if ".py" in model else [])}
    return [name for name in TECHNIQUES if name not in left_out]


def heat(
    prepared: Prepared, fork_server: ForkServer, bare: Mapping[str, Sequence[BareLoop]], draw: random.Random
) -> dict[str, float]:
    """One repetition: ln(reported / bare loops), by figure."""
    windows: dict[tuple[str, int], list[float]] = defaultdict(list)
    loops = {(name, index): loop for name, copies in bare.items() for index, loop in enumerate(copies)}

    def between_rounds(progress: Progress) -> None:
        if progress.phase.startswith("round"):
            for key in draw.sample(list(loops), len(loops)):
                windows[key].append(loops[key].window(WINDOW_S).step_s)

    with tempfile.TemporaryDirectory(prefix="trainpace-truth-") as folder:
        sweep = Sweep(
            prepared,
            run_id="truth",
            keep=lambda record: None,
            choose=lambda records: [],
            show=between_rounds,
            log=Path(folder) / "arms.log",
        )
        sweep.run(fork_server)
    means_s: dict[str, list[float]] = defaultdict(list)
    for (name, _), times_s in windows.items():
        means_s[name].append(statistics.fmean(times_s))
    bare_s = {name: statistics.geometric_mean(times_s) for name, times_s in means_s.items()}
    return against(sweep.records, bare_s, prepared)


def against(records: Sequence[Record], bare_s: Mapping[str, float], prepared: Prepared) -> dict[str, float]:
    plain = [record for record in records if record.techniques == BASELINE and record.status is Status.OK]
    times_s = [time_s for record in plain if (time_s := step_time_s(record))]
    rates = [rate for record in plain if (rate := rate_per_s(record, "tokens"))]
    tokens = prepared.entries[0].batch * (prepared.entries[0].sequence or 1)
    found = {"step time": math.log(statistics.fmean(times_s) / bare_s[""])}
    if rates:
        found["tokens a second"] = math.log(statistics.fmean(rates) * bare_s[""] / tokens)
    speedups: dict[str, list[float]] = defaultdict(list)
    for row in compare(records, prepared.machine):
        if row.speedup is not None and row.techniques != BASELINE:
            name = next(item for item in parse_composition(row.techniques) if not item.startswith("idle"))
            speedups[name].append(row.speedup)
    for name, values in speedups.items():
        if name in bare_s:
            found[f"speed-up of {name}"] = math.log(statistics.geometric_mean(values) * bare_s[name] / bare_s[""])
    return found


def measure(
    fork_server: ForkServer, model: str, techniques: Sequence[str], arms: int, repetitions: int
) -> dict[str, list[float]]:
    """All repetitions of one model under these techniques in heats of so many arms. In a heat of two, the speed-ups
    come from too few processes to tell them from chance, so they are left out."""
    found: dict[str, list[float]] = defaultdict(list)
    draw = random.Random(0)
    protocol = dataclasses.replace(quick(Host(device="cpu")).protocol, rounds_s=ROUNDS_S)
    wanted = ["", *techniques] if arms > 2 else [""]
    for repetition in range(repetitions):
        plan = Plan(
            name="truth",
            workloads=(WorkloadSpec(model=model),),
            compositions=compositions(techniques, arms, repetition),
            repetitions=1,
            seed=repetition,
            protocol=protocol,
        )
        prepared = prepare(plan, fork_server)
        with contextlib.ExitStack() as stack:
            loops = [(name, stack.enter_context(BareLoop(model, "--technique", name))) for name in wanted * LOOPS]
            # In random order: whatever trains first may get different memory, and be faster because of it.
            draw.shuffle(loops)
            for _, loop in loops:
                loop.warm_up()
            bare = {name: [loop for other, loop in loops if other == name] for name in wanted}
            for figure, value in heat(prepared, fork_server, bare, draw).items():
                found[figure].append(value)
                print(f"  {model} {arms} arms {repetition}: {figure} {math.exp(value):.3f}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append")
    parser.add_argument("--arms", type=int, action="append", choices=RIVALS)
    parser.add_argument("--repetitions", type=int, default=6)
    # On a CPU without bfloat16 instructions, its steps take ten times as long as all others together.
    parser.add_argument("--without", action="append", default=[], choices=TECHNIQUES[1:])
    options = parser.parse_args()
    with ForkServer(modules=[idle.__name__]) as fork_server:
        for model in options.model or MODELS:
            techniques = techniques_of(model, options.without)
            for arms in options.arms or RIVALS:
                for figure, logs in measure(fork_server, model, techniques, arms, options.repetitions).items():
                    show(f"{model}, {arms} arms: {figure} / bare loop", logs)


def show(name: str, logs: list[float]) -> None:
    found = interval(logs)
    bounds = "[unknown]"
    if found.low is not None and found.high is not None:
        bounds = f"[{math.exp(found.low):.3f}, {math.exp(found.high):.3f}]"
    print(f"{name}: {math.exp(found.estimate):.3f} {bounds} ({found.method})", flush=True)


if __name__ == "__main__":
    main()
