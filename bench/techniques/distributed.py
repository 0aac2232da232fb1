"""Several processes that train one model."""

from __future__ import annotations

from dataclasses import replace

from torch.nn.parallel import DistributedDataParallel

from bench.registry import Stage, technique
from bench.setup import TrainingSetup


@technique(
    stage=Stage.DISTRIBUTE,
    ranks=2,
    slot="distribute",
    source="https://arxiv.org/abs/2006.15704",
)
def ddp_2(setup: TrainingSetup) -> TrainingSetup:
    """Two processes with half the global batch each; DistributedDataParallel averages their gradients."""
    devices = [setup.device] if setup.device.type == "cuda" else None
    model = DistributedDataParallel(setup.model, device_ids=devices)
    return replace(setup, model=model, no_sync=model.no_sync)
