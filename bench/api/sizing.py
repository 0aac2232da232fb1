"""Which size of a family is the one for a given time: how long updates of each take, and what loss short trainings say
that it comes to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.api.kept import Kept
from bench.api.runs import Unfinished, measure
from bench.spec import BASELINE, Protocol
from harness.learning.curve import Asked, Training
from harness.learning.training import Trainings
from harness.preparation.forecast import Forecasts, forecast
from harness.preparation.prepared import Entry, Prepared
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from reports.text import day as text
from results import arm
from results import worth as outcome
from results.day import Candidate
from results.scaling import Expected, Law, Seen

PROTOCOL = Protocol(warmup_s=1.0, rounds_s=1.0)
"""Of the heats that tell how long updates are."""

SHARES = (1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4)
"""Of all the updates that there is time for, those of the short trainings that tell how the loss falls; of a longer day
smaller ones, in the same proportions."""

PLANNING, LEAST_PLANNING_MINUTES = 0.25, 20.0
"""The share of the time that the short trainings may take together, and what they may take of a short one."""

TUNED = 1 / 16
"""The share over which learning rates are tried."""

RATES, MOST_RATES = 3, 5
"""How many of them, and at most, while the best is the highest or the lowest."""

LEAST_LENGTHS = (100, 100, 100, 200, 400)
"""Updates that they have at least: in the very first ones a loss falls by another law."""

LEAST_UPDATES = 2 * LEAST_LENGTHS[-1]
"""A size that takes fewer in the time is too large for it."""

BUSY = 0.97
"""Of the time, the share that goes into updates: there are evaluations and checkpoints beside."""

Say = Callable[[str], object]


class Sizing:
    """Times the sizes of a family under a composition, and trains them for a while."""

    def __init__(
        self,
        prepared: Prepared,
        bytes_per_token: Mapping[str, float],
        *,
        techniques: tuple[str, ...],
        minutes: float,
        updates: int | None,
        fork_server: ForkServer,
        folder: Path,
        say: Say,
    ) -> None:
        """Of each model of `prepared` there are the bytes of text that a token stands for. A size takes so many
        `updates`, or if None as many as there is time for. What is measured is kept in the folder."""
        self._prepared, self._bytes_per_token = prepared, bytes_per_token
        self._techniques, self._minutes, self._updates = techniques, minutes, updates
        self._fork_server, self._folder, self._say = fork_server, folder, say
        self._label = "+".join(techniques) or BASELINE

    def outlook(self) -> str:
        """Which sizes would be looked at, and how."""
        sizes = [(entry.spec.model, entry.parameters) for entry in self._prepared.entries]
        return text.outlook(sizes, self._label, self._minutes, _shares([60 * self._minutes] * len(sizes)))

    def timed(self) -> list[Candidate]:
        """Each size with how many updates there is time for, or the reason why it is none for this time."""
        forecasts = forecast(self._prepared, self._fork_server)
        try:
            records = measure(self._fork_server, self._prepared, self._folder / "pace").records
        except Unfinished as failure:
            if failure.interrupted:
                raise KeyboardInterrupt from None
            raise
        return [self._one_timed(entry, forecasts, records) for entry in self._prepared.entries]

    def expected(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that were timed, with the loss that each is expected to reach. Raises ValueError if none can be
        trained."""
        able = {item.model: item for item in candidates if item.reason is None}
        if not able:
            told = "; ".join(f"{item.model}: {item.reason}" for item in candidates)
            raise ValueError(f"no size can be trained in {self._minutes:g} minutes: {told}")
        entries = [entry for entry in self._prepared.entries if entry.spec.model in able]
        shares = _shares([(item.update_s or 0.0) * (item.updates or 0) for item in able.values()])
        host = self._prepared.host
        # On a CPU sizes are trained beside each other, each with its share of the threads: nothing is timed.
        beside = min(len(entries), host.cores) if host.device == "cpu" else 1
        with ThreadPoolExecutor(beside) as pool:
            tuned = pool.map(lambda entry: self._calibrated(entry, able[entry.spec.model], shares, beside), entries)
            able |= {item.model: item for item in tuned}
        return _expected([able.get(item.model, item) for item in candidates], self._seen())

    def _one_timed(self, entry: Entry, forecasts: Forecasts, records: Sequence[Record]) -> Candidate:
        """A size with how many updates there is time for."""
        own = arm.of(records, self._label, entry.spec.name)
        update_s = arm.step_time_s(own)
        made = Candidate(
            model=entry.spec.model,
            parameters=entry.parameters,
            tokens_per_update=entry.batch * (entry.sequence or 1),
            peak_memory_bytes=forecasts.of(entry.spec.name, self._label).peak_bytes,
            bytes_per_token=self._bytes_per_token[entry.spec.model],
        )
        if not update_s:
            return dataclasses.replace(made, reason=arm.failure(own) or "every repetition was disturbed")
        updates = self._updates or math.floor(BUSY * 60 * self._minutes / update_s)
        joules = arm.joules_per_token(own)
        made = dataclasses.replace(
            made, update_s=update_s, updates=updates, joules=joules and joules * updates * (made.tokens_per_update or 0)
        )
        if updates < LEAST_UPDATES:
            return dataclasses.replace(made, reason=f"{updates} updates are too few to learn from")
        return made

    def _calibrated(self, entry: Entry, found: Candidate, shares: Sequence[float], beside: int) -> Candidate:
        """A size with the learning rate that is found at one length; those of other lengths are trained at it."""
        lengths = [
            max(round(share * (found.updates or 0)), least) for share, least in zip(shares, LEAST_LENGTHS, strict=True)
        ]
        tuned = lengths[SHARES.index(TUNED)]
        trainings = Trainings(self._prepared.host, entry, self._fork_server, self._folder / "arms.log", beside)

        def say(training: Training) -> None:
            self._say(text.calibrated(entry.spec.model, training))

        while True:
            tried = outcome.tried_rates(self._kept(entry, "rates").all(), self._label)
            if len(tried) >= (RATES if outcome.is_enclosed(tried) else MOST_RATES):
                break
            self._kept(entry, "rates").train(trainings, [self._asked(outcome.next_rate(tried), tuned)], say)
        rate = outcome.careful_rate(self._kept(entry, "rates").all(), self._label)
        if rate is None:
            return dataclasses.replace(found, reason="it cannot be trained: arms.log has the reason")
        others = [length for length in dict.fromkeys(lengths) if length != tuned]
        self._kept(entry, "lengths").train(trainings, [self._asked(rate, length) for length in others], say)
        return dataclasses.replace(found, rate=rate)

    def _asked(self, rate: float, updates: int) -> Asked:
        return Asked(
            techniques=self._techniques, seed=self._prepared.plan.seed, rate=rate, updates=updates, on_course=True
        )

    def _kept(self, entry: Entry, purpose: str) -> Kept:
        return Kept(self._folder, f"{purpose} {entry.spec.model}")

    def _seen(self) -> list[Seen]:
        """Of each size, the short trainings at the rate that it is trained at, by the bytes of text."""
        seen = []
        for entry in self._prepared.entries:
            each = self._bytes_per_token[entry.spec.model]
            tuned = self._kept(entry, "rates").all()
            rate = outcome.careful_rate(tuned, self._label)
            for training in (*tuned, *self._kept(entry, "lengths").all()):
                if training.status is Status.OK and training.asked.rate == rate and entry.parameters:
                    tokens = training.updates[-1] * (training.tokens_per_update or 0)
                    loss = training.held_out_losses[-1] / each
                    seen.append(Seen(parameters=entry.parameters, text_bytes=round(each * tokens), loss=loss))
        return seen


def _shares(whole_s: Sequence[float]) -> list[float]:
    """Of the updates of each size, which take so long, those of its short trainings."""
    together_s = (sum(SHARES) + (MOST_RATES - 1) * TUNED) * sum(whole_s)
    room_s = max(PLANNING * max(whole_s), 60 * LEAST_PLANNING_MINUTES)
    return [share * min(1.0, room_s / together_s) for share in SHARES]


def _expected(candidates: Sequence[Candidate], seen: Sequence[Seen]) -> list[Candidate]:
    """With the loss that each is expected to reach."""
    if not seen:
        raise ValueError("no size could be trained: arms.log has the reasons")
    law, made = Law(seen), []
    for item in candidates:
        expected: Expected | None = None
        if item.reason is None and item.parameters and item.tokens:
            each = item.bytes_per_token
            found = law.expected(item.parameters, round(each * item.tokens))
            expected = Expected(loss=each * found.loss, low=each * found.low, high=each * found.high)
        made.append(dataclasses.replace(item, expected=expected))
    return made
