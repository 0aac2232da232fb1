"""What all parts of the acceptance share: the device, the time that is left, a nursery, and arms measured by it."""

from __future__ import annotations

import dataclasses
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.corpus import open_corpus
from bench.spec import Plan, Protocol, Trial, WorkloadSpec
from harness.entrant import Entrant
from harness.gpus import Gpus
from harness.machine import host
from harness.nursery import Nursery
from harness.prepare import Prepared, device_facts, prepare
from harness.record import Record
from harness.sweep import Sweep
from tests.gpu_acceptance.rows import Row

AGAIN_S = 10.0
"""How long after the end of its time a part that still goes on is interrupted once more."""


class OutOfTime(BaseException):
    """The part's share of the time is over. Not an Exception: nobody on the way may take it for a failure of theirs."""


class Stand:
    """Lent to each part in turn. `tell` receives every row; `names` are the techniques to try, all if there are none.

    On a CPU everything is small: what is then tried is this program, not the machine.
    """

    def __init__(
        self, *, device: str, tell: Callable[[Row], object], modules: Sequence[str] = (), names: Sequence[str] = ()
    ) -> None:
        self.device, self.tell, self.names = device, tell, tuple(names)
        self._modules = tuple(modules)
        self._nursery: Nursery | None = None
        self._deadline_s = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="trainpace-acceptance-")

    @property
    def is_small(self) -> bool:
        return self.device == "cpu"

    @property
    def spec(self) -> WorkloadSpec:
        """What step times are taken of: a batch and a sequence that every card of the last years holds."""
        if self.is_small:
            return WorkloadSpec(model="gpt2/nano", batch=8, sequence=64)
        return WorkloadSpec(model="gpt2/small", batch=8, sequence=512)

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    @property
    def modules(self) -> tuple[str, ...]:
        """Files of plugins."""
        return self._modules

    @property
    def left_s(self) -> float:
        """Of the share of the part at hand."""
        return self._deadline_s - time.monotonic()

    def repetitions(self, most: int) -> Iterator[int]:
        """Numbers from 0 on, as long as another repetition as long as the longest so far fits into the time. One of
        them shows on a CPU what there is to show."""
        longest_s = 0.0
        for index in range(1 if self.is_small else most):
            begun = time.monotonic()
            if index and self.left_s < 1.2 * longest_s:
                return
            yield index
            longest_s = max(longest_s, time.monotonic() - begun)

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Raise OutOfTime in what runs below once its time is over, whatever it waits for."""

        def out_of_time(*_: object) -> None:
            raise OutOfTime

        self._deadline_s = time.monotonic() + seconds
        before = signal.signal(signal.SIGALRM, out_of_time)
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def nursery(self) -> Nursery:
        """One for all parts, until one of them ends in its middle."""
        if self._nursery is None:
            self._nursery = Nursery(modules=self._modules)
        return self._nursery

    def end_nursery(self) -> None:
        """End it with all arms: what a part leaves behind that was broken off would disturb the next."""
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def close(self) -> None:
        self.end_nursery()
        self._folder.cleanup()


def prepared(
    stand: Stand, specs: Sequence[WorkloadSpec], compositions: Sequence[tuple[str, ...]], protocol: Protocol
) -> Prepared:
    plan = Plan(
        name="acceptance",
        workloads=tuple(specs),
        compositions=tuple(compositions),
        device=stand.device,
        repetitions=1,
        protocol=protocol,
    )
    return prepare(plan, stand.nursery())


def only(
    made: Prepared, compositions: Sequence[tuple[str, ...]], *, model: str | None = None, seed: int = 0
) -> Prepared:
    """These compositions of what was prepared, on one model of it, as a plan of their own."""
    entries = tuple(entry for entry in made.entries if model is None or entry.spec.model == model)
    plan = dataclasses.replace(
        made.plan, workloads=tuple(entry.spec for entry in entries), compositions=tuple(compositions), seed=seed
    )
    labels = {"+".join(names) for names in compositions}
    unsupported = {key: reason for key, reason in made.unsupported.items() if key[1] in labels}
    return dataclasses.replace(made, plan=plan, entries=entries, unsupported=unsupported)


def measured(stand: Stand, made: Prepared, keep: Callable[[Record], object] = lambda record: None) -> list[Record]:
    """The records of one repetition in fresh processes; `keep` receives each as soon as it is there."""
    log = stand.folder / "arms.log"
    sweep = Sweep(made, run_id="acceptance", keep=keep, choose=lambda records: [], log=log)
    sweep.run(stand.nursery())
    return sweep.records


def warm_arm(stand: Stand, techniques: tuple[str, ...], protocol: Protocol) -> Entrant:
    """An arm of the usual workload, built and warmed up. Raises RuntimeError, saying why, if it does not live."""
    facts = device_facts(stand.nursery(), stand.device)
    request = {
        "workload": dataclasses.asdict(stand.spec),
        "corpus": dataclasses.asdict(open_corpus(None)),
        "device": stand.device,
        "techniques": list(techniques),
        "seed": 0,
        "log": str(stand.folder / "arms.log"),
    }
    trial = Trial(workload=stand.spec, techniques=techniques, device=stand.device)
    arm = Entrant(trial, request=request, protocol=protocol, host=host(stand.device, facts), is_cold=True)
    arm.start(stand.nursery())
    check(arm)
    return arm


def check(arm: Entrant) -> None:
    """Raises RuntimeError, saying why, if the arm has ended."""
    if not arm.alive:
        raise RuntimeError(f"the arm {arm.trial.label} ended as {arm.status}: {arm._reason}")


def gpus(stand: Stand, count: int = 1) -> Gpus:
    """NVML's view of the GPUs that the arms use."""
    facts = device_facts(stand.nursery(), stand.device)
    return Gpus(stand.device, facts["gpu_uuids"]).first(count)
