"""Batches of another size than the workload's: compared by the time a token, never by the time a step."""

from __future__ import annotations

from dataclasses import replace

from bench.registry import Change, Stage, technique
from bench.samples import ShuffledBatches
from bench.setup import Order, TrainingSetup, Unsupported

RAMP = ((4, 8), (2, 8))
"""The divisors of the full batch, and the updates that each lasts for."""


@technique(
    stage=Stage.DATA,
    slot="batch",
    changes={Change.BATCH_SIZE},
    # Every rank would have to fit, and one that does not would leave the others waiting; and every size that is tried
    # would be compiled.
    excludes={"distribute", "compile"},
    # Memory that parked neighbours leave is not all that fits, and they would be left with none.
    alone=True,
    source="https://arxiv.org/abs/1812.06162",
)
def largest_batch(setup: TrainingSetup) -> TrainingSetup:
    """The batch is doubled before training while it fits in memory and a step stays under a second."""
    _check_free(setup, "largest_batch")
    return replace(setup, find_largest_batch=True)


@technique(
    stage=Stage.DATA,
    slot="batch",
    changes={Change.BATCH_SIZE, Change.SCHEDULE},
    # A quarter of a batch may not be divisible any further, and each of these techniques decides the order of samples.
    excludes={"accumulate", "distribute", "samples"},
    source="https://arxiv.org/abs/1711.00489",
)
def batch_ramp(setup: TrainingSetup) -> TrainingSetup:
    """The batch starts at a quarter of its size and grows to half and then to the whole, after eight updates each."""
    _check_free(setup, "batch_ramp")
    full = setup.workload.batch
    if full % RAMP[0][0]:
        raise Unsupported(f"batch_ramp starts at a quarter of the batch and needs a multiple of 4; it is {full}")
    return replace(setup, order=lambda samples, seed: _ramped(samples, full, seed))


def _check_free(setup: TrainingSetup, name: str) -> None:
    """Raises Unsupported where samples come in an order, or in batches, of the workload's own."""
    if setup.workload.order is not None or setup.workload.is_stream:
        raise Unsupported(f"{name} makes batches of samples in any order; this workload has an order of its own")


def _ramped(samples: int, full: int, seed: int) -> Order:
    whole = iter(ShuffledBatches(samples=samples, batch=full, seed=seed))
    for divisor, updates in RAMP:
        size = full // divisor
        for _ in range(updates // divisor):
            batch = next(whole)
            yield from (batch[start : start + size] for start in range(0, full, size))
    yield from whole


@technique(
    stage=Stage.SHAPE,
    slot="batch",
    changes={Change.BATCH_SIZE},
    source="https://doi.org/10.1145/42411.42415",
)
def batch_per_rank(setup: TrainingSetup) -> TrainingSetup:
    """Every rank trains on a whole batch, so that the batch grows with the ranks: weak scaling."""
    if setup.replicas == 1:
        raise Unsupported("batch_per_rank grows the batch with the ranks: add a technique with several, such as ddp_2")
    return replace(setup, workload=replace(setup.workload, batch=setup.workload.batch * setup.replicas))
