"""Is what trainpace prints true? Measured against a bare training loop, alternated with it in one run.

    python -m tests.truth [--repetitions N] [--rounds N]

Prints three figures, each with its 95 % interval over repetitions of fresh processes: the reported step time over the
bare loop's, the step time with telemetry over that without, and the seconds from asking for an arm to its first step.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench.corpus import BYTES, cache_folder, open_corpus
from bench.host import Host
from bench.spec import Protocol, Trial, WorkloadSpec
from harness.entrant import Entrant
from harness.gpus import Gpus
from harness.nursery import Nursery
from results.statistics import interval

SPEC = WorkloadSpec(model="gpt2/tiny", batch=8, sequence=128)
CORPUS = open_corpus(None)


class BareLoop:
    """The bare loop in a process of its own, stepped on demand."""

    def __init__(self) -> None:
        CORPUS.tokens(BYTES)
        tokens = cache_folder() / f"{CORPUS.sha256[:16]}-{BYTES.size}.npy"
        command = [sys.executable, str(Path(__file__).with_name("bare_loop.py")), str(tokens), "8", "128"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def steps(self, count: int) -> list[float]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return [float(word) for word in self._process.stdout.readline().split()]

    def end(self) -> None:
        self._process.communicate()


def entrant(nursery: Nursery, protocol: Protocol) -> Entrant:
    request = {
        "workload": dataclasses.asdict(SPEC),
        "corpus": dataclasses.asdict(CORPUS),
        "device": "cpu",
        "techniques": [],
        "seed": 0,
    }
    arm = Entrant(Trial(workload=SPEC), request=request, protocol=protocol, host=Host(device="cpu"), is_cold=True)
    arm.start(nursery)
    assert arm.alive, arm
    return arm


def alternate(first: Callable[[int], object], second: Callable[[int], object], rounds: int, pause_s: float) -> None:
    """Call both in turn, in random order in every round, with the protocol's pause before each."""
    turns = [first, second]
    for index in range(rounds):
        random.shuffle(turns)
        for turn in turns:
            time.sleep(pause_s)
            turn(index)


def against_bare_loop(nursery: Nursery, rounds: int) -> float:
    """ln of the step time that trainpace reports, over the bare loop's: the medians of alternated single steps."""
    protocol = Protocol()
    bare = BareLoop()
    bare.steps(20)
    arm = entrant(nursery, protocol)
    bare_times_s: list[float] = []
    alternate(arm.step_round, lambda _: bare_times_s.extend(bare.steps(1)), rounds, protocol.pause_s)
    arm.end()
    bare.end()
    return math.log(statistics.median(arm.measurement.round_step_times_s) / statistics.median(bare_times_s))


def telemetry_cost(nursery: Nursery, rounds: int) -> float:
    """ln of the sustained step time with telemetry over that without, in alternated windows of one arm."""
    arm = entrant(nursery, Protocol())
    gpus = Gpus("cpu", ())
    times_s: dict[bool, list[float]] = {True: [], False: []}

    def window(telemetry: bool) -> None:
        arm.protocol = Protocol(telemetry=telemetry)
        arm.sustain(gpus)
        times_s[telemetry] += arm.measurement.sustained_step_times_s

    alternate(lambda _: window(True), lambda _: window(False), rounds, Protocol().pause_s)
    arm.end()
    return math.log(statistics.median(times_s[True]) / statistics.median(times_s[False]))


def ready_seconds(nursery: Nursery) -> float:
    arm = entrant(nursery, Protocol(warmup_s=0.1))
    arm.end()
    assert arm.measurement.ready_s is not None
    return arm.measurement.ready_s


def show_ratio(name: str, logs: list[float]) -> None:
    found = interval(logs)
    bounds = f"[{math.exp(found.low):.4f}, {math.exp(found.high):.4f}]" if found.low and found.high else "[unknown]"
    print(f"{name}: {math.exp(found.estimate):.4f} {bounds} ({found.method})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    with Nursery() as nursery:
        ready_s = sorted(ready_seconds(nursery) for _ in range(10))
        spread = f"{ready_s[0]:.3f} to {ready_s[-1]:.3f} s"
        print(f"asked to first step: median {statistics.median(ready_s):.3f} s of {len(ready_s)}, {spread}")
        repeat = range(options.repetitions)
        show_ratio("reported step time / bare loop", [against_bare_loop(nursery, options.rounds) for _ in repeat])
        show_ratio("telemetry on / off", [telemetry_cost(nursery, options.rounds // 4) for _ in repeat])


if __name__ == "__main__":
    main()
