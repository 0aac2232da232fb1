"""How long an update of each composition will take on this machine's CPU, told before anything runs.

What an operator takes is measured once and kept for the machine: compositions, sizes and later times share it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.corpus import cache_folder, write_atomically
from harness.message import Message
from harness.preparation.predicting import Question, predictions
from harness.preparation.prepared import TASK_TIMEOUT_S, Prepared
from harness.processes.fork_server import ArmFailed, ForkServer

AT_ONCE = 50
"""Operators that are timed by one process, and kept before the next ones."""

LOW, HIGH = 0.9, 1.2
"""Of ten updates nine took between so many times what was predicted (docs/before.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long an update takes, or the `reason` why that is not known."""

    step_time_s: float | None = None
    reason: str | None = None

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """What nine of ten predictions hold."""
        return None if self.step_time_s is None else (LOW * self.step_time_s, HIGH * self.step_time_s)


def paces_of(
    prepared: Prepared, fork_server: ForkServer, show: Callable[[int, int], object] = lambda done, total: None
) -> dict[tuple[str, str], Pace]:
    """The pace of every arm that can run, by workload and label; on other than a CPU nothing is known. The machine must
    have nothing else to do. `show` is told how many of how many operators of a workload have been timed."""
    question = Question(
        task="count_operators",
        host=prepared.host,
        seed=prepared.plan.seed,
        packages=prepared.machine.packages,
    )
    operators = Operators(prepared.machine.machine_id, question.packages)
    found: dict[tuple[str, str], Pace] = {}
    for each in prepared.entries:
        trials = prepared.trials(each)
        if prepared.host.device != "cpu":
            answers: list[Message] = [{"reason": "step times are predicted on a CPU alone"}] * len(trials)
        else:
            answers = predictions(question, each, [trial.techniques for trial in trials], fork_server)
        wanted = dict.fromkeys(itertools.chain.from_iterable(answer.get("calls", ()) for answer in answers))
        known_s = operators.times_s(wanted, fork_server, show)
        for trial, answer in zip(trials, answers, strict=True):
            found[each.spec.name, trial.label] = _pace(answer, known_s)
    return found


def _pace(answer: Message, known_s: Mapping[str, float | None]) -> Pace:
    if "reason" in answer:
        return Pace(reason=answer["reason"])
    calls: Mapping[str, int] = answer["calls"]
    untimed = sorted({json.loads(call)[0] for call in calls if known_s[call] is None})
    if untimed:
        return Pace(reason=f"{', '.join(untimed)} cannot be timed by itself")
    return Pace(step_time_s=sum(count * (known_s[call] or 0.0) for call, count in calls.items()))


class Operators:
    """What each operator takes on a machine, as far as that has been measured."""

    def __init__(self, machine_id: str, packages: Mapping[str, str]) -> None:
        code = Path(__file__).parents[1] / "prediction" / "pace.py"
        facts = (machine_id, sorted(packages.items()), code.read_bytes())
        name = hashlib.sha256(repr(facts).encode()).hexdigest()[:24]
        self._file = cache_folder() / "operators" / f"{name}.json"
        self._times_s: dict[str, float | None] = {}
        with contextlib.suppress(OSError):
            self._times_s = json.loads(self._file.read_text(encoding="utf-8"))

    def times_s(
        self, wanted: Iterable[str], fork_server: ForkServer, show: Callable[[int, int], object]
    ) -> Mapping[str, float | None]:
        """Of each that is wanted the seconds, None where it cannot be timed."""
        missing = [call for call in wanted if call not in self._times_s]
        for first in range(0, len(missing), AT_ONCE):
            show(first, len(missing))
            self._learn(missing[first : first + AT_ONCE], fork_server)
        return self._times_s

    def _learn(self, calls: Sequence[str], fork_server: ForkServer) -> None:
        try:
            found = fork_server.run("harness.prediction.pace:time_operators", {"calls": calls}, TASK_TIMEOUT_S)
        except (ArmFailed, ValueError):
            if len(calls) == 1:
                found = [None]
            else:
                # One of them has ended the process: the others are asked each by itself.
                for call in calls:
                    self._learn([call], fork_server)
                return
        self._times_s |= dict(zip(calls, found, strict=True))
        self._keep()

    def _keep(self) -> None:
        """For the next time, where there is a place to keep it."""
        with contextlib.suppress(OSError):
            text = json.dumps(self._times_s)
            write_atomically(self._file, lambda partial: Path(partial).write_text(text, encoding="utf-8"))
