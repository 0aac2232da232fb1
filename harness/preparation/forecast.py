"""Predicts what each arm of a plan will take, before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.composition import compose, ranks
from bench.spec import BASELINE, Trial
from harness.message import Message
from harness.prediction.growth import growth_of
from harness.prediction.limits import FOUND_BY_TRYING
from harness.preparation.predicting import Question, predictions
from harness.preparation.prepared import Entry, Prepared
from harness.processes.fork_server import ForkServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one arm will take, or the `reason` why that is not known. Bytes are those of tensors.

    `peak_bytes` is over all its `ranks`, `device_bytes` on one device. `kinds` and `modules` divide the first rank's
    peak by purpose and by module. `compute` is the number format of its matrix products. For an arm that searches for
    its batch, `larger_batches` are those that it may try, each with the bytes that it takes on a device.
    """

    peak_bytes: int | None = None
    device_bytes: int | None = None
    ranks: int = 1
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    modules: dict[str, int] = dataclasses.field(default_factory=dict)
    compute: str | None = None
    reason: str | None = None
    larger_batches: Sequence[tuple[int, int]] = ()


UNKNOWN = Forecast(reason="nothing was predicted")


DOUBLINGS = 24
"""How often a batch is doubled: the result is larger than any real batch."""

UNSURE = {"cpu": 1.0, "cuda": 1.1}
"""What takes more than this many times the free memory does not fit. GPU predictions have not been compared with a GPU
yet: docs/gpu.md expects errors of a tenth at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """The forecasts by workload and label, and the free memory of a device; an arm that takes up to `unsure` times as
    much may or may not fit."""

    free_bytes: int
    arms: Mapping[tuple[str, str], Forecast]
    unsure: float = 1.0

    def of(self, workload: str, label: str) -> Forecast:
        return self.arms.get((workload, label), UNKNOWN)

    def device_bytes(self, workload: str) -> dict[str, int]:
        """The known bytes of a workload's arms, by label."""
        known = {label: found.device_bytes for (name, label), found in self.arms.items() if name == workload}
        return {label: size for label, size in known.items() if size is not None}

    def larger_batches(self, workload: str) -> dict[str, Sequence[tuple[int, int]]]:
        """By label, the bytes of larger batches for arms that search for theirs."""
        of_workload = {label: found for (name, label), found in self.arms.items() if name == workload}
        return {label: found.larger_batches for label, found in of_workload.items() if found.larger_batches}

    def fits(self, workload: str, label: str) -> bool | None:
        """Whether the arm's tensors fit when alone; None if unknown."""
        size = self.of(workload, label).device_bytes
        if size is None or self.free_bytes < size <= self.unsure * self.free_bytes:
            return None
        return size <= self.free_bytes

    def fits_beside(self, workload: str, label: str) -> bool | None:
        """Whether they fit together with the baseline's; None if unknown."""
        own, other = (self.of(workload, name).device_bytes for name in (label, BASELINE))
        return None if own is None or other is None else own + other <= self.free_bytes


NONE = Forecasts(free_bytes=0, arms={})


def forecast(prepared: Prepared, fork_server: ForkServer) -> Forecasts:
    """The forecast of every arm that can run."""
    made = {
        (entry.spec.name, trial.label): found
        for entry in prepared.entries
        for trial, found in _of_entry(prepared, entry, fork_server)
    }
    return Forecasts(free_bytes=prepared.host.memory_bytes, arms=made, unsure=UNSURE[prepared.plan.device])


def without_those_that_do_not_fit(prepared: Prepared, forecasts: Forecasts) -> Prepared:
    """The plan with arms that do not fit moved to those that cannot run, with the reason. A baseline stays: nothing
    could be compared without it, and it reports by itself what it lacks."""
    too_large = {
        (entry.spec.name, trial.label): does_not_fit(forecasts, entry.spec.name, trial.label)
        for entry in prepared.entries
        for trial in prepared.trials(entry)
        if trial.techniques and forecasts.fits(entry.spec.name, trial.label) is False
    }
    return dataclasses.replace(prepared, unsupported=prepared.unsupported | too_large)


def does_not_fit(forecasts: Forecasts, workload: str, label: str) -> str:
    """Why an arm is not started."""
    size = forecasts.of(workload, label).device_bytes or 0
    return f"does not fit: needs {size / 1e9:.3g} GB, {forecasts.free_bytes / 1e9:.3g} free"


def _of_entry(prepared: Prepared, entry: Entry, fork_server: ForkServer) -> Iterator[tuple[Trial, Forecast]]:
    """The forecasts of a workload's arms."""
    question = Question(
        task="predict_arms",
        host=prepared.host,
        seed=prepared.plan.seed,
        packages=prepared.machine.packages,
    )
    trials = prepared.trials(entry)
    answers = predictions(question, entry, [trial.techniques for trial in trials], fork_server)
    larger = _larger_batches(question, entry, trials, answers, fork_server)
    for trial, answer in zip(trials, answers, strict=True):
        made = Forecast(
            ranks=ranks(compose(trial.techniques), prepared.host).count,
            larger_batches=larger.get(trial.techniques, ()),
            **answer,
        )
        if made.peak_bytes is not None:
            # Ranks share the memory of their host, but each has its own GPU.
            on_one = prepared.host.ranks_each if prepared.host.hosts > 1 else made.ranks
            devices = -(-made.ranks // on_one) if prepared.plan.device == "cpu" else made.ranks
            made = dataclasses.replace(made, device_bytes=made.peak_bytes // devices)
        yield trial, made


def _larger_batches(
    question: Question, entry: Entry, trials: Sequence[Trial], answers: Sequence[Message], fork_server: ForkServer
) -> dict[tuple[str, ...], Sequence[tuple[int, int]]]:
    """For arms that search for their batch, the bytes of the workload's batch when doubled, as far as known."""
    searching = [
        trial.techniques
        for trial, answer in zip(trials, answers, strict=True)
        if answer.get("reason") == FOUND_BY_TRYING
    ]
    if not searching:
        return {}
    told = predictions(dataclasses.replace(question, task="grow_any_batch"), entry, searching, fork_server)
    sizes = [entry.batch << doublings for doublings in range(1, DOUBLINGS)]
    growths = {
        names: growth_of(answer["ranks"][0]) for names, answer in zip(searching, told, strict=True) if "ranks" in answer
    }
    return {names: [(size, growth.peak_bytes(size)) for size in sizes] for names, growth in growths.items()}
