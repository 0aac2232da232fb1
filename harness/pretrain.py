"""Trains, once, the checkpoints that workloads and techniques start from."""

from __future__ import annotations

import contextlib
import dataclasses

import torch

from bench import checkpoints
from bench.registry import techniques
from bench.setup import Unsupported, baseline
from bench.spec import Phase
from bench.workload import Workload
from harness.arm import requested_workload
from harness.channel import Message
from harness.trainer import Trainer


def ensure(workload: Message, corpus: Message, names: list[str], device: str) -> list[str]:
    """Task: train what the workload and these techniques start from, unless it is kept from before.

    Returns the paths of the checkpoints. Raises ValueError where a model cannot be pre-trained.
    """
    asked = requested_workload({"workload": workload, "corpus": corpus})
    needed = [asked] if asked.phase is Phase.FINETUNE else []
    known = techniques()
    for name in names:
        find = known[name].pretrained
        # A model that is of no family has no teacher; the technique will say so when it is applied.
        with contextlib.suppress(Unsupported):
            needed += [find(asked)] if find is not None else []
    return [_trained(dataclasses.replace(item, phase=Phase.PRETRAIN), device) for item in needed]


def _trained(workload: Workload, device: str) -> str:
    file = checkpoints.path(workload)
    if not file.exists():
        family, size, text = workload.family, workload.size, workload.text
        assert family is not None and size is not None and text is not None
        torch.manual_seed(0)
        plain = dataclasses.replace(workload, model=lambda: family.model(size), data=text.packed)
        trainer = Trainer(baseline(plain, torch.device(device)), seed=0)
        trainer.steps(checkpoints.UPDATES)
        checkpoints.save(trainer.setup.model, file)
    return str(file)
