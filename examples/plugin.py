"""A technique, a model and a plan of one's own: trainpace run mine --plugin examples/plugin.py"""

from dataclasses import replace

import torch

from bench.models import gpt2
from bench.plans import Host, Plan, WorkloadSpec, plan
from bench.registry import Change, Stage, technique
from bench.setup import TrainingSetup
from bench.workload import register


@technique(
    stage=Stage.OPTIMIZER, slot="optimizer", changes={Change.UPDATE_RULE}, source="https://arxiv.org/abs/1212.5701"
)
def adadelta(setup: TrainingSetup) -> TrainingSetup:
    """Adadelta: steps scaled by running averages, without a learning rate to choose."""
    return replace(setup, optimizer=lambda parameters: torch.optim.Adadelta(parameters, lr=1.0))


register(replace(gpt2.FAMILY, name="wide", sizes={"nano": replace(gpt2.FAMILY.sizes["nano"], width=128)}))


@plan
def mine(host: Host) -> Plan:
    """Adadelta on the wide model."""
    spec = WorkloadSpec(model="wide/nano")
    return Plan(name="mine", workloads=(spec,), compositions=(("adadelta",),), device=host.device)
