"""Learning from a larger model beside the labels."""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench import checkpoints
from bench.registry import Change, Stage, technique
from bench.samples import IGNORED
from bench.setup import TrainingSetup, Unsupported
from bench.spec import Phase
from bench.workload import Batch, Workload

TEMPERATURE = 2.0


def larger(workload: Workload) -> Workload:
    """The workload of the teacher: twice the layers, the width and the heads of the size that the workload is named by.

    A student that was made smaller has the teacher of its full size.
    """
    if workload.family is not None and workload.text is None:
        raise Unsupported(f"distill has a teacher that learned from text; {workload.name} reads none")
    family = workload.family
    size = family.sizes.get(workload.name.partition("/")[2]) if family else None
    if family is None or size is None:
        raise Unsupported(f"distill needs a model from a family, FAMILY/SIZE; {workload.name} is from none")
    size = dataclasses.replace(size, layers=2 * size.layers, width=2 * size.width, heads=2 * size.heads)
    return dataclasses.replace(workload, model=partial(family.model, size), size=size)


@technique(
    stage=Stage.MODEL,
    changes={Change.OBJECTIVE},
    slot="objective",
    # The teacher is a language model, so it cannot teach a classifier.
    phases={Phase.PRETRAIN},
    pretrained=larger,
    source="https://arxiv.org/abs/1503.02531",
)
def distill(setup: TrainingSetup) -> TrainingSetup:
    """Half of the loss is the distance to the softened predictions of a frozen teacher twice as deep and wide."""
    frozen = teacher(setup)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        output = model(**batch)
        with torch.no_grad():
            goal = frozen(**batch).logits
        predicted = batch["labels"] != IGNORED
        # A padded vocabulary has columns that the teacher lacks.
        known = output.logits[..., : goal.shape[-1]]
        mean: Tensor = (output.loss + distance(known[predicted], goal[predicted])) / 2
        return mean

    return dataclasses.replace(setup, loss=loss)


def distance(logits: Tensor, goal: Tensor) -> Tensor:
    """The mean Kullback-Leibler divergence of predictions, shape (positions, vocabulary), from the goal's.

    Both are softened by TEMPERATURE; its square keeps the gradients as large as those of the labels.
    """
    ours, theirs = (functional.log_softmax(item.float() / TEMPERATURE, dim=-1) for item in (logits, goal))
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True) * TEMPERATURE**2


def teacher(setup: TrainingSetup) -> nn.Module:
    """The pre-trained teacher on the setup's device, frozen and without dropout."""
    workload = larger(setup.workload)
    with setup.device:
        model = checkpoints.load(workload, workload.model())
    return model.to(setup.device).eval().requires_grad_(False)
