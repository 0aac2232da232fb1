"""How much memory training will take, for every composition, before it runs.

Two updates are enough: by the second the optimizer's state is there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import _disable_current_modes

from bench.causes import root_cause
from bench.composition import compose
from bench.seeds import seed_all
from bench.setup import TrainingSetup, Unsupported, baseline
from bench.spec import Phase
from bench.workload import Batch, Workload, first_batch
from harness.message import Message
from harness.prediction.fakes import fake_tensors, replaced, without_data
from harness.prediction.gpu_kernels import gpu_kernels
from harness.prediction.ledger import Kind, Ledger
from harness.prediction.ranks import Unforeseen, pretended
from harness.processes.worker import requested_workload
from harness.timing.feed import Batches
from harness.timing.step import infer_step, train_step

UPDATES = 2

ALLOCATION_BYTES = {"cpu": 1, "cuda": 512}
"""What the device's allocator rounds each allocation up to (CUDACachingAllocator: kMinBlockSize)."""

WORKSPACE_BYTES = {"cpu": 0, "cuda": 32 << 20}
"""What the matrix library keeps for itself in the allocator: on a Hopper GPU 32 MiB, on earlier ones 8 MiB
(https://docs.nvidia.com/cuda/cublas/#cublassetworkspace)."""

SLACK = 1.1
"""By how much more the allocator holds than is in use, because blocks do not always fit: an allowance."""

DOUBT = 1.02
"""From so much more on than is predicted, what may be there makes the prediction unknown."""

PATIENCE_S = 60
"""What a prediction may take. A technique may wait for what never comes among tensors without data."""

OF_A_PROCESS = ("num_workers", "prefetch_factor", "persistent_workers", "pin_memory")
"""Options of a DataLoader that change who makes batches, and not what is in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Bytes at the highest point of training on one rank, as the device's allocator counts them.

    `kinds` are its parts by what they are for, `modules` by the module that holds them, of layers of a stack together.
    Of all that `state_bytes` stay from update to update: weights and optimizer state.
    """

    peak_bytes: int
    state_bytes: int
    kinds: dict[Kind, int]
    modules: dict[str, int]


def need_bytes(workload: Message, corpus: Message, device: str) -> int:
    """Task: what the tensors of a process take that trains the workload plainly, with the allocator's slack."""
    asked = requested_workload({"workload": workload, "corpus": corpus})
    first_batch(asked)  # Raises ValueError where there are fewer samples than one batch has.
    return round(SLACK * predict(asked, (), device=device).peak_bytes)


def predict_arms(request: Message, arms: Sequence[Message], device: str, seed: int) -> list[Message]:
    """Task: what each arm will take, in their order: `peak_bytes` over all its ranks, and the parts of its first rank
    as `kinds` and `modules`; or else the `reason` why that is not known. An arm has `techniques`, and its ranks as
    `count` and `replicas`."""
    with _patience() as begin:
        return [_predicted(requested_workload(request), arm, device, seed, begin) for arm in arms]


@contextlib.contextmanager
def _patience() -> Iterator[Callable[[], object]]:
    """Raise Unforeseen in this thread wherever it is, so many seconds after what is given was called last."""

    def over(*_: object) -> None:
        raise Unforeseen(f"it was not known after {PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, over)
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _predicted(workload: Workload, arm: Message, device: str, seed: int, begin: Callable[[], object]) -> Message:
    count = arm["count"]
    of_rank = functools.partial(
        predict, workload, arm["techniques"], device=device, seed=seed, count=count, replicas=arm["replicas"]
    )
    begin()
    try:
        first, *others = [of_rank(rank=rank) for rank in sorted({0, count - 1})]
        if all(other.peak_bytes == first.peak_bytes for other in others):
            # So are those between the first and the last.
            total_bytes = count * first.peak_bytes
        else:
            between = [of_rank(rank=rank) for rank in range(1, count - 1)]
            total_bytes = sum(item.peak_bytes for item in (first, *between, *others))
    except Exception as error:  # Whatever it is, only this is then unknown.
        return {"reason": str(error) if isinstance(error, Unforeseen | Unsupported) else root_cause(error)}
    return {"peak_bytes": total_bytes, "kinds": first.kinds, "modules": first.modules}


def predict(
    workload: Workload,
    techniques: Sequence[str] = (),
    *,
    device: str,
    seed: int = 0,
    rank: int = 0,
    count: int = 1,
    replicas: int = 1,
) -> Predicted:
    """The memory of rank `rank` of `count` that trains the workload under a composition, each of `replicas` with an
    equal share of the batch.

    Everything runs on fake CPU tensors, because a backward pass on fake CUDA tensors needs a GPU. For a GPU the kernels
    are those that torch would choose there. Raises Unforeseen for what only running shows, and whatever a model or
    technique raises that cannot run without data.
    """
    ledger = Ledger(ALLOCATION_BYTES[device])
    kernels = gpu_kernels() if device == "cuda" else contextlib.nullcontext()
    with pretended(rank, count), fake_tensors(), ledger, kernels, _compiled_functions(ledger):
        seed_all(seed)
        setup = baseline(workload, torch.device("cpu"), rank=rank, world_size=count, replicas=replicas)
        for technique in compose(techniques):
            setup = technique.apply(setup)
        if setup.find_largest_batch:
            raise Unforeseen("its batch is found by trying")
        state_bytes = _train(setup, ledger, seed)
    peak = ledger.peak()
    if ledger.doubtful_peak_bytes > DOUBT * peak.bytes:
        raise Unforeseen("what convolutions take beside their results is the library's choice")
    return Predicted(
        peak_bytes=peak.bytes + WORKSPACE_BYTES[device],
        state_bytes=state_bytes,
        kinds=peak.kinds,
        modules=peak.modules,
    )


def _train(setup: TrainingSetup, ledger: Ledger, seed: int) -> int:
    """Take the updates, on batches as long and wide as the first ones really are. Returns the bytes that stay."""
    optimizer = None
    if setup.workload.phase is not Phase.INFER:
        optimizer = setup.optimizer([item for item in setup.model.parameters() if item.requires_grad])
    with ledger.training(setup.model, optimizer):
        for real in _batches(setup, seed):
            batch = without_data(real)
            if optimizer is None:
                infer_step(setup, batch)
            else:
                train_step(setup, optimizer, batch)
            del batch
    return ledger.state_bytes


def _batches(setup: TrainingSetup, seed: int) -> Iterator[Batch]:
    """As many real batches as there are updates. Raises Unforeseen if they are not yet as large as they will be."""
    loader = {name: value for name, value in setup.loader.items() if name not in OF_A_PROCESS}
    with _disable_current_modes():
        drawn = Batches(dataclasses.replace(setup, loader=loader), seed)
    for _ in range(UPDATES):
        with _disable_current_modes():
            batch, taking = drawn.next_timed()
        if taking.load.samples < setup.share:
            raise Unforeseen("its first batches are smaller than later ones")
        yield batch


@contextlib.contextmanager
def _compiled_functions(ledger: Ledger) -> Iterator[None]:
    """Functions that torch.compile is given are one kernel; what it makes of a model is not known."""

    def compiled(function: Any = None, **options: Any) -> Any:
        if function is None:
            return lambda given: compiled(given, **options)
        if isinstance(function, nn.Module):
            _of_a_model(function)

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
    raise Unforeseen("what torch.compile keeps in memory is its own choice")
