"""A small run as a user starts it, in a separate process that can be ended."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from bench.causes import DamagedRecords
from harness.record import Record
from results import store
from tests import ROOT
from tests.faults import Ground

LABELS = ("fp32", "adamw_foreach", "accumulate_2")
REPETITIONS = 2
ALL_S = 300.0
"""A timeout in seconds, longer than a run takes."""

GONE_S = 5.0


def command(ground: Ground, out: Path) -> list[str]:
    """The command of a run into a folder of `out`."""
    techniques = [word for label in LABELS[1:] for word in ("--technique", label)]
    shape = ["--model", "gpt2/nano", "--batch", "8", "--sequence", "32", "--data", str(ground.text), "--device", "cpu"]
    return ["run", *shape, *techniques, "--repetitions", str(REPETITIONS), "--out", str(out)]


def finished(*words: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=ALL_S,
        check=False,
    )


@contextmanager
def started(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Run the command while the block lasts, and assert that nothing of it is left afterwards."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        family: list[psutil.Process] = []
        try:
            yield process
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
    assert not psutil.wait_procs(family, timeout=GONE_S)[1]


def until(process: subprocess.Popen[str], words: str) -> None:
    """Read the output up to a line with these words."""
    assert process.stdout is not None
    seen = []
    for line in iter(process.stdout.readline, ""):
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}: {''.join(seen)[-500:]}")


def sound(folder: Path) -> list[Record]:
    """The records of a run. Assert that no file is damaged and no arm recorded twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedRecords)
        records = store.read(folder)
    counted = Counter((item.techniques, item.repetition, item.copy, item.heat_part) for item in records)
    assert max(counted.values()) == 1, counted
    return records


def whole(folder: Path) -> list[Record]:
    """The records of a finished run. Assert also that every arm has its repetitions, and that there is a report."""
    records = sound(folder)
    for label in LABELS:
        taken = {item.repetition for item in records if item.techniques == label and not item.disturbed}
        assert len(taken) >= REPETITIONS, (label, taken)
    assert (folder / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    return records


def last_line(text: str) -> str:
    """The last line of standard error, which must be a single line of our own."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines and lines[-1].startswith("trainpace: "), text[-1000:]
    assert "Traceback" not in text, text[-2000:]
    return lines[-1]
