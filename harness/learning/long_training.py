"""One long training: it uses all the time that it is given, saves its state on the way, and ends on time."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import operator
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.corpus import write_atomically
from bench.host import Host
from harness.learning.course import Course, Point, Stand
from harness.learning.curve import is_over
from harness.message import Message
from harness.preparation.prepared import Entry
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer, Process
from harness.record import Status

POINTS = 60
"""How many times it is evaluated, evenly spaced, besides once before its first update."""

CHECKPOINT_S = 60.0
"""About the most that is lost if it is ended from outside."""

OFF = 0.03
"""By what share of the remaining updates its end may be off before the course is replanned."""

SETTLED = 0.9
"""From this share of the course on it is no longer lengthened: little is left of the rate."""

END_SHARE, END_S = 0.01, 5.0
"""What is reserved for the end: this share of the time, but at most this many seconds."""

RECENT = 8
"""How many recent commands the median time per update is taken over."""

TIMEOUT_S = 3600.0
"""For what one command does: up to a checkpoint's worth of updates, an evaluation, or the file of a large model."""

TEXTS, TEXT_TOKENS = 3, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for. `rate` is a factor on the workload's learning rate. The training takes `seconds`, in which
    about `updates` updates fit; if None, exactly those. It ends early once the held-out loss has not fallen for
    `patience` evaluations."""

    techniques: tuple[str, ...]
    seed: int
    rate: float
    updates: int
    seconds: float | None = None
    patience: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lasted:
    """The result: where it stood at the end, and why it ended."""

    stand: Stand
    ended: str
    texts: Sequence[str] = ()


def read_stand(folder: Path) -> Stand | None:
    """Where a training in the folder stood when it was last saved; None before that."""
    file = folder / "stand.json"
    return Stand.from_json(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


class LongTraining:
    """Trains in its own process. Everything it saves is in `folder`: checkpoints, where it stands, the model."""

    def __init__(
        self,
        asked: Asked,
        *,
        host: Host,
        entry: Entry,
        fork_server: ForkServer,
        folder: Path,
        show: Callable[[Stand], object],
    ) -> None:
        """The entry is one that is `divided`, the composition one for a single process. `show` receives every new
        stand."""
        self._asked, self._fork_server, self._folder, self._show = asked, fork_server, folder, show
        own = {"techniques": list(asked.techniques), "seed": asked.seed, "rate": asked.rate, "replicas": 1}
        log = {"device": host.device, "log": str((folder / "arms.log").resolve()), "holds_out": True}
        self._request: Message = entry.request | log | own

    @property
    def stand(self) -> Stand | None:
        """Where it stood when it was last saved; None before that."""
        return read_stand(self._folder)

    def run(self, prompt: str) -> Lasted:
        """Begin, or continue, and end with the model in `folder`/model and some texts. Raises ArmFailed."""
        begun_s = time.monotonic()
        process = self._fork_server.fork(self._request, 1)
        try:
            self._call(process, "build")
            if self.stand is None:
                # A model that cannot be exported is reported before it is trained.
                self._export(process)
            life = _Life(self, process, begun_s)
            ended = life.train()
            self._export(process)
            texts = self._call(process, "write", count=TEXTS, length=TEXT_TOKENS, prompt=prompt)["texts"]
            return Lasted(stand=life.stand, ended=ended, texts=texts)
        finally:
            process.kill()

    def _export(self, process: Process) -> None:
        self._call(process, "export", folder=str((self._folder / "model").resolve()))

    def _call(self, process: Process, do: str, **arguments: object) -> Message:
        return process.call({"do": do, "with": arguments}, TIMEOUT_S)[0]

    def _keep(self, process: Process, stand: Stand) -> Stand:
        """Save a checkpoint and where it stands; earlier ones are deleted once the new one is complete."""
        kept = dataclasses.replace(stand, checkpoint=f"checkpoint-{stand.updates}.pt")
        self._call(process, "save", file=str((self._folder / kept.checkpoint).resolve()))
        text = json.dumps(kept.to_json(), indent=2)
        write_atomically(self._folder / "stand.json", lambda name: Path(name).write_text(text, encoding="utf-8"))
        for file in self._folder.glob("checkpoint-*.pt"):
            if file.name != kept.checkpoint:
                file.unlink()
        return kept


class _Life:
    """The training from its beginning, or from where it was saved, to its end, in one process."""

    def __init__(self, training: LongTraining, process: Process, begun_s: float) -> None:
        self._training, self._asked, self._process = training, training._asked, process
        self._begun_s, self._kept_s, self._before_s = begun_s, time.monotonic(), 0.0
        self._step_s: list[float] = []
        self._evaluation_s = 0.0
        kept = training.stand
        if kept is None:
            course = Course(updates=self._asked.updates)
            self.stand = Stand(course=course, updates=0, tokens=0, elapsed_s=0.0, checkpoint="", points=())
            return
        self.stand, self._before_s = kept, kept.elapsed_s
        training._call(process, "restore", file=str((training._folder / kept.checkpoint).resolve()))

    def train(self) -> str:
        """Train to the end; returns why it ended."""
        if not self.stand.points:
            self._evaluate()
        if self._gives_up():
            return self._end(self._why_given_up)
        while self.stand.updates < self.stand.course.updates and self._left_s >= 0:
            due = self._due()
            self._take(min(due, self.stand.updates + self._at_once()))
            if self.stand.updates == due:
                self._evaluate()
                if self._gives_up():
                    return self._end(self._why_given_up)
            self._steer()
            if time.monotonic() - self._kept_s > CHECKPOINT_S:
                self._keep()
        return self._end("it has taken all its updates" if self._asked.seconds is None else "the time was up")

    @property
    def _why_given_up(self) -> str:
        return f"the held-out loss has not fallen for {self._asked.patience} evaluations"

    @property
    def elapsed_s(self) -> float:
        return self._before_s + time.monotonic() - self._begun_s

    @property
    def _left_s(self) -> float:
        """Seconds left for updates and evaluations; infinite if only updates are counted."""
        if self._asked.seconds is None:
            return math.inf
        return self._asked.seconds - min(END_SHARE * self._asked.seconds, END_S) - self.elapsed_s

    def _end(self, why: str) -> str:
        if self.stand.points[-1].updates < self.stand.updates:
            self._evaluate()
        self._keep()
        return why

    def _keep(self) -> None:
        self.stand = self._training._keep(self._process, dataclasses.replace(self.stand, elapsed_s=self.elapsed_s))
        self._kept_s = time.monotonic()

    def _due(self) -> int:
        """The update after which it is evaluated next: evenly spaced over what is left of the course."""
        course, taken = self.stand.course, self.stand.updates
        for place in range(math.floor(POINTS * course.progress_at(taken)), POINTS):
            ahead = ((place + 1) / POINTS - course.progress) / (1 - course.progress)
            due = course.since + round(ahead * (course.updates - course.since))
            if due > taken:
                return due
        return course.updates

    def _at_once(self) -> int:
        """How many updates to command: they take a part of what may be lost. The first, in which much is compiled, is
        alone."""
        if not self._step_s:
            return 1
        seconds = CHECKPOINT_S / 4
        if self._asked.seconds is not None:
            seconds = min(seconds, self._asked.seconds / POINTS, max(self._left_s, 0.0))
        return max(1, round(seconds / self._step_s[-1]))

    def _take(self, until: int) -> None:
        begun_s, taken = time.monotonic(), self.stand.updates
        rates = [self.stand.course.rate(update) for update in range(taken, until)]
        answer = self._training._call(self._process, "steps", count=len(rates), rates=rates)
        if not all(map(math.isfinite, answer["losses"])):
            raise ArmFailed(Status.DIVERGED, f"the loss is not finite between update {taken} and {until}")
        self._step_s.append((time.monotonic() - begun_s) / (until - taken))
        stand = self.stand
        self.stand = dataclasses.replace(
            stand,
            updates=until,
            tokens=stand.tokens + sum(answer["tokens"]),
            elapsed_s=self.elapsed_s,
            losses=stand.losses + len(rates),
            # One by one: the result must not depend on how many are taken at once.
            losses_sum=functools.reduce(operator.add, answer["losses"], stand.losses_sum),
        )
        self._training._show(self.stand)

    def _evaluate(self) -> None:
        begun_s, stand = time.monotonic(), self.stand
        found = self._training._call(self._process, "evaluate")
        point = Point(
            updates=stand.updates,
            tokens=stand.tokens,
            elapsed_s=self.elapsed_s,
            held_out_loss=found["held_out_loss"],
            train_loss=stand.losses_sum / stand.losses if stand.losses else None,
            rate=self._asked.rate * stand.course.rate(max(0, stand.updates - 1)),
        )
        self._evaluation_s = time.monotonic() - begun_s
        self.stand = dataclasses.replace(stand, points=(*stand.points, point), losses=0, losses_sum=0.0)
        self._training._show(self.stand)

    def _gives_up(self) -> bool:
        return is_over([point.held_out_loss for point in self.stand.points], self._asked.patience)

    def _steer(self) -> None:
        """Replan the course if there is time for clearly more or fewer updates than it has."""
        course, taken = self.stand.course, self.stand.updates
        progress = course.progress_at(taken)
        if self._asked.seconds is None or len(self._step_s) < 3 or taken == course.updates:
            return
        evaluations_s = POINTS * (1 - progress) * self._evaluation_s
        affordable = (self._left_s - evaluations_s) / statistics.median(self._step_s[1:][-RECENT:])
        left = course.updates - taken
        is_off = affordable < left if progress > SETTLED else abs(affordable - left) > OFF * left
        if is_off:
            self.stand = dataclasses.replace(self.stand, course=course.laid_anew(taken, taken + int(affordable)))
