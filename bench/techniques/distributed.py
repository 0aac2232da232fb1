"""Several processes that train one model."""

from __future__ import annotations

from dataclasses import replace

from torch.nn.parallel import DistributedDataParallel

from bench.registry import Stage, gpus_for_ranks, technique
from bench.setup import TrainingSetup, Unsupported


@technique(
    stage=Stage.DISTRIBUTE,
    needs=[gpus_for_ranks(2)],
    ranks=2,
    slot="distribute",
    source="https://arxiv.org/abs/2006.15704",
)
def ddp_2(setup: TrainingSetup) -> TrainingSetup:
    """Two processes with half the global batch each; DistributedDataParallel averages their gradients."""
    if setup.workload.batch % setup.world_size:
        raise Unsupported(f"ddp_2 needs a batch that divides by {setup.world_size}; it is {setup.workload.batch}")
    devices = [setup.device] if setup.device.type == "cuda" else None
    return replace(setup, model=DistributedDataParallel(setup.model, device_ids=devices))
