"""Every way to blind the gate, tried on the gate itself: `python -m tests.mutations` prints the result of each.

A mutant is a fault that a comparison of two numbers would not notice. Each must end with a non-zero exit code. What no
machine does on demand (a hypervisor that steals time, a clock that is set) is injected into the readings of the
machine's counters. Everything else is real: revisions, processes, times.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from typer.testing import CliRunner

from bench.cli.app import app
from bench.spec import Protocol
from harness.ab import comparison
from harness.ab.pair import Pair, measure_pair
from harness.telemetry import conditions
from results import gate
from results.exit_code import ExitCode

SHORT = Protocol(
    warmup_s=0.2,
    warmup_min_steps=2,
    rounds=12,
    rounds_min=12,
    rounds_s=0.2,
    certify_steps=10,
    certify_s=1.0,
    telemetry=False,
    timeout_s=60,
)
"""Repetitions are short: the faults show within a second or two of training."""

MODEL = """
import torch
from transformers import GPT2Config, GPT2LMHeadModel


class Model(GPT2LMHeadModel):
    pass


def model():
    return Model(GPT2Config(vocab_size=260, n_positions=64, n_embd=32, n_layer=2, n_head=2))
"""

HALF_BATCH = """
    def forward(self, input_ids, labels):
        half = (len(input_ids) + 1) // 2
        return super().forward(input_ids=input_ids[:half], labels=labels[:half])
"""

SHORT_SEQUENCE = """
    def forward(self, input_ids, labels):
        return super().forward(input_ids=input_ids[:, :16], labels=labels[:, :16])
"""

CACHED_LOSS = """
    def forward(self, input_ids, labels):
        if not hasattr(self, "kept"):
            self.kept = (input_ids, labels)
        return super().forward(input_ids=self.kept[0], labels=self.kept[1])
"""

LATER_HALF = """
    calls = 0

    def forward(self, input_ids, labels):
        self.calls += 1
        kept = len(input_ids) if self.calls <= 14 else 1
        return super().forward(input_ids=input_ids[:kept], labels=labels[:kept])
"""

RESTLESS = """
    busy = None

    def forward(self, input_ids, labels):
        import threading

        def work():
            while True:
                sum(range(1000))

        if self.busy is None:
            self.busy = threading.Thread(target=work, daemon=True)
            self.busy.start()
        return super().forward(input_ids=input_ids, labels=labels)
"""

NAN = """
    calls = 0

    def forward(self, input_ids, labels):
        self.calls += 1
        found = super().forward(input_ids=input_ids, labels=labels)
        if self.calls > 4:
            found.loss = found.loss * float("nan")
        return found
"""

DIES = """
    calls = 0

    def forward(self, input_ids, labels):
        import os

        self.calls += 1
        if self.calls > 6:
            os._exit(7)
        return super().forward(input_ids=input_ids, labels=labels)
"""

FROZEN = (
    MODEL.replace("    return Model(", "    made = Model(")
    + """    for name, parameter in made.named_parameters():
        parameter.requires_grad_("h.0" not in name)
    return made
"""
)

SMALLER = MODEL.replace("n_layer=2", "n_layer=1")


def forward(body: str) -> str:
    return MODEL.replace("    pass\n", body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """`head` and `base` are the texts of train.py at the two revisions; `settings` is that of pyproject.toml at both.
    `during` is a context that is open while the gate runs."""

    name: str
    code: ExitCode
    words: str
    head: str = MODEL + "# a comment\n"
    base: str = MODEL
    settings: str = ""
    options: tuple[str, ...] = ("--model", "train.py:model", "--base", "base", "--head", "head")
    during: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext


@contextlib.contextmanager
def stranger() -> Iterator[None]:
    """Keep a core busy with a process that is not ours."""
    script = "import os\nif os.fork(): os._exit(0)\nos.setsid()\nprint(os.getpid(), flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        try:
            yield
        finally:
            os.kill(pid, 9)


def machine(**increases: Any) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """Make every numeric reading of the machine's counters this much higher than the one before."""
    real = conditions.read
    count = 0

    def read(gpus: Any) -> conditions.Reading:
        nonlocal count
        count += 1
        found = real(gpus)
        changes: dict[str, Any] = {
            name: f"{value}{count}" if isinstance(value, str) else (getattr(found, name) or 0) + count * value
            for name, value in increases.items()
        }
        return dataclasses.replace(found, **changes)

    return lambda: mock.patch.object(conditions, "read", read)


def head_times(change: Callable[[list[float]], list[float]]) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """Replace the times that the head's arm has reported."""

    def changed(*arguments: Any, **named: Any) -> Pair:
        pair = measure_pair(*arguments, **named)
        measured = pair.head.measurement
        times_s = change(measured.round_step_times_s)
        cut = {
            name: getattr(measured, name)[: len(times_s)] for name in ("round_index", "round_samples", "round_tokens")
        }
        head = dataclasses.replace(
            pair.head, measurement=dataclasses.replace(measured, round_step_times_s=times_s, **cut)
        )
        return dataclasses.replace(pair, head=head)

    return lambda: mock.patch.object(comparison, "measure_pair", changed)


MUTANTS = (
    Mutant(name="half the batch", code=ExitCode.INVALID, words="losses differ from", head=forward(HALF_BATCH)),
    Mutant(name="half the sequence", code=ExitCode.INVALID, words="losses differ from", head=forward(SHORT_SEQUENCE)),
    Mutant(name="half the batch, later", code=ExitCode.INVALID, words="losses differ", head=forward(LATER_HALF)),
    Mutant(name="one batch for ever", code=ExitCode.INVALID, words="losses differ from", head=forward(CACHED_LOSS)),
    Mutant(name="frozen parameters", code=ExitCode.INVALID, words="trained parameters", head=FROZEN),
    Mutant(name="a smaller model", code=ExitCode.INVALID, words="parameters is", head=SMALLER),
    Mutant(name="NaN loss", code=ExitCode.INVALID, words="the loss is nan", head=forward(NAN)),
    Mutant(name="a process that dies", code=ExitCode.INVALID, words="exit code 7", head=forward(DIES)),
    Mutant(name="work in the other's turn", code=ExitCode.INVALID, words="cores busy", head=forward(RESTLESS)),
    Mutant(
        name="renamed workload",
        code=ExitCode.INVALID,
        words="no function 'model'",
        head=MODEL.replace("def model", "def new_model"),
    ),
    Mutant(name="missing in the base", code=ExitCode.INVALID, words="base does not have it", base="# nothing yet\n"),
    Mutant(
        name="configured, not measured",
        code=ExitCode.INVALID,
        words="it was not measured",
        # The missing workload decides, whatever the result of the one that is measured.
        options=("--model", "train.py:model", "--base", "base", "--head", "head", "--budget", "15"),
        settings='[tool.trainpace.gate]\nharm = 0.9\n[tool.trainpace.gate.workloads."other.py:model"]\nharm = 0.1\n',
    ),
    Mutant(
        name="code that is in no checkout",
        code=ExitCode.INVALID,
        words="neither side ran any code",
        options=("--model", "gpt2/nano", "--base", "base", "--head", "head"),
    ),
    Mutant(
        name="base against itself",
        code=ExitCode.USAGE,
        words="base and head are the same",
        options=("--model", "train.py:model", "--base", "base", "--head", "base"),
    ),
    Mutant(
        name="no time to look",
        code=ExitCode.INCONCLUSIVE,
        words="inconclusive",
        options=("--model", "train.py:model", "--base", "base", "--head", "head", "--budget", "1"),
    ),
    Mutant(
        name="NaN times",
        code=ExitCode.INVALID,
        words="not numbers",
        during=head_times(lambda times: [math.nan] * len(times)),
    ),
    Mutant(
        name="unequal counts", code=ExitCode.INVALID, words="steps, head", during=head_times(lambda times: times[:3])
    ),
    Mutant(name="foreign CPU load", code=ExitCode.INVALID, words="other processes took", during=stranger),
    Mutant(name="foreign GPU load", code=ExitCode.INVALID, words="held the GPU", during=machine(gpu_processes=2)),
    Mutant(name="steal time", code=ExitCode.INVALID, words="the hypervisor took", during=machine(steal_s=0.5)),
    Mutant(name="a CPU quota", code=ExitCode.INVALID, words="the CPU quota", during=machine(throttled_s=0.5)),
    Mutant(name="a hot CPU", code=ExitCode.INVALID, words="throttled for heat", during=machine(thermal_events=1)),
    Mutant(name="a hot GPU", code=ExitCode.INVALID, words="GPU was throttled", during=machine(gpu_throttled_s=0.5)),
    Mutant(
        name="a clock that is set", code=ExitCode.INVALID, words="clock was changed", during=machine(calendar_s=-3600.0)
    ),
    Mutant(name="a clock that is slewed", code=ExitCode.INVALID, words="from the hardware", during=machine(raw_s=0.1)),
    Mutant(name="a machine that sleeps", code=ExitCode.INVALID, words="slept for", during=machine(boot_s=60.0)),
    Mutant(name="another clock", code=ExitCode.INVALID, words="clock source", during=machine(clock_source="hpet")),
)


def repository(mutant: Mutant, folder: Path) -> None:
    """Create the user's repository with a base and a head."""

    def git(*words: str) -> None:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    (folder / "pyproject.toml").write_text(mutant.settings)
    for branch, text in (("base", mutant.base), ("head", mutant.head)):
        (folder / "train.py").write_text(text)
        git("add", "-A")
        git("commit", "-q", "-m", branch)
        git("branch", branch)


def run(mutant: Mutant, folder: Path) -> tuple[int, str]:
    """The exit code of the gate, and what it printed."""
    folder.mkdir(parents=True)
    repository(mutant, folder)
    shape = ("--device", "cpu", "--batch", "4", "--sequence", "32", "--seed", "1", "--out", str(folder / "runs"))
    patches = (
        mock.patch.object(comparison, "PROTOCOL", SHORT),
        # The number of replaced repetitions is not tested here.
        mock.patch.object(gate, "MOST_DROPPED", 0),
    )
    with contextlib.chdir(folder), contextlib.ExitStack() as stack:
        for patch in (*patches, mutant.during()):
            stack.enter_context(patch)
        done = CliRunner().invoke(app, ["gate", *mutant.options, *shape])
    return done.exit_code, done.output


def main() -> None:
    print("# Every way to blind the gate\n")
    print("The output of `nox -s mutations`. Exit code 0 would be a pass. What no machine does on demand (steal")
    print("time, heat, a clock that is set, a GPU) is put into the readings of its counters; the rest is real.\n")
    print("| fault | exit code | what it says |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory(prefix="trainpace-mutations-") as folder:
        for index, mutant in enumerate(MUTANTS):
            code, output = run(mutant, Path(folder) / str(index))
            said = next((line for line in output.splitlines() if mutant.words in line), output.strip())
            print(f"| {mutant.name} | {code} | {said.replace('|', ' ')} |", flush=True)


if __name__ == "__main__":
    main()
