"""Predictions as tasks of forked processes, each for many compositions of a workload."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from bench.causes import root_cause
from bench.setup import Unsupported
from bench.workload import Workload, first_batch
from harness.message import Message
from harness.prediction.limits import HOPPER, Unforeseen
from harness.prediction.trial import Predicted, Trial
from harness.processes.worker import requested_workload

Found = TypeVar("Found")

SLACK = 1.1
"""Factor by which a GPU's allocator holds more than is in use, because blocks do not always fit: an allowance."""

PATIENCE_S = 60
"""How long a prediction may take. Without data, a technique may wait for something that never comes."""


def need_bytes(workload: Message, corpus: Message, device: str) -> int:
    """Task: the bytes of the tensors of a process that trains the workload plainly, with the allocator's slack."""
    asked = requested_workload({"workload": workload, "corpus": corpus})
    first_batch(asked)  # Raises ValueError if there are fewer samples than in one batch.
    return round(SLACK * Trial(device=device).run(asked).peak_bytes)


def predict_arms(request: Message, arms: Sequence[Message], where: Message) -> list[Message]:
    """Task: what each arm will take, in order: `peak_bytes` over all its ranks, its first rank's parts as `kinds` and
    `modules`, and the number format of its matrix products as `compute`; or else the `reason` why that is not known. An
    arm has `techniques`, and its ranks as `count` and `replicas`; `where` has the device, a GPU's compute capability,
    and the seed."""
    return [_told(_peak, requested_workload(request), arm, where) for arm in arms]


def grow_arms(request: Message, arms: Sequence[Message], where: Message) -> list[Message]:
    """Task: how each arm grows with the batch: the `lines` of growth of each rank, the `divisor` of batches, and the
    parts at the workload's own batch; or else the `reason` why that is not known."""
    return [_told(_growth, requested_workload(request), arm, where) for arm in arms]


def grow_any_batch(request: Message, arms: Sequence[Message], where: Message) -> list[Message]:
    """Task: the same for arms that search for their batch."""
    return grow_arms(request, arms, where | {"any_batch": True})


def count_operators(request: Message, arms: Sequence[Message], where: Message) -> list[Message]:
    """Task: the operators that an update of each arm calls, as `calls` with their counts; or else the `reason` why that
    is not known."""
    return [_told(_calls, requested_workload(request), arm, where) for arm in arms]


def _told(
    find: Callable[[Workload, list[Trial]], Message], workload: Workload, arm: Message, where: Message
) -> Message:
    capability = tuple(where["capability"] or HOPPER)
    trials = [Trial(**where | arm | {"capability": capability}, rank=rank) for rank in range(arm["count"])]
    try:
        with _patience():
            return find(workload, trials)
    except Exception as error:  # Whatever it is, only this is then unknown.
        return {"reason": str(error) if isinstance(error, Unforeseen | Unsupported) else root_cause(error)}


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    """Raise Unforeseen in this thread, whatever it is doing, if this takes too long."""

    def over(*_: object) -> None:
        raise Unforeseen(f"it was not found within {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _peak(workload: Workload, trials: Sequence[Trial]) -> Message:
    seen = _of_ranks([functools.partial(trial.run, workload) for trial in trials], lambda found: found.peak_bytes)
    return {"peak_bytes": sum(item.peak_bytes for item in seen), "compute": seen[0].compute, **_parts(seen[0])}


def _calls(workload: Workload, trials: Sequence[Trial]) -> Message:
    if len(trials) > 1:
        raise Unforeseen("how long ranks wait for each other is known only once they run")
    return {"calls": trials[0].operators(workload)}


def _growth(workload: Workload, trials: Sequence[Trial]) -> Message:
    grown = _of_ranks([functools.partial(trial.grow, workload) for trial in trials], lambda found: found[0].peak_bytes)
    (seen, _), *_ = grown
    return {"ranks": [growth.lines for _, growth in grown], "divisor": seen.divisor, **_parts(seen)}


def _of_ranks(find: Sequence[Callable[[], Found]], peak_bytes: Callable[[Found], int]) -> list[Found]:
    """The result of each rank. If the last rank takes as much as the first, so do those between them."""
    first, last = find[0](), find[-1]() if len(find) > 1 else None
    if last is None or peak_bytes(last) == peak_bytes(first):
        return [first] * len(find)
    return [first, *(between() for between in find[1:-1]), last]


def _parts(seen: Predicted) -> Message:
    return {"kinds": seen.kinds, "modules": seen.modules}
