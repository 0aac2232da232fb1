"""Does a day that is killed give the same result? `python -m tests.day_killed --times 5`

The command trains one day to its end. Then it trains the same plan again and again, each time killed by SIGKILL at
random moments and resumed. The curve and the weights must be identical to the last bit.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.learning.long_training import read_stand
from results import day as days

UPDATES = 1200
KILLS = 2
"""The number of kills per training."""


def trained(folder: Path, kill_after_s: float | None = None) -> float:
    """Continue the day, and return how long it took; it is killed after `kill_after_s` if it runs that long."""
    begun_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", "day", "--go", "--resume", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return time.monotonic() - begun_s


def again(planned: Path, name: str) -> Path:
    """A copy of the plan in a new folder, before anything is trained."""
    folder = planned.parent / name
    folder.mkdir()
    shutil.copy(planned / "asked.json", folder)
    days.write(dataclasses.replace(days.read(planned), reached=None), folder)
    return folder


def is_the_same(one: Path, other: Path) -> bool:
    """Whether the losses of all evaluations, and the bytes of the weights, are equal."""
    curves = [
        [(point.updates, point.held_out_loss) for point in stand.points] if (stand := read_stand(folder)) else []
        for folder in (one, other)
    ]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (one, other)]
    return bool(curves[0]) and curves[0] == curves[1] and weights[0] == weights[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    asked = parser.parse_args()
    draw, same = random.Random(asked.seed), 0
    with tempfile.TemporaryDirectory(prefix="trainpace-killed-") as out:
        planning = ["day", "--model", "gpt2/nano", "--updates", str(UPDATES), "--out", out]
        subprocess.run([sys.executable, "-m", "bench", *planning], check=True, stdout=subprocess.DEVNULL)
        (planned,) = Path(out).iterdir()
        whole = again(planned, "whole")
        took_s = trained(whole)
        print(f"uninterrupted: {took_s:.1f} s", flush=True)
        for number in range(1, asked.times + 1):
            folder = again(planned, f"killed-{number}")
            moments_s = [draw.uniform(0, took_s) for _ in range(KILLS)]
            for moment_s in moments_s:
                trained(folder, moment_s)
            trained(folder)
            same += is_the_same(whole, folder)
            told = ", ".join(f"{moment_s:.1f} s" for moment_s in moments_s)
            print(
                f"{number}: killed after {told}: {'the same' if is_the_same(whole, folder) else 'ANOTHER'}", flush=True
            )
    print(f"{same} of {asked.times} killed days are the one that was not")


if __name__ == "__main__":
    main()
