"""A small run as a user starts it, in a process of its own that can be ended."""

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
"""More than a run takes."""

GONE_S = 5.0


def command(ground: Ground, out: Path) -> list[str]:
    """The words of a run into a folder of `out`."""
    techniques = [word for label in LABELS[1:] for word in ("--technique", label)]
    shape = ["--model", "gpt2/nano", "--batch", "8", "--sequence", "32", "--data", str(ground.text), "--device", "cpu"]
    return ["run", *shape, *techniques, "--repetitions", str(REPETITIONS), "--out", str(out)]


def finished(*words: object) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
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
    """The command, as long as the block lasts. Asserts that nothing of it is left then."""
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
    """Read what it prints up to a line with these words."""
    assert process.stdout is not None
    seen = []
    for line in iter(process.stdout.readline, ""):
        seen.append(line)
        if words in line:
            return
    raise AssertionError(f"it ended before it said {words!r}: {''.join(seen)[-500:]}")


def sound(folder: Path) -> list[Record]:
    """The records of a run, of which no file is damaged and no arm there twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DamagedRecords)
        records = store.read(folder)
    counted = Counter((item.techniques, item.repetition, item.copy, item.heat_part) for item in records)
    assert max(counted.values()) == 1, counted
    return records


def whole(folder: Path) -> list[Record]:
    """The same of a run that has come to its end: every arm has its repetitions, and the report is there."""
    records = sound(folder)
    for label in LABELS:
        taken = {item.repetition for item in records if item.techniques == label and not item.disturbed}
        assert len(taken) >= REPETITIONS, (label, taken)
    assert (folder / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")
    return records


def last_line(text: str) -> str:
    """Of what it said on standard error, which is to be one line of ours."""
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines and lines[-1].startswith("trainpace: "), text[-1000:]
    assert "Traceback" not in text, text[-2000:]
    return lines[-1]
