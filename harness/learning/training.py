"""One training from its first update to its last, in its own process."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from bench.composition import compose, ranks
from bench.corpus import Part
from bench.host import Host
from bench.spec import Phase
from harness.learning.course import Course
from harness.learning.curve import Asked, Training, is_over
from harness.message import Message
from harness.preparation.prepared import TASK_TIMEOUT_S, Entry
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer, Process
from harness.record import Status

POINTS = 24
"""How many times a training is evaluated within its updates, evenly spaced, besides once before the first."""

THREADS_COST = 1.2
"""Factor on the total time if trainings run at the same time, on one thread each, instead of one after the other."""

TIMEOUT_S = 1800.0
"""For the updates between two evaluations."""


def divided(entry: Entry, fork_server: ForkServer) -> tuple[Entry, Message]:
    """The workload on the training part of its data, so that a teacher has not seen the held-out part either; and the
    facts that bench.held_out reports. Raises ValueError if nothing can be held out."""
    arguments = {"workload": dataclasses.asdict(entry.spec), "corpus": entry.corpus.as_message()}
    facts: Message = fork_server.run("bench.held_out:held_out_facts", arguments, TASK_TIMEOUT_S)
    if entry.spec.phase is Phase.FINETUNE:
        return entry, facts
    return dataclasses.replace(entry, corpus=entry.corpus.of(Part.TRAINED)), facts


class Trainings:
    """Runs the trainings asked for. On a CPU several run at the same time, each on one thread: nothing is timed, and
    what they learn does not depend on it."""

    def __init__(self, host: Host, entry: Entry, fork_server: ForkServer, log: Path, beside: int = 1) -> None:
        """What they print is appended to `log`. The entry is one that is `divided`. `at_once` trainings run at the same
        time: just one, with its share of the threads, if this is one of several (`beside`) workloads trained at the
        same time."""
        self._host, self._fork_server = host, fork_server
        self.at_once = host.cores if host.device == "cpu" and beside == 1 else 1
        self._request = entry.request | {"device": host.device, "log": str(log.resolve()), "holds_out": True}
        if self.at_once > 1 or beside > 1:
            self._request["threads"] = max(1, host.cores // max(self.at_once, beside))

    def run(self, asked: Iterable[Asked]) -> Iterator[Training]:
        """Yield the trainings as they end."""
        wanted = list(asked)
        pool = ThreadPoolExecutor(max(1, min(self.at_once, len(wanted))))
        try:
            for done in as_completed([pool.submit(self._train, item) for item in wanted]):
                yield done.result()
        finally:
            # After an interrupt nobody wants to wait for trainings that have not begun.
            pool.shutdown(wait=False, cancel_futures=True)

    def _train(self, asked: Asked) -> Training:
        curve, begun_s = _Curve(), time.monotonic()
        status, reason = Status.OK, None
        scores: dict[str, float] = {}
        process: Process | None = None
        try:
            shared = ranks(compose(asked.techniques), self._host)
            own = {"techniques": list(asked.techniques), "seed": asked.seed, "rate": asked.rate}
            process = self._fork_server.fork(self._request | own | {"replicas": shared.replicas}, shared.count)
            # An older checkout of trainpace itself may not report it.
            patience = process.call({"do": "build"}, TIMEOUT_S)[0].get("patience")
            curve.evaluate(process)
            course = Course(updates=asked.updates) if asked.on_course else None
            for until in _times(asked):
                curve.take(process, until, shared.replicas, course)
                if course is None or until == asked.updates:
                    curve.evaluate(process)
                is_stopped = is_over(curve.held_out_losses, patience)
                if until == asked.updates or (is_stopped and until < asked.updates):
                    scores = process.call({"do": "evaluate", "with": {"scores": True}}, TIMEOUT_S)[0]["scores"]
                if is_stopped:
                    break
                if until >= asked.updates and (asked.until_loss is None or curve.least <= asked.until_loss):
                    break
        except ArmFailed as failure:
            status, reason = failure.status, failure.reason
        finally:
            if process is not None:
                process.kill()
        return Training(
            asked=asked,
            status=status,
            reason=reason,
            updates=tuple(curve.updates),
            held_out_losses=tuple(curve.held_out_losses),
            train_losses=tuple(curve.train_losses),
            tokens_per_update=curve.tokens / curve.taken if curve.taken and curve.tokens else None,
            samples_per_update=curve.samples / curve.taken if curve.taken else None,
            seen_share=curve.seen_share,
            scores=scores,
            updates_s=curve.updates_s,
            other_s=time.monotonic() - begun_s - curve.updates_s,
        )


class _Curve:
    """What a training has reported so far."""

    def __init__(self) -> None:
        self.updates: list[int] = []
        self.held_out_losses: list[float] = []
        self.train_losses: list[float] = []
        self._losses: list[float] = []
        self.taken, self.tokens, self.samples = 0, 0, 0
        self.seen_share = 0.0
        self.updates_s = 0.0

    @property
    def least(self) -> float:
        """The lowest loss on the held-out samples so far."""
        return min(self.held_out_losses)

    def take(self, process: Process, until: int, replicas: int, course: Course | None) -> None:
        """Take all updates up to number `until`."""
        begun_s, updates = time.monotonic(), range(self.taken, until)
        rates = [course.rate(update) for update in updates] if course else []
        answers = process.call({"do": "steps", "with": {"count": len(updates), "rates": rates}}, TIMEOUT_S)
        self.taken = until
        self.updates_s += time.monotonic() - begun_s
        shares = replicas / len(answers)
        self.tokens += round(shares * sum(sum(answer["tokens"]) for answer in answers))
        self.samples += round(shares * sum(sum(answer["samples"]) for answer in answers))
        self._losses += [loss for answer in answers for loss in answer["losses"]]

    def evaluate(self, process: Process) -> None:
        found: Message = process.call({"do": "evaluate"}, TIMEOUT_S)[0]
        if not math.isfinite(found["held_out_loss"]):
            raise ArmFailed(Status.DIVERGED, f"the held-out loss is {found['held_out_loss']} after update {self.taken}")
        if self._losses:
            self.train_losses.append(sum(self._losses) / len(self._losses))
            self._losses = []
        self.updates.append(self.taken)
        self.held_out_losses.append(found["held_out_loss"])
        self.seen_share = found["seen_share"]


def _times(asked: Asked) -> list[int]:
    """After which updates a training is evaluated, however far it goes."""
    points = POINTS * asked.most_updates // asked.updates
    return sorted({max(1, round(asked.updates * point / POINTS)) for point in range(1, points + 1)})
