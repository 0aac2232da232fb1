"""What each arm of a plan will take, told before anything runs, and kept for the next time."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import bench
import harness
from bench.composition import compose, ranks
from bench.corpus import cache_folder, write_atomically
from bench.spec import BASELINE, Trial
from harness.message import Message
from harness.preparation.prepared import TASK_TIMEOUT_S, Entry, Prepared
from harness.processes.fork_server import ArmFailed, ForkServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What one arm will take, or the `reason` why that is not known. Bytes are those of tensors.

    `peak_bytes` are those of all its `ranks`, `device_bytes` those on one device. `kinds` are their parts by what they
    are for and `modules` by what holds them, of the first rank at its highest.
    """

    peak_bytes: int | None = None
    device_bytes: int | None = None
    ranks: int = 1
    kinds: dict[str, int] = dataclasses.field(default_factory=dict)
    modules: dict[str, int] = dataclasses.field(default_factory=dict)
    reason: str | None = None


UNKNOWN = Forecast(reason="nothing was predicted")


UNSURE = {"cpu": 1.0, "cuda": 1.1}
"""What takes more than so many times what is free does not fit. Predictions for a GPU have not been held against one
yet: docs/gpu.md expects them to be a tenth off at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecasts:
    """The forecasts by workload and label, and what is free of the memory of a device; up to `unsure` times as much may
    fit or not."""

    free_bytes: int
    arms: Mapping[tuple[str, str], Forecast]
    unsure: float = 1.0

    def of(self, workload: str, label: str) -> Forecast:
        return self.arms.get((workload, label), UNKNOWN)

    def device_bytes(self, workload: str) -> dict[str, int]:
        """What is known of a workload's arms, by label."""
        known = {label: found.device_bytes for (name, label), found in self.arms.items() if name == workload}
        return {label: size for label, size in known.items() if size is not None}

    def fits(self, workload: str, label: str) -> bool | None:
        """Whether the arm's tensors find room by themselves; None if that is not known."""
        size = self.of(workload, label).device_bytes
        if size is None or self.free_bytes < size <= self.unsure * self.free_bytes:
            return None
        return size <= self.free_bytes

    def fits_beside(self, workload: str, label: str) -> bool | None:
        """Whether they do beside those of the baseline."""
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
    """The plan with what does not fit among what cannot run, and why. A baseline stays: without it nothing would be
    told, and it says itself what it lacks."""
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
    """The forecasts of a workload's arms: what was kept of earlier ones, and the others found out."""
    trials = prepared.trials(entry)
    arms = [_arm(trial, prepared) for trial in trials]
    files = [_file(entry, arm, prepared) for arm in arms]
    known: dict[int, Message] = {
        index: json.loads(file.read_text(encoding="utf-8"))
        for index, file in enumerate(files)
        if file is not None and file.is_file()
    }
    missing = [index for index in range(len(arms)) if index not in known]
    if missing:
        known |= _asked(prepared, entry, {index: arms[index] for index in missing}, fork_server)
        for index in missing:
            _keep(files[index], known[index])
    for index, (trial, arm) in enumerate(zip(trials, arms, strict=True)):
        made = Forecast(ranks=arm["count"], **known[index])
        if made.peak_bytes is not None:
            # Ranks share the machine's memory, and have a GPU each.
            devices = 1 if prepared.plan.device == "cpu" else arm["count"]
            made = dataclasses.replace(made, device_bytes=made.peak_bytes // devices)
        yield trial, made


def _keep(file: Path | None, answer: Message) -> None:
    """For the next time, where there is a place to keep it. What was not known may be then."""
    if file is not None and "peak_bytes" in answer:
        with contextlib.suppress(OSError):
            write_atomically(file, lambda partial: Path(partial).write_text(json.dumps(answer), encoding="utf-8"))


def _arm(trial: Trial, prepared: Prepared) -> Message:
    shared = ranks(compose(trial.techniques), prepared.host)
    return {"techniques": list(trial.techniques), "count": shared.count, "replicas": shared.replicas}


def _asked(
    prepared: Prepared, entry: Entry, arms: Mapping[int, Message], fork_server: ForkServer
) -> dict[int, Message]:
    """What is said of each arm, by its number: found out in as many processes as there are cores."""
    numbers = list(arms)
    shares = [share for first in range(prepared.host.cores) if (share := numbers[first :: prepared.host.cores])]

    def ask(share: list[int]) -> list[Message]:
        asked = {
            "request": entry.request,
            "arms": [arms[number] for number in share],
            "device": prepared.plan.device,
            "seed": prepared.plan.seed,
        }
        try:
            answers: list[Message] = fork_server.run("harness.prediction.memory:predict_arms", asked, TASK_TIMEOUT_S)
        except (ArmFailed, ValueError) as failure:
            if len(share) == 1:
                return [{"reason": str(failure)}]
            # One of them has ended the process: the others are asked each by itself.
            return [answer for number in share for answer in ask([number])]
        return answers

    with ThreadPoolExecutor(len(shares)) as pool:
        told = list(pool.map(ask, shares))
    pairs = (zip(share, answers, strict=True) for share, answers in zip(shares, told, strict=True))
    return dict(itertools.chain.from_iterable(pairs))


def _file(entry: Entry, arm: Message, prepared: Prepared) -> Path | None:
    """Where the forecast of an arm is kept: known by all that it depends on. None where that is not all known."""
    if entry.sha256 is None:
        return None
    facts = (_code(), sorted(prepared.machine.packages.items()), entry.request, entry.sha256, arm)
    where = (prepared.plan.device, prepared.plan.seed)
    digest = hashlib.sha256(repr((facts, where)).encode()).hexdigest()[:24]
    return cache_folder() / "predictions" / f"{digest}.json"


@cache
def _code() -> str:
    """That of all files that decide what an arm takes."""
    found = hashlib.sha256()
    for package in (bench, harness):
        for file in sorted(Path(next(iter(package.__path__))).rglob("*.py")):
            found.update(file.read_bytes())
    return found.hexdigest()
