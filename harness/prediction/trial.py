"""Tries a composition without data, to see what two updates of it allocate.

Two are enough: from the second on, the optimizer's state exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import _disable_current_modes

from bench.composition import compose
from bench.seeds import seed_all
from bench.setup import TrainingSetup, baseline
from bench.spec import Phase
from bench.workload import Batch, Workload
from harness.prediction.calls import Call
from harness.prediction.fakes import fake_tensors, replaced, without_data
from harness.prediction.gpu_kernels import gpu_kernels
from harness.prediction.growth import Growth, growth
from harness.prediction.ledger import Kind, Ledger, Moment
from harness.prediction.limits import FOUND_BY_TRYING, HOPPER, Unforeseen
from harness.prediction.operators import Operators
from harness.prediction.ranks import pretended
from harness.timing.feed import Batches
from harness.timing.step import infer_step, train_step

UPDATES = 2

ALLOCATION_BYTES = {"cpu": 1, "cuda": 512}
"""The multiple to which the device's allocator rounds up each allocation (CUDACachingAllocator: kMinBlockSize)."""

DOUBT = 1.02
"""If the doubtful peak exceeds the predicted one by this factor, the prediction is unknown."""

OUT_OF_PROPORTION = 0.01
"""If the prediction for a third batch is off by this share, two batches have not shown how memory grows."""

CONVOLUTIONS = "how much extra memory convolutions take is up to their library"

OF_A_PROCESS = ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory")
"""Options of a DataLoader that change which process makes batches, but not what is in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Bytes at the peak of training on one rank, as the device's allocator counts them.

    `kinds` divides the peak by purpose, `modules` by the module that holds it, with the layers of a stack taken
    together. `state_bytes` remain from update to update: weights and optimizer state. `changes` are all allocations
    (negative: what was freed) in order, `batches` are those that the updates used, and a batch must be divisible by
    `divisor`. `compute` is the number format of the large matrix products.
    """

    peak_bytes: int
    state_bytes: int
    kinds: dict[Kind, int]
    modules: dict[str, int]
    changes: Sequence[int]
    batches: Sequence[Batch]
    divisor: int
    compute: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Rank `rank` of `count` that trains under a composition; each of `replicas` has an equal share of the batch.

    Everything runs on fake CPU tensors, because a backward pass on fake CUDA tensors needs a GPU. For a GPU the kernels
    are those that torch would choose at that compute capability. `any_batch`: the trial is for every batch, including
    the one that an arm searches for.
    """

    techniques: Sequence[str] = ()
    device: str
    capability: tuple[int, int] = HOPPER
    seed: int = 0
    rank: int = 0
    count: int = 1
    replicas: int = 1
    any_batch: bool = False

    @property
    def workspace_bytes(self) -> int:
        """What the matrix library reserves in torch's allocator (aten/src/ATen/cuda/CublasHandlePool.cpp)."""
        if self.device == "cpu":
            return 0
        return 32 << 20 if self.capability >= HOPPER else (2 * 4096 + 8 * 16) << 10

    def run(self, workload: Workload, drawn: Sequence[Batch] = (), times: int = 1) -> Predicted:
        """Take the updates, on batches with the shapes of the first real ones, or on those `drawn` before with `times`
        as many samples.

        Raises Unforeseen for what only running shows, and whatever a model or technique that needs data raises.
        """
        with self._observed() as ledger:
            setup = self._setup(workload)
            batches = drawn or _batches(setup, self.seed)
            *_, end = _train(setup, ledger, [(batch, times) for batch in batches])
        return self._predicted(ledger, setup, batches, end)

    def grow(self, workload: Workload) -> tuple[Predicted, Growth]:
        """The result of `run`, and how the peak grows with the batch. Raises what `run` does, and Unforeseen if larger
        batches run another program than smaller ones, or take more than their proportion."""
        with self._observed() as ledger:
            setup = self._setup(workload)
            batches = _batches(setup, self.seed)
            larger = [(batches[-1], times) for times in _multiples(workload)]
            moments = _train(setup, ledger, [*((batch, 1) for batch in batches), *larger])
            built, *own = itertools.islice(moments, 1 + UPDATES)
            try:
                others = list(moments)
            except Exception:  # Whatever it is: the model may be built for one batch only.
                others = []
        seen = self._predicted(ledger, setup, batches, own[-1])
        try:
            return seen, self._grown_at_once(workload, ledger, built, [*own, *others])
        except Unforeseen:
            return seen, self._grown(workload, seen)

    @contextlib.contextmanager
    def _observed(self) -> Iterator[Ledger]:
        ledger = Ledger(ALLOCATION_BYTES[self.device])
        kernels = gpu_kernels(self.capability) if self.device == "cuda" else contextlib.nullcontext()
        with pretended(self.rank, self.count), fake_tensors(), ledger, kernels, _compiled_functions(ledger):
            yield ledger

    def _predicted(self, ledger: Ledger, setup: TrainingSetup, batches: Sequence[Batch], end: Moment) -> Predicted:
        """The result of the ledger up to that moment."""
        peak = ledger.peak(end)
        if end.doubtful_peak_bytes > DOUBT * peak.bytes:
            raise Unforeseen(CONVOLUTIONS)
        return Predicted(
            peak_bytes=peak.bytes + self.workspace_bytes,
            state_bytes=end.state_bytes,
            kinds=peak.kinds,
            modules=peak.modules,
            changes=ledger.changes(until=end),
            batches=batches,
            divisor=setup.accumulate * setup.replicas,
            compute=setup.compute,
        )

    def operators(self, workload: Workload) -> Counter[Call]:
        """The operators that an update calls, once the optimizer has its state. Raises what `run` does."""
        with pretended(self.rank, self.count), fake_tensors(), _compiled_functions(None):
            setup = self._setup(workload)
            optimizer = _optimizer(setup)
            first, second = (without_data(batch) for batch in _batches(setup, self.seed))
            _step(setup, optimizer, first)
            with (seen := Operators()):
                _step(setup, optimizer, second)
        return seen.calls

    def _setup(self, workload: Workload) -> TrainingSetup:
        """The composition, built."""
        seed_all(self.seed)
        setup = baseline(workload, torch.device("cpu"), rank=self.rank, world_size=self.count, replicas=self.replicas)
        for technique in compose(self.techniques):
            setup = technique.apply(setup)
        if setup.find_largest_batch and not self.any_batch:
            raise Unforeseen(FOUND_BY_TRYING)
        return setup

    def _grown_at_once(self, workload: Workload, ledger: Ledger, built: Moment, moments: Sequence[Moment]) -> Growth:
        """From larger updates after those with the workload's own batch, in the same training, if each leaves nothing
        behind. `moments` are those after each update."""
        own, times = workload.batch, _multiples(workload)
        steady = [ledger.changes(since, until) for since, until in itertools.pairwise(moments)]
        if len(steady) <= len(times) or any(map(sum, steady)):
            raise Unforeseen("a larger update needs a model of its own")
        held_bytes = moments[0].alive_bytes + self.workspace_bytes
        highest = [held_bytes + max(itertools.accumulate(changes)) for changes in steady]
        if ledger.peak(moments[0]).bytes + self.workspace_bytes > highest[0]:
            raise Unforeseen("the first update takes most")
        if moments[-1].doubtful_peak_bytes > DOUBT * ledger.peak(moments[-1]).bytes:
            raise Unforeseen(CONVOLUTIONS)
        before_bytes = ledger.peak(built).bytes + self.workspace_bytes
        found = growth((steady[0], steady[1]), (own, 2 * own), held_bytes, before_bytes)
        for multiple, peak_bytes in zip(times, highest[1:], strict=True):
            self._check(found, multiple * own, peak_bytes)
        return found

    def _grown(self, workload: Workload, seen: Predicted) -> Growth:
        """From separate trials: after the one `seen` on the workload's batch, one on twice that, and more."""
        own, twice = workload.batch, self._times(workload, seen, 2)
        try:
            found = growth((seen.changes, twice.changes), (own, 2 * own), self.workspace_bytes)
            other = (3 * own, self._times(workload, seen, 3)) if 3 in _multiples(workload) else None
        except Unforeseen:
            # The first trial may have made what later ones reuse, and parts with one sample may be handled differently.
            thrice = self._times(workload, seen, 3)
            found = growth((twice.changes, thrice.changes), (2 * own, 3 * own), self.workspace_bytes)
            other = (own, seen) if own > seen.divisor else None
        if other:
            self._check(found, other[0], other[1].peak_bytes)
        return found

    def _check(self, found: Growth, batch: int, peak_bytes: int) -> None:
        """Raises Unforeseen if a batch does not take what its growth predicts."""
        if not math.isclose(found.peak_bytes(batch), peak_bytes, rel_tol=OUT_OF_PROPORTION):
            raise Unforeseen("its memory does not grow in proportion to the batch")

    def _times(self, workload: Workload, seen: Predicted, times: int) -> Predicted:
        """The same with `times` as many samples as were seen."""
        return self.run(dataclasses.replace(workload, batch=times * workload.batch), seen.batches, times)


def _optimizer(setup: TrainingSetup) -> Optimizer | None:
    if setup.workload.phase is Phase.INFER:
        return None
    return setup.optimizer([item for item in setup.model.parameters() if item.requires_grad])


def _step(setup: TrainingSetup, optimizer: Optimizer | None, batch: Batch) -> None:
    """One update, or one forward pass."""
    if optimizer is None:
        infer_step(setup, batch)
    else:
        train_step(setup, optimizer, batch)


def _train(setup: TrainingSetup, ledger: Ledger, updates: Sequence[tuple[Batch, int]]) -> Iterator[Moment]:
    """Take the updates, each on a batch with so many times its samples. Yields the moments before and after each."""
    optimizer = _optimizer(setup)
    with ledger.training(setup.model, optimizer):
        yield ledger.now()
        for real, times in updates:
            batch = without_data(real, times)
            _step(setup, optimizer, batch)
            del batch
            yield ledger.now()


def _multiples(workload: Workload) -> Sequence[int]:
    """Multiples of the batch that show how memory grows. The models of families are known to grow in proportion."""
    return (2,) if workload.family else (2, 3)


def _batches(setup: TrainingSetup, seed: int) -> list[Batch]:
    """As many real batches as there are updates. Raises Unforeseen if they do not have their final size yet."""
    loader = {name: value for name, value in setup.loader.items() if name not in OF_A_PROCESS}
    found = []
    with _disable_current_modes():
        drawn = Batches(dataclasses.replace(setup, loader=loader), seed)
        for _ in range(UPDATES):
            batch, taking = drawn.next_timed()
            if taking.load.samples < setup.share:
                raise Unforeseen("its first batches are smaller than later ones")
            found.append(batch)
    return found


@contextlib.contextmanager
def _compiled_functions(ledger: Ledger | None) -> Iterator[None]:
    """Functions passed to torch.compile count as one kernel in the ledger; without a ledger they are not predictable,
    and compiled models never are."""

    def compiled(function: Any = None, **options: Any) -> Any:
        if function is None:
            return lambda given: compiled(given, **options)
        if isinstance(function, nn.Module):
            _of_a_model(function)
        if ledger is None:
            raise Unforeseen("what torch.compile makes of its functions cannot be predicted")

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with ledger.fused():
                result = function(*args, **kwargs)
            ledger.see(result)
            return result

        return called

    with replaced(torch, "compile", compiled), replaced(nn.Module, "compile", _of_a_model):
        yield


def _of_a_model(*_: Any, **__: Any) -> None:
    raise Unforeseen("what torch.compile makes of a model cannot be predicted")
