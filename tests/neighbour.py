"""`run` next to other programs: it must not mistake their effect on the arms for that of the techniques.

    python -m tests.neighbour [--runs 20]

Runs the command line as a user does, in turn next to one busy program, two, and one that is busy for three seconds of
every eight. The arms are techniques that a neighbour affects differently (ranks of one thread each) and idle copies of
the baseline. A quiet run comes first. A direction is false if an idle copy has one, or if a technique has one that the
quiet run does not show. A line per run says what it claimed, and the last line has the counts.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import ROOT

TECHNIQUES = ("parameter_server", "ddp_2", "adamw_fused", "idle_1", "idle_2")
BUSY = "while True: pass"
NOW_AND_THEN = """
import time
while True:
    until = time.monotonic() + 3
    while time.monotonic() < until: pass
    time.sleep(5)
"""
NEIGHBOURS = {"one busy program": (BUSY,), "two busy programs": (BUSY, BUSY), "one now and then": (NOW_AND_THEN,)}
DIRECTIONS = ("faster", "slower")


@contextlib.contextmanager
def beside(programs: tuple[str, ...]) -> Iterator[None]:
    """Run these programs while the context is open."""
    started = [subprocess.Popen([sys.executable, "-c", program]) for program in programs]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def run(folder: Path) -> list[dict[str, Any]]:
    """The rows of one run from the command line."""
    plugin = folder / "idle.py"
    plugin.write_text((ROOT / "bench" / "idle.py").read_text())
    options = [word for name in TECHNIQUES for word in ("--technique", name)]
    command = [sys.executable, "-m", "bench", "run", "--model", "gpt2/nano", *options, "--plugin", str(plugin)]
    command += ["--repetitions", "4", "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    made = next(folder.glob("*/records"), None)
    if made is None:
        raise RuntimeError(done.stderr)
    compared = [sys.executable, "-m", "bench", "compare", str(made.parent), "--format", "json"]
    rows: list[dict[str, Any]] = json.loads(
        subprocess.run(compared, capture_output=True, text=True, env=environment, check=True).stdout
    )
    return [row for row in rows if row["techniques"] != "fp32"]


def claims(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["techniques"]: row["verdict"] for row in rows if row["verdict"] in DIRECTIONS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="trainpace-neighbour-") as scratch:
        quiet = run(_folder(scratch, "quiet"))
        print("quiet:", _words(quiet), flush=True)
        for number, name in zip(range(options.runs), itertools.cycle(NEIGHBOURS)):
            with beside(NEIGHBOURS[name]):
                rows = run(_folder(scratch, str(number)))
            told = claims(rows)
            false = [label for label, verdict in told.items() if verdict != claims(quiet).get(label, "none")]
            wrong += bool(false)
            print(f"{number + 1}, {name}: {_words(rows)}{f'; FALSE: {false}' if false else ''}", flush=True)
    print(f"{wrong} of {options.runs} runs beside a neighbour had a direction that the quiet run does not have")


def _folder(scratch: str, name: str) -> Path:
    folder = Path(scratch) / name
    folder.mkdir()
    return folder


def _words(rows: list[dict[str, Any]]) -> str:
    dropped, kept = max(row["dropped"] for row in rows), max(row["repetitions"] for row in rows)
    said = ", ".join(f"{label} {verdict}" for label, verdict in claims(rows).items()) or "nothing claimed"
    return f"{kept} repetitions, {dropped} dropped: {said}"


if __name__ == "__main__":
    main()
