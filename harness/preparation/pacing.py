"""How long an update of each composition will take on this machine's CPU, told before anything runs.

What an operator takes is measured once and kept for the machine: compositions, sizes and later times share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.corpus import cache_folder, write_atomically
from harness.message import Message
from harness.preparation.predicting import Question, predictions
from harness.preparation.prepared import Entry, Prepared
from harness.processes.fork_server import ArmFailed, ForkServer
from harness.record import Status

AT_ONCE = 50
"""Operators that are timed by one process, and kept before the next ones."""

PATIENCE_S = 60.0
"""What timing the operators of a workload may take. The others are timed when they are asked for once more."""

BESIDE = 1.08
"""By so much longer than its operators together is an update, the median of those that were measured (docs/before.md):
there are the loop, autograd and the loader, and now and then something else on the machine."""

LOW, HIGH = 0.9, 1.2
"""Of ten updates nine took between so many times what was predicted (docs/before.md)."""


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
        """What nine of ten predictions hold."""
        return None if self.step_time_s is None else (LOW * self.step_time_s, HIGH * self.step_time_s)


NOT_ASKED = Pace(reason="it was not asked for")


class Pacing:
    """Predicts the paces of compositions, on one machine. `question` says of which host; on other than a CPU nothing is
    known. The machine must have nothing else to do."""

    def __init__(self, question: Question, machine_id: str, fork_server: ForkServer, show: Show = silent) -> None:
        """`show` is told how many operators of a workload are still to be timed, before that begins."""
        self._question, self._fork_server, self._show = question, fork_server, show
        self._operators = Operators(machine_id, question.packages, fork_server)

    def of(self, entry: Entry, compositions: Sequence[tuple[str, ...]]) -> list[Pace]:
        """The pace of each composition of a workload."""
        if self._question.host.device != "cpu":
            return [Pace(reason="step times are predicted on a CPU alone")] * len(compositions)
        answers = predictions(self._question, entry, compositions, self._fork_server)
        counted: list[Mapping[str, int]] = [answer.get("calls", {}) for answer in answers]
        missing = self._operators.missing(itertools.chain.from_iterable(counted))
        if missing:
            self._show(len(missing))
        deadline_s = time.monotonic() + PATIENCE_S
        for calls in counted:
            self._operators.learn(calls, deadline_s)
        return [self._pace(answer) for answer in answers]

    def _pace(self, answer: Message) -> Pace:
        if "reason" in answer:
            return Pace(reason=answer["reason"])
        calls: Mapping[str, int] = answer["calls"]
        if missing := self._operators.missing(calls):
            late = f"{len(missing)} of its {len(calls)} operators were not timed within {PATIENCE_S:.0f} s"
            return Pace(reason=f"{late}: ask once more, what was timed is kept")
        times_s = {call: self._operators.times_s[call] for call in calls}
        untimed = sorted({json.loads(call)[0] for call, time_s in times_s.items() if time_s is None})
        if untimed:
            return Pace(reason=f"{', '.join(untimed)} cannot be timed by itself")
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
    be timed."""

    def __init__(self, machine_id: str, packages: Mapping[str, str], fork_server: ForkServer) -> None:
        code = Path(__file__).parents[1] / "prediction" / "pace.py"
        facts = (machine_id, sorted(packages.items()), code.read_bytes())
        name = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        self._file = cache_folder() / "operators" / f"{name}.json"
        self._fork_server = fork_server
        self.times_s: dict[str, float | None] = {}
        with contextlib.suppress(OSError, ValueError):
            self.times_s = json.loads(self._file.read_text(encoding="utf-8"))

    def missing(self, calls: Iterable[str]) -> list[str]:
        """Those that have not been timed yet."""
        return [call for call in dict.fromkeys(calls) if call not in self.times_s]

    def learn(self, calls: Iterable[str], deadline_s: float) -> None:
        """Time those that are missing, the small ones first, until this moment of time.monotonic."""
        missing = sorted(self.missing(calls), key=_elements)
        for first in range(0, len(missing), AT_ONCE):
            self._time(missing[first : first + AT_ONCE], deadline_s)

    def _time(self, calls: Sequence[str], deadline_s: float) -> None:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            return
        try:
            found = self._fork_server.run("harness.prediction.pace:time_operators", {"calls": calls}, left_s)
        except (ArmFailed, ValueError) as failure:
            if isinstance(failure, ArmFailed) and failure.status is Status.TIMEOUT:
                return
            if len(calls) > 1:
                # One of them has ended the process: the others are asked each by itself.
                for call in calls:
                    self._time([call], deadline_s)
                return
            found = [None]
        self.times_s |= dict(zip(calls, found, strict=True))
        self._keep()

    def _keep(self) -> None:
        """For the next time, where there is a place to keep it."""
        with contextlib.suppress(OSError):
            text = json.dumps(self.times_s)
            write_atomically(self._file, lambda partial: Path(partial).write_text(text, encoding="utf-8"))


def _elements(call: str) -> int:
    """Of its tensors together."""
    return sum(math.prod(told["tensor"][0]) for told in _tensors(json.loads(call)))


def _tensors(told: Any) -> Iterator[Message]:
    match told:
        case {"tensor": _}:
            yield told
        case {"named": items}:
            yield from _tensors(list(items.values()))
        case list():
            for item in told:
                yield from _tensors(item)
