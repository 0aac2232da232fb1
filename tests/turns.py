"""How long should a turn be? Compares turns of several lengths, with arms that are all the same.

    python -m tests.turns [--model gpt2/nano] [--arms 17] [--steps 1 2 4 8 16] [--seconds 30]

For each number of counted steps per turn, the arms take turns in the same processes for so many seconds. Each turn
begins with LEAD steps that are not counted. A line shows: the share of the time that the counted steps take; their
length over that of arms that train alone (runs of contiguous steps before and after); how far an arm is from the mean
of the others in a round; and after how many seconds an arm's difference from the others is known to 1 % (the spread of
a round's difference, squared, times the seconds of a round). The first steps of turns are shown by position.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
import time

import numpy as np

from bench.corpus import open_corpus
from bench.host import Host
from bench.spec import Protocol, Trial, WorkloadSpec
from harness.heats.arm import Arm
from harness.processes.fork_server import ForkServer
from results.pace import centre

LEAD = 2
CONTIGUOUS_S = 2.0
PAUSE_S = Protocol().pause_s


def arms(fork_server: ForkServer, spec: WorkloadSpec, count: int) -> list[Arm]:
    """So many warm arms of the baseline."""
    corpus = open_corpus(spec.corpus)
    request = {
        "workload": dataclasses.asdict(spec),
        "corpus": dataclasses.asdict(corpus),
        "device": "cpu",
        "techniques": [],
        "seed": 0,
    }
    made = []
    for _ in range(count):
        protocol = Protocol(telemetry=False)
        arm = Arm(Trial(workload=spec), request=request, protocol=protocol, host=Host(device="cpu"), is_cold=True)
        arm.start(fork_server)
        assert arm.alive, arm
        made.append(arm)
    return made


def steps(arm: Arm, count: int) -> list[float]:
    """The times of so many contiguous steps."""
    arm.turn_steps = count
    arm.turn(0)
    return arm.measurement.round_step_times_s[-count:]


def contiguous(arm: Arm) -> float:
    """The step time in seconds of an arm that steps for some seconds without a pause."""
    count = math.ceil(CONTIGUOUS_S / arm.step_s)
    times_s = steps(arm, count)[count // 4 :]
    return statistics.fmean(times_s)


def rounds(found: list[Arm], length: int, seconds: float, draw: random.Random) -> tuple[np.ndarray, float]:
    """Step times by round, arm and position in the turn, and the seconds of a round."""
    begun = time.monotonic()
    taken: list[list[list[float]]] = []
    while time.monotonic() - begun < seconds or len(taken) < 4:
        turns: dict[int, list[float]] = {}
        for index in draw.sample(range(len(found)), len(found)):
            found[index].check_parked()
            time.sleep(PAUSE_S)
            turns[index] = steps(found[index], LEAD + length)
        taken.append([turns[index] for index in range(len(found))])
    return np.array(taken), (time.monotonic() - begun) / len(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="gpt2/nano")
    parser.add_argument("--arms", type=int, default=17)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    draw = random.Random(0)
    with ForkServer() as fork_server:
        found = arms(fork_server, WorkloadSpec(model=options.model), options.arms)
        print(f"{options.model}, {options.arms} arms", flush=True)
        for length in options.steps:
            some = draw.sample(found, min(4, len(found)))
            alone_s = [contiguous(arm) for arm in some]
            times_s, round_s = rounds(found, length, options.seconds, draw)
            alone_s += [contiguous(arm) for arm in some]
            show(length, times_s, round_s, statistics.fmean(alone_s))
        for arm in found:
            arm.end()


def show(length: int, times_s: np.ndarray, round_s: float, alone_s: float) -> None:
    paces = np.log(times_s[:, :, LEAD:].mean(axis=2))
    own = paces - paces.mean(axis=1, keepdims=True)
    spread = float(np.sqrt(own.var(axis=0, ddof=1).mean()))
    counted = times_s[:, :, LEAD:].sum() / (len(times_s) * round_s)
    pace = centre(np.exp(paces).ravel()[: 20000 // len(paces[0])]) or math.nan
    mean = float(np.exp(paces).mean())
    places = " ".join(f"{np.median(times_s[:, :, place]) / alone_s:.3f}" for place in range(min(6, LEAD + length)))
    print(
        f"{length:3} steps: {len(times_s):3} rounds of {round_s:.2f} s, {counted:.0%} counted; "
        f"pace {pace / alone_s:.3f} (mean {mean / alone_s:.3f}) of {alone_s * 1e3:.1f} ms alone; spread {spread:.1%}; "
        f"1 % in {spread**2 * round_s / 1e-4:.0f} s; by place {places}",
        flush=True,
    )


if __name__ == "__main__":
    main()
