"""Does recipe.py train as fast as the recipe was measured? Compares the script itself with the arm in one run.

    python -m tests.script_pace runs/RUN_ID [--repetitions 4]

In every repetition, several processes of the script train alongside a heat of the baseline and the recipe. Each is
stopped (SIGSTOP) except in its windows, which lie between the rounds of the heat, while every arm is parked. The arm's
step time is divided by the one that the script prints in these windows. All processes are fresh in each repetition.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import TracebackType

from bench.host import Host
from bench.plans import quick
from bench.recipe import read
from bench.spec import Plan
from harness.heats.sweep import Progress, Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Status
from results.pace import step_time_s
from tests.truth import show

COPIES = 4
"""Processes of the script: two processes of one program differ by some per cent for as long as they live."""

WARM_LINES = 3
ROUNDS_S = 1.6


class Script:
    """A process of the script, stopped except in its windows. Use as a context manager."""

    def __init__(self, script: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(script), "--updates", str(10**9)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )

    def warm_up(self) -> None:
        for _ in range(WARM_LINES):
            self._line_ms()
        self._process.send_signal(signal.SIGSTOP)

    def window(self) -> float:
        """Seconds per step, as printed by the script. The first line is skipped: it covers the time while stopped."""
        self._process.send_signal(signal.SIGCONT)
        self._line_ms()
        found = self._line_ms()
        self._process.send_signal(signal.SIGSTOP)
        return 1e-3 * found

    def _line_ms(self) -> float:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        told = re.search(r"([\d.]+) ms each", line)
        if told is None:
            raise RuntimeError(f"the script said {line!r}")
        return float(told[1])

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: type[BaseException] | TracebackType | BaseException | None) -> None:
        self._process.kill()
        self._process.wait()


def ratio(fork_server: ForkServer, folder: Path, repetition: int) -> float:
    """The step time of the arm over that of the script in one repetition."""
    recipe, draw = read(folder / "recipe.json"), random.Random(repetition)
    plan = Plan(
        name="script pace",
        workloads=(recipe.workload,),
        compositions=(recipe.techniques,),
        repetitions=1,
        seed=repetition,
        protocol=dataclasses.replace(quick(Host(device="cpu")).protocol, rounds_s=ROUNDS_S),
    )
    prepared = prepare(plan, fork_server)
    windows_s: dict[int, list[float]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        scripts = []
        for _ in range(COPIES):
            scripts.append(stack.enter_context(Script(folder / "recipe.py")))
            scripts[-1].warm_up()

        def between_rounds(progress: Progress) -> None:
            if progress.phase.startswith("round"):
                for index in draw.sample(range(COPIES), COPIES):
                    windows_s[index].append(scripts[index].window())

        log = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="trainpace-script-"))) / "arms.log"
        sweep = Sweep(
            prepared,
            run_id="script-pace",
            keep=lambda record: None,
            choose=lambda records: [],
            show=between_rounds,
            log=log,
        )
        sweep.run(fork_server)
    own = [record for record in sweep.records if record.techniques == recipe.label and record.status is Status.OK]
    arm_s = statistics.fmean(time_s for record in own if (time_s := step_time_s(record)))
    return arm_s / statistics.geometric_mean([statistics.fmean(found) for found in windows_s.values()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="as `trainpace tune` has left it")
    parser.add_argument("--repetitions", type=int, default=4)
    options = parser.parse_args()
    with ForkServer() as fork_server:
        logs = []
        for repetition in range(options.repetitions):
            logs.append(math.log(ratio(fork_server, options.folder, repetition)))
            print(f"  {repetition}: step time of the arm / of the script {math.exp(logs[-1]):.3f}", flush=True)
    show("step time of the arm / of the script", logs)


if __name__ == "__main__":
    main()
