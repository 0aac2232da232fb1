"""Trains, once, the checkpoints that workloads and techniques start from."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

import torch

from bench import checkpoints
from bench.registry import techniques
from bench.setup import Unsupported, baseline
from bench.spec import Phase
from bench.workload import Workload
from harness.arm import requested_workload
from harness.channel import Message
from harness.nursery import ArmFailed, Nursery
from harness.prepare import Prepared
from harness.trainer import Trainer

TIMEOUT_S = 3600.0
"""For the checkpoints of one workload, which are trained once and kept."""


def pretrain(prepared: Prepared, nursery: Nursery, show: Callable[[str], object]) -> None:
    """Make the checkpoints that are not kept from an earlier run; `show` is told the workload whose are made.

    Raises ValueError where a model cannot be pre-trained.
    """
    for entry in prepared.entries:
        name = entry.spec.name
        arguments = {
            "workload": dataclasses.asdict(entry.spec),
            "corpus": dataclasses.asdict(entry.corpus),
            "names": sorted({item for trial in prepared.trials(entry) for item in trial.techniques}),
        }
        try:
            if nursery.run("harness.pretrain:missing", arguments, TIMEOUT_S):
                show(name)
                nursery.run("harness.pretrain:make", arguments | {"device": prepared.plan.device}, TIMEOUT_S)
        except ArmFailed as failure:
            raise ValueError(f"model {name!r} cannot be pre-trained: {failure.reason}") from failure


def missing(workload: Message, corpus: Message, names: list[str]) -> list[str]:
    """Task: the paths of the checkpoints that the workload and these techniques start from and that do not exist."""
    return [str(checkpoints.path(item)) for item in _missing(workload, corpus, names)]


def make(workload: Message, corpus: Message, names: list[str], device: str) -> list[str]:
    """Task: train the missing checkpoints. Returns their paths."""
    return [_trained(item, device) for item in _missing(workload, corpus, names)]


def _missing(workload: Message, corpus: Message, names: list[str]) -> list[Workload]:
    asked = requested_workload({"workload": workload, "corpus": corpus})
    needed = [asked] if asked.phase is Phase.FINETUNE else []
    known = techniques()
    for name in names:
        find = known[name].pretrained
        # A model that is of no family has no teacher; the technique will say so when it is applied.
        with contextlib.suppress(Unsupported):
            needed += [find(asked)] if find is not None else []
    plain = [dataclasses.replace(item, phase=Phase.PRETRAIN) for item in needed]
    return [item for item in plain if not checkpoints.path(item).exists()]


def _trained(workload: Workload, device: str) -> str:
    family, size, text = workload.family, workload.size, workload.text
    assert family is not None and size is not None and text is not None
    torch.manual_seed(0)
    plain = dataclasses.replace(workload, model=lambda: family.model(size), data=text.packed)
    trainer = Trainer(baseline(plain, torch.device(device)), seed=0)
    trainer.steps(checkpoints.UPDATES)
    file = checkpoints.path(workload)
    checkpoints.save(trainer.setup.model, file)
    return str(file)
