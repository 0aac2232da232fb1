"""Checks of the command line, in separate processes: a smoke run, and a gate of a base against itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

from bench.spec import WorkloadSpec
from harness.record import Status
from reports.wording.quantity import ratio_interval
from results import calibration, store
from results.decision import LOOKS, Verdict
from results.folders import has_records
from tests import ROOT
from tests.gpu_acceptance.rows import failed, judged, not_run
from tests.gpu_acceptance.stand import Stand

SPEC = WorkloadSpec(model="gpt2/mini", batch=32, sequence=512)
"""The gate's workload: so small that a repetition takes little more than its six seconds of steps in turn."""

REPETITION_S = 16.0
"""The estimated time of a repetition on a GPU: imports 5, two contexts with model and warm-up 5, steps in turn 6."""

OUTSIDE_S = 10.0
"""The estimated time of a gate beyond its budget: its start, and a last repetition longer than the others."""

WITHIN_S = 16.0
"""The estimated time within a gate's budget besides repetitions: preparing both sides 8, the first one's replay 8."""

GATE_S = OUTSIDE_S + WITHIN_S + min(LOOKS) * REPETITION_S
"""The estimated time of a gate up to its first look."""


def trainpace(stand: Stand, *words: str, **environment: str) -> tuple[int, str]:
    """The exit code of a command and its output. If this call is interrupted, the command is ended too."""
    command = [sys.executable, "-m", "bench", *words, *(word for file in stand.modules for word in ("--plugin", file))]
    options = {"cwd": ROOT, "env": os.environ | environment, "text": True, "start_new_session": True}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, **options) as process:  # type: ignore[call-overload]
        try:
            output: str = process.communicate()[0]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def _failure(code: int, output: str) -> str:
    lines = output.strip().splitlines() or ["nothing was printed"]
    return f"exit code {code}: {lines[-1]}"


def smoke(stand: Stand) -> None:
    """The plan `smoke` from end to end, once: the question is whether it runs."""
    out = stand.folder / "smoke"
    options = ("--device", stand.device, "--repetitions", "1", "--out", str(out))
    code, output = trainpace(stand, "run", "smoke", *options)
    folders = list(out.iterdir()) if out.exists() else []
    if not folders or not has_records(folders[0]):
        stand.tell(failed("smoke", _failure(code, output)))
        return
    records = store.read(folders[0])
    ended = Counter(record.status for record in records)
    bad = [f"{record.techniques}: {record.reason}" for record in records if record.status is not Status.OK]
    seen = ", ".join([f"exit code {code}", *(f"{count} {status}" for status, count in ended.items()), *bad])
    stand.tell(judged("smoke", seen, "exit code 0, all ok", holds=code == 0 and not bad))


def gate(stand: Stand) -> None:
    """A base against itself through the code path of every gate: with --calibrate, because a gate refuses sides that do
    not differ. The outcome is not kept for later gates."""
    spec = stand.spec if stand.is_small else SPEC
    kept = stand.folder / "gate-kept"
    shape = ("--batch", str(spec.batch), "--sequence", str(spec.sequence), "--device", stand.device)
    budget_s = 1.0 if stand.is_small else max(1.0, stand.left_s - OUTSIDE_S)
    budget = ("--budget", f"{budget_s:.0f}", "--out", str(stand.folder / "gate"))
    words = ("gate", "--model", spec.model, "--calibrate", "1", "--slowdown", "0", *shape, *budget)
    code, output = trainpace(stand, *words, XDG_DATA_HOME=str(kept))
    files = list(kept.rglob("*.jsonl"))
    if code or not files:
        stand.tell(failed("gate of a base against itself", _failure(code, output)))
        return
    outcome = calibration.read(files[0])[0]
    found = "" if outcome.ratio is None else f" {ratio_interval(outcome.ratio, outcome.ratio_low, outcome.ratio_high)}"
    counts = f"{outcome.repetitions} repetitions, {outcome.dropped} dropped"
    seen = "; ".join([f"{outcome.verdict}{found}, {counts}", *outcome.reasons])
    if outcome.verdict is Verdict.INCONCLUSIVE and not outcome.looked:
        stand.tell(not_run("gate of a base against itself", f"no time left for {min(LOOKS)} repetitions; {seen}"))
    else:
        stand.tell(judged("gate of a base against itself", seen, "pass", holds=outcome.verdict is Verdict.PASS))
