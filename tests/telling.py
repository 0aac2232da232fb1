"""A plugin for runs whose network is broken on purpose: it reports when an arm of several ranks is in the middle of its
steps, and waits until the report was received."""

from __future__ import annotations

import dataclasses
import itertools
import os
import select

from torch import Tensor, nn

from bench.host import Host
from bench.plans import Plan, WorkloadSpec, plan
from bench.registry import Stage, technique
from bench.setup import TrainingSetup
from bench.spec import Protocol
from bench.workload import Batch
from tests.networks import TOLD

AT_STEP, PATIENCE_MS = 6, 60_000


def _tell(fifo: str) -> None:
    try:
        descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return  # There is no listener any more: a heat was disturbed, and this is the next one.
    os.write(descriptor, b"here\n")
    # The listener closes its end when it is done; poll reports that without a request for it.
    waiting = select.poll()
    waiting.register(descriptor, 0)
    waiting.poll(PATIENCE_MS)
    os.close(descriptor)


@technique(stage=Stage.STEP, source="https://example.invalid/telling")
def telling(setup: TrainingSetup) -> TrainingSetup:
    """Waits at one of its steps until the report was received."""
    calls = itertools.count(1)

    def told(model: nn.Module, batch: Batch) -> Tensor:
        if next(calls) == AT_STEP and setup.rank == 0:
            _tell(os.environ[TOLD])
        return setup.loss(model, batch)

    return dataclasses.replace(setup, loss=told)


@plan
def brief(host: Host) -> Plan:
    """Two ranks that report, two ranks that do not, and one rank."""
    protocol = Protocol(warmup_s=0.5, warmup_min_steps=8, rounds=3, rounds_s=0.5, timeout_s=20.0)
    return Plan(
        name="brief",
        workloads=(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32),),
        compositions=(("ddp_2", "telling"), ("ddp_2",), ("adamw_foreach",)),
        device=host.device,
        repetitions=1,
        protocol=protocol,
    )
