"""Which size of a family suits a given time: how long its updates take, and what loss short trainings predict for
it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.api.kept import Kept
from bench.api.runs import measure
from bench.causes import Unfinished
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
from results.compare import why_disturbed
from results.day import Candidate
from results.scaling import Expected, Law, Seen

PROTOCOL = Protocol(warmup_s=1.0, rounds_s=1.0)
"""The protocol of the heats that measure how long updates take."""

LOOKS, NEAR = (1 / 32, 1 / 16, 1 / 8), (1 / 4, 1 / 2)
"""Lengths of the short trainings that show how the loss falls, as shares of all updates that there is time for. Every
size is trained for LOOKS; the one that seems best and its neighbours are also trained for NEAR. A loss is predicted
well for twice as much text, but not for four times as much. On a longer day all shares shrink in proportion."""

PLANNING, LEAST_PLANNING_MINUTES = 0.25, 45.0
"""The share of the time that all short trainings together may take, and the minutes that they may always take."""

TUNED = 1 / 16
"""The length of the trainings that try learning rates, as a share of all updates."""

RATES, MOST_RATES = 3, 5
"""How many rates are tried, and at most how many while the best is still the highest or the lowest."""

LEAST_LENGTHS = dict(zip((*LOOKS, *NEAR), (100, 100, 200, 200, 400), strict=True))
"""The fewest updates of each length: in the very first ones the loss falls by another law."""

LEAST_UPDATES = 2 * max(LEAST_LENGTHS.values())
"""A size that fits fewer updates into the time is too large for it."""

BUSY = 0.97
"""The share of the time that goes into updates; the rest is for evaluations and checkpoints."""

Say = Callable[[str], object]
Choose = Callable[[Sequence[Candidate]], str]


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
        """`bytes_per_token` has, for each model of `prepared`, the bytes of text per token. A size takes `updates`, or
        if that is None as many as there is time for. What is measured is kept in the folder."""
        self._prepared, self._bytes_per_token = prepared, bytes_per_token
        self._techniques, self._minutes, self._updates = techniques, minutes, updates
        self._fork_server, self._folder, self._say = fork_server, folder, say
        self._label = "+".join(techniques) or BASELINE

    def outlook(self) -> str:
        """Describe which sizes would be tried, and how."""
        sizes = [(entry.spec.model, entry.parameters) for entry in self._prepared.entries]
        scale = _scale([60 * self._minutes] * len(sizes))
        looks, near = ([scale * share for share in shares] for shares in (LOOKS, NEAR))
        return text.outlook(sizes, self._label, self._minutes, looks, near)

    def timed(self) -> list[Candidate]:
        """Each size with the updates that there is time for, or the reason why it does not suit this time."""
        forecasts = forecast(self._prepared, self._fork_server)
        try:
            records = measure(
                self._fork_server, self._prepared, self._folder / "pace", f"{self._folder.name}-pace"
            ).records
        except Unfinished as failure:
            if failure.interrupted:
                raise KeyboardInterrupt from None
            raise
        return [self._one_timed(entry, forecasts, records) for entry in self._prepared.entries]

    def expected(self, candidates: Sequence[Candidate], choose: Choose) -> list[Candidate]:
        """The timed sizes with the loss that each is expected to reach. The size that `choose` picks and its neighbours
        are judged by longer trainings. Raises ValueError if no size can be trained."""
        able = {item.model: item for item in candidates if item.reason is None}
        if not able:
            told = "; ".join(f"{item.model}: {item.reason}" for item in candidates)
            raise ValueError(f"no size can be trained in {self._minutes:g} minutes: {told}")
        entries = {entry.spec.model: entry for entry in self._prepared.entries if entry.spec.model in able}
        scale = _scale([(item.update_s or 0.0) * (item.updates or 0) for item in able.values()])
        host = self._prepared.host
        # On a CPU several sizes train at once, each with its share of the threads: nothing is timed.
        beside = min(len(entries), host.cores) if host.device == "cpu" else 1
        with ThreadPoolExecutor(beside) as pool:
            tuned = pool.map(lambda model: self._looked_at(entries[model], able[model], scale, beside), entries)
            able |= {item.model: item for item in tuned}
            longer = set[str]()
            while True:
                found = _expected([able.get(item.model, item) for item in candidates], self._seen(able))
                if not (due := set(_near(found, choose(found))) - longer):
                    return found
                longest = [
                    pool.submit(self._longer, entries[model], able[model], scale, beside) for model in sorted(due)
                ]
                able |= {item.model: item for item in (training.result() for training in longest)}
                longer |= due

    def _one_timed(self, entry: Entry, forecasts: Forecasts, records: Sequence[Record]) -> Candidate:
        """A size with the updates that there is time for."""
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
            disturbed = (why_disturbed(own) if own else None) or "it was not timed"
            reason = arm.failure(own) or f"{disturbed}: ask again when nothing else runs here"
            return dataclasses.replace(made, reason=reason)
        updates = self._updates or math.floor(BUSY * 60 * self._minutes / update_s)
        joules = arm.joules_per_token(own)
        made = dataclasses.replace(
            made, update_s=update_s, updates=updates, joules=joules and joules * updates * (made.tokens_per_update or 0)
        )
        if updates < LEAST_UPDATES:
            return dataclasses.replace(made, reason=f"{updates} updates are too few to learn from")
        return made

    def _looked_at(self, entry: Entry, found: Candidate, scale: float, beside: int) -> Candidate:
        """A size with its learning rate, which is found at one length and used for the other lengths."""
        trainings, (tuned,) = self._trainings(entry, beside), _lengths(found, (TUNED,), scale)

        while True:
            tried = outcome.tried_rates(self._kept(entry, "rates").all(), self._label)
            if len(tried) >= (RATES if outcome.is_enclosed(tried) else MOST_RATES):
                break
            self._kept(entry, "rates").train(
                trainings, [self._asked(outcome.next_rate(tried), tuned)], self._told(entry)
            )
        rate = outcome.careful_rate(self._kept(entry, "rates").all(), self._label)
        if rate is None:
            return dataclasses.replace(found, reason="it cannot be trained: arms.log has the reason")
        others = [length for length in _lengths(found, LOOKS, scale) if length != tuned]
        asked = [self._asked(rate, length) for length in others]
        self._kept(entry, "lengths").train(trainings, asked, self._told(entry))
        return dataclasses.replace(found, rate=rate)

    def _longer(self, entry: Entry, found: Candidate, scale: float, beside: int) -> Candidate:
        """Train a size that may be the best, or a neighbour of it, for longer. A rate that is too high for short
        trainings, which have hardly any warm-up, may be right for long ones: the next higher rate is tried too."""
        usual, kept = found.rate or 1.0, self._kept(entry, "lengths")
        higher = outcome.STRIDE * usual
        first, *others = _lengths(found, NEAR, scale)
        kept.train(
            self._trainings(entry, beside), [self._asked(rate, first) for rate in (usual, higher)], self._told(entry)
        )
        tried = [item for item in kept.all() if item.asked.updates == first]
        rate = outcome.careful_rate(tried, self._label) or usual
        kept.train(self._trainings(entry, beside), [self._asked(rate, length) for length in others], self._told(entry))
        return dataclasses.replace(found, rate=rate)

    def _told(self, entry: Entry) -> Callable[[Training], object]:
        return lambda training: self._say(text.calibrated(entry.spec.model, training))

    def _trainings(self, entry: Entry, beside: int) -> Trainings:
        return Trainings(self._prepared.host, entry, self._fork_server, self._folder / "arms.log", beside)

    def _asked(self, rate: float, updates: int) -> Asked:
        return Asked(
            techniques=self._techniques, seed=self._prepared.plan.seed, rate=rate, updates=updates, on_course=True
        )

    def _kept(self, entry: Entry, purpose: str) -> Kept:
        return Kept(self._folder, f"{purpose} {entry.spec.model}")

    def _seen(self, able: Mapping[str, Candidate]) -> list[Seen]:
        """The short trainings of each size at its own learning rate, with their amounts of text in bytes."""
        seen = []
        for entry in self._prepared.entries:
            each, found = self._bytes_per_token[entry.spec.model], able.get(entry.spec.model)
            for training in (*self._kept(entry, "rates").all(), *self._kept(entry, "lengths").all()):
                is_its_own = found is not None and math.isclose(training.asked.rate, found.rate or 1.0)
                if training.status is Status.OK and is_its_own and entry.parameters:
                    tokens = training.updates[-1] * (training.tokens_per_update or 0)
                    loss = training.held_out_losses[-1] / each
                    seen.append(Seen(parameters=entry.parameters, text_bytes=round(each * tokens), loss=loss))
        return seen


def _scale(whole_s: Sequence[float]) -> float:
    """The factor that shortens the short trainings so that there is room for them. `whole_s` is how long all updates of
    each size take."""
    near = min(3, len(whole_s)) * max(whole_s)
    together_s = (sum(LOOKS) + (MOST_RATES - 1) * TUNED) * sum(whole_s) + (NEAR[0] + sum(NEAR)) * near
    room_s = max(PLANNING * max(whole_s), 60 * LEAST_PLANNING_MINUTES)
    return min(1.0, room_s / together_s)


def _lengths(found: Candidate, shares: Sequence[float], scale: float) -> list[int]:
    """The numbers of updates of a size's short trainings, without repeats."""
    lengths = (max(round(scale * share * (found.updates or 0)), LEAST_LENGTHS[share]) for share in shares)
    return list(dict.fromkeys(lengths))


def _near(found: Sequence[Candidate], chosen: str) -> list[str]:
    """The chosen size and its neighbours, among those that can be trained."""
    able = [item.model for item in found if item.expected]
    place = able.index(chosen)
    return able[max(0, place - 1) : place + 2]


def _expected(candidates: Sequence[Candidate], seen: Sequence[Seen]) -> list[Candidate]:
    """The candidates with the loss that each is expected to reach."""
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
