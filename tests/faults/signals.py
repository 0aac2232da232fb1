"""A run that is ended at a random moment and resumed: nothing is lost or duplicated."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from pathlib import Path

import psutil

from results import folders
from tests.faults import Ground, fault
from tests.faults.runs import GONE_S, command, finished, sound, started, whole

EARLIEST_S = 0.5
"""Seconds between start and signal at the earliest: before everything is imported. The latest is how long a run takes.
"""

INTERRUPTED = 130


def ended_at_random(ground: Ground, number: signal.Signals) -> str:
    """End runs at as many random moments as requested. Each resumes the one before, or is new if that had finished.
    Then let the last one finish."""
    draw = random.Random(number)
    begun_s = time.monotonic()
    assert finished(*command(ground, ground.folder / "uninterrupted")).returncode == 0
    latest_s = time.monotonic() - begun_s
    folder: Path | None = None
    reports, ends = 0, 0
    for _ in range(ground.moments):
        words = command(ground, ground.folder / "runs") if folder is None else ["run", "--resume", str(folder)]
        with started(*words) as run:
            try:
                run.wait(draw.uniform(EARLIEST_S, latest_s))
                ends += 1
            except subprocess.TimeoutExpired:
                family = psutil.Process(run.pid).children(recursive=True)
                run.send_signal(number)
                _, said = run.communicate(timeout=60)
                assert run.returncode in (-number, INTERRUPTED), f"exit code {run.returncode}: {said[-1000:]}"
                assert not psutil.wait_procs(family, timeout=GONE_S)[1]
        made = sorted((ground.folder / "runs").glob("*/plan.json"))
        folder = made[-1].parent if made else None
        if folder is not None and folders.has_records(folder):
            sound(folder)
            if number is not signal.SIGKILL:
                assert (folder / "report.html").exists()
            reports += (folder / "report.html").exists()
        if folder is not None and (folder / "records" / "_manifest.json").exists():
            whole(folder)
            folder = None
    if folder is not None:
        last = finished("run", "--resume", folder)
        assert last.returncode == 0, last.stderr[-1000:]
        whole(folder)
    return (
        f"{ground.moments} moments, {ends} of them after the end: every part readable, no arm twice, a report after "
        f"{reports}; resumed, the arms are those of an uninterrupted run"
    )


@fault("signals", "SIGINT at random moments")
def interrupted(ground: Ground) -> str:
    return ended_at_random(ground, signal.SIGINT)


@fault("signals", "SIGTERM at random moments")
def terminated(ground: Ground) -> str:
    return ended_at_random(ground, signal.SIGTERM)


@fault("signals", "SIGKILL at random moments")
def killed(ground: Ground) -> str:
    return ended_at_random(ground, signal.SIGKILL)
