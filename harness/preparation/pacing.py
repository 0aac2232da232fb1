"""How long an update of each composition will take on this machine's CPU, told before anything runs.

What an operator takes is measured once and kept for the machine: compositions, sizes and later times share it. The
machine must have nothing else to do meanwhile, and it is looked at whether it has.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import temporary
from bench.corpus import cache_folder, write_atomically
from harness.message import Message
from harness.prediction.calls import ANSWERED, ASKED, name, tensors
from harness.preparation.predicting import Question, predictions
from harness.preparation.prepared import Entry, Prepared
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer
from harness.record import Status
from harness.telemetry import conditions
from harness.telemetry.gpus import Gpus

WATCH_S = 10.0
"""After so long a process of those that time operators ends, what it has timed is kept, and it is looked at what else
the machine had to do."""

LASTING = ("aten", "prim")
"""Namespaces of torch's own operators."""

PATIENCE_S = 60.0
"""What timing the operators of a workload may take. The others are timed when they are asked for once more."""

BESIDE = 1.05
"""By so much longer than its operators together is an update, the median of those that were measured (docs/before.md):
there are the loop, autograd and the loader, and now and then something else on the machine."""

LOW, HIGH = 0.83, 1.3
"""Between so many times what was predicted 96 % of the updates took that were measured, and about nine in ten of a
workload that was not (docs/before.md)."""

BOUNDS = (
    "These bounds held nine in ten predicted step times on an AMD EPYC and an Intel Xeon, each with two cores "
    "(docs/before.md)."
)

SURE = 1.1
"""Speed-ups nearer to 1 are not told: what is predicted of them is too far off for that (docs/before.md)."""


def is_sure(speedup: float) -> bool:
    """Whether a predicted one is far enough from 1."""
    return abs(math.log(speedup)) > math.log(SURE)


Show = Callable[[int], object]


def silent(_: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an update takes, or the `reason` why that is not known."""

    step_time_s: float | None = None
    reason: str | None = None

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """What holds about nine updates of ten."""
        return None if self.step_time_s is None else (LOW * self.step_time_s, HIGH * self.step_time_s)


NOT_ASKED = Pace(reason="it was not asked for")

BESIDE_OPERATORS = Pace(reason="its operators are the baseline's: it changes only what happens between them")


class Pacing:
    """Predicts the paces of compositions, on one machine. `question` says of which host; on other than a CPU nothing is
    known."""

    def __init__(self, question: Question, machine_id: str, fork_server: ForkServer, show: Show = silent) -> None:
        """`show` is told how many operators of a workload are still to be timed, before that begins."""
        self._question, self._fork_server, self._show = question, fork_server, show
        self._operators = Operators(machine_id, question.packages, fork_server)

    def of(self, entry: Entry, compositions: Sequence[tuple[str, ...]]) -> list[Pace]:
        """The pace of each composition of a workload. Of one whose operators are the baseline's it is not known: what
        it changes is beside them."""
        if self._question.host.device != "cpu":
            return [Pace(reason="step times are predicted only on a CPU")] * len(compositions)
        asked = list(dict.fromkeys([(), *compositions]))
        told = dict(zip(asked, predictions(self._question, entry, asked, self._fork_server), strict=True))
        plain, answers = told[()], [told[names] for names in compositions]
        counted: list[Mapping[str, int]] = [answer.get("calls", {}) for answer in answers]
        missing = self._operators.missing(itertools.chain.from_iterable(counted))
        if missing:
            self._show(len(missing))
        deadline_s = time.monotonic() + PATIENCE_S
        for calls in counted:
            self._operators.learn(calls, deadline_s)
        return [
            BESIDE_OPERATORS if names and calls and calls == plain.get("calls") else self._pace(answer)
            for names, calls, answer in zip(compositions, counted, answers, strict=True)
        ]

    def _pace(self, answer: Message) -> Pace:
        if "reason" in answer:
            return Pace(reason=answer["reason"])
        calls: Mapping[str, int] = answer["calls"]
        if missing := self._operators.missing(calls):
            late = f"{len(missing)} of its {len(calls)} operators were not timed within {PATIENCE_S:.0f} s"
            return Pace(reason=self._operators.disturbed or f"{late}: ask again, what was timed is kept")
        times_s = {call: self._operators.times_s[call] for call in calls}
        untimed = sorted({name(call) for call, time_s in times_s.items() if time_s is None})
        if untimed:
            return Pace(reason=f"{', '.join(untimed)} cannot be timed by itself within {PATIENCE_S:.0f} s")
        return Pace(step_time_s=BESIDE * sum(count * (times_s[call] or 0.0) for call, count in calls.items()))


def paces_of(prepared: Prepared, fork_server: ForkServer, show: Show = silent) -> dict[tuple[str, str], Pace]:
    """The pace of every arm that can run, by workload and label."""
    question = Question(
        task="count_operators",
        host=prepared.host,
        seed=prepared.plan.seed,
        packages=prepared.machine.packages,
    )
    pacing = Pacing(question, prepared.machine.machine_id, fork_server, show)
    found: dict[tuple[str, str], Pace] = {}
    for entry in prepared.entries:
        trials = prepared.trials(entry)
        told = pacing.of(entry, [trial.techniques for trial in trials])
        found |= {(entry.spec.name, trial.label): pace for trial, pace in zip(trials, told, strict=True)}
    return found


class Operators:
    """What each operator takes on a machine, as far as that has been measured: `times_s` has None for those that cannot
    be timed. `disturbed` says what else the machine had to do, where times were not taken for that."""

    def __init__(self, machine_id: str, packages: Mapping[str, str], fork_server: ForkServer) -> None:
        code = Path(__file__).parents[1] / "prediction" / "pace.py"
        facts = (machine_id, sorted(packages.items()), code.read_bytes())
        digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        self._file = cache_folder() / "operators" / f"{digest}.json"
        self._fork_server = fork_server
        self.disturbed: str | None = None
        self.times_s: dict[str, float | None] = {}
        with contextlib.suppress(OSError, ValueError):
            self.times_s = json.loads(self._file.read_text(encoding="utf-8"))

    def missing(self, calls: Iterable[str]) -> list[str]:
        """Those that have not been timed yet."""
        return [call for call in dict.fromkeys(calls) if call not in self.times_s]

    def learn(self, calls: Iterable[str], deadline_s: float) -> None:
        """Time those that are missing, the small ones first, until this moment of time.monotonic."""
        missing = sorted(self.missing(calls), key=_elements)
        while missing and (left_s := deadline_s - time.monotonic()) > 0:
            found, disturbed = self._timed(missing, left_s)
            if disturbed:
                self.disturbed = f"operators were timed while {disturbed}: ask again when nothing else runs here"
                return
            self.times_s |= dict(zip(missing, found, strict=False))
            missing = missing[len(found) :]
            self._keep()
            if not found:
                # There is no memory for the next one.
                return

    def _timed(self, calls: Sequence[str], left_s: float) -> tuple[list[float | None], str | None]:
        """What the first of the calls take, as many as there was time for; and what else the machine had to do. One
        that ends its process, or takes longer than anyone waits for, cannot be timed."""
        gpus = Gpus("cpu", ())
        with temporary.folder("operators") as folder:
            asked, answered = folder / ASKED, folder / ANSWERED
            asked.write_text(json.dumps(list(calls)), encoding="utf-8")
            before, failed = conditions.read(gpus), False
            arguments = {"folder": str(folder), "seconds": min(left_s, WATCH_S)}
            try:
                self._fork_server.run("harness.prediction.pace:time_operators", arguments, left_s + PATIENCE_S)
            except (ArmFailed, ValueError) as failure:
                # Whether there is memory for it is another matter the next time.
                failed = not (isinstance(failure, ArmFailed) and failure.status is Status.OOM)
            disturbances = conditions.disturbances(before, conditions.read(gpus), arms=0)
            # A process that was ended may have left part of a line.
            *lines, _ = answered.read_text(encoding="utf-8").split("\n") if answered.exists() else [""]
        found: list[float | None] = [json.loads(line) for line in lines]
        if failed and len(found) < len(calls):
            found.append(None)
        return found, "; ".join(disturbances) or None

    def _keep(self) -> None:
        """For the next time, where there is a place to keep it. Operators that a user brings may change meanwhile."""
        lasting = {call: time_s for call, time_s in self.times_s.items() if name(call).partition(".")[0] in LASTING}
        with contextlib.suppress(OSError):
            text = json.dumps(lasting)
            write_atomically(self._file, lambda partial: Path(partial).write_text(text, encoding="utf-8"))


def _elements(call: str) -> int:
    """Of its tensors together."""
    return sum(math.prod(shape) for shape, _, _ in tensors(call))
