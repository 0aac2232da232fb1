"""Predicts how long an update of each composition takes on this machine's CPU, before anything runs.

The time of an operator is measured once and kept for the machine: compositions, sizes and later predictions share it.
The machine must have nothing else to do meanwhile, which is checked.
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
"""After this time a process that times operators ends, its times are kept, and the machine is checked for other
load."""

LASTING = ("aten", "prim")
"""Namespaces of torch's own operators."""

PATIENCE_S = 60.0
"""How long timing the operators of a workload may take. The others are timed the next time they are asked for."""

BESIDE = 1.05
"""An update takes this many times as long as all its operators, in the median of those measured (docs/before.md): the
loop, autograd and the loader take time too, and sometimes something else on the machine."""

LOW, HIGH = 0.83, 1.3
"""Factors on the prediction between which 96 % of the measured updates lay, and about nine in ten of a workload that
was not measured (docs/before.md)."""

BOUNDS = (
    "These bounds held nine in ten predicted step times on an AMD EPYC and an Intel Xeon, each with two cores "
    "(docs/before.md)."
)

SURE = 1.1
"""Speed-ups closer to 1 than this are not reported: their predictions are too inexact (docs/before.md)."""


def is_sure(speedup: float) -> bool:
    """Whether a predicted speed-up is far enough from 1."""
    return abs(math.log(speedup)) > math.log(SURE)


Show = Callable[[int], object]


def silent(_: object) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an update takes, or the `reason` why that is not known."""

    step_time_s: float | None = None
    reason: str | None = None

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """The interval that holds about nine of ten updates."""
        return None if self.step_time_s is None else (LOW * self.step_time_s, HIGH * self.step_time_s)


NOT_ASKED = Pace(reason="it was not asked for")

BESIDE_OPERATORS = Pace(reason="its operators are the baseline's: it changes only what happens between them")


class Pacing:
    """Predicts the pace of compositions on one machine, the host of the `question`. Works only on a CPU."""

    def __init__(self, question: Question, machine_id: str, fork_server: ForkServer, show: Show = silent) -> None:
        """`show` receives the number of operators of a workload that are not timed yet, before their timing begins."""
        self._question, self._fork_server, self._show = question, fork_server, show
        self._operators = Operators(machine_id, question.packages, fork_server)

    def of(self, entry: Entry, compositions: Sequence[tuple[str, ...]]) -> list[Pace]:
        """The pace of each composition of a workload. Unknown if its operators are the baseline's: what it changes lies
        between them."""
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
    """The time of each operator on a machine, as far as it was measured; None in `times_s` for those that cannot be
    timed. `disturbed` says what else the machine had to do, if times were discarded for that."""

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
        """The calls that have not been timed yet."""
        return [call for call in dict.fromkeys(calls) if call not in self.times_s]

    def learn(self, calls: Iterable[str], deadline_s: float) -> None:
        """Time the missing calls, small ones first, until `deadline_s` on the clock of time.monotonic."""
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
        """The times of the first calls, as many as there was time for, and what else the machine had to do. A call that
        ends its process, or takes too long, cannot be timed."""
        gpus = Gpus("cpu", ())
        with temporary.folder("operators") as folder:
            asked, answered = folder / ASKED, folder / ANSWERED
            asked.write_text(json.dumps(list(calls)), encoding="utf-8")
            before, failed = conditions.read(gpus), False
            arguments = {"folder": str(folder), "seconds": min(left_s, WATCH_S)}
            try:
                self._fork_server.run("harness.prediction.pace:time_operators", arguments, left_s + PATIENCE_S)
            except (ArmFailed, ValueError) as failure:
                # Lack of memory is no verdict: there may be enough next time.
                failed = not (isinstance(failure, ArmFailed) and failure.status is Status.OOM)
            disturbances = conditions.disturbances(before, conditions.read(gpus), arms=0)
            # A killed process may have left part of a line.
            *lines, _ = answered.read_text(encoding="utf-8").split("\n") if answered.exists() else [""]
        found: list[float | None] = [json.loads(line) for line in lines]
        if failed and len(found) < len(calls):
            found.append(None)
        return found, "; ".join(disturbances) or None

    def _keep(self) -> None:
        """Keep the times for reuse, if there is a place for them. A user's own operators may change meanwhile, so they
        are left out."""
        lasting = {call: time_s for call, time_s in self.times_s.items() if name(call).partition(".")[0] in LASTING}
        with contextlib.suppress(OSError):
            text = json.dumps(lasting)
            write_atomically(self._file, lambda partial: Path(partial).write_text(text, encoding="utf-8"))


def _elements(call: str) -> int:
    """The elements of all its tensors."""
    return sum(math.prod(shape) for shape, _, _ in tensors(call))
