"""Trains, once, the checkpoints that workloads and techniques start from."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

from bench import checkpoints
from bench.registry import techniques
from bench.setup import Unsupported, baseline
from bench.spec import Phase
from bench.workload import Workload
from harness.message import Message
from harness.preparation.prepared import Entry
from harness.processes.fork_server import ForkServer
from harness.processes.worker import requested_workload
from harness.timing.trainer import Trainer

TIMEOUT_S = 3600.0
"""For the checkpoints of one workload, which are trained once and kept."""


def pretrain(
    entry: Entry, techniques: Sequence[str], device: str, fork_server: ForkServer, show: Callable[[], object]
) -> None:
    """Make what the workload and these techniques start from, unless it is kept from an earlier run.

    `show` is called if there is anything to make. Raises ArmFailed, with how it ended, if it cannot be made.
    """
    arguments = {
        "workload": dataclasses.asdict(entry.spec),
        "corpus": entry.corpus.as_message(),
        "names": list(techniques),
    }
    if fork_server.run("harness.preparation.pretrain:is_missing", arguments, TIMEOUT_S):
        show()
        fork_server.run("harness.preparation.pretrain:make", arguments | {"device": device}, TIMEOUT_S)


def is_missing(workload: Message, corpus: Message, names: list[str]) -> bool:
    """Task: whether there is a checkpoint to make."""
    return bool(_missing(workload, corpus, names))


def make(workload: Message, corpus: Message, names: list[str], device: str) -> None:
    """Task: train the missing checkpoints."""
    for item in _missing(workload, corpus, names):
        _train(item, device)


def _missing(workload: Message, corpus: Message, names: list[str]) -> list[Workload]:
    asked = requested_workload({"workload": workload, "corpus": corpus})
    # A model folder has its own weights.
    needed = [asked] if asked.phase is Phase.FINETUNE and asked.family is not None else []
    known = techniques()
    for name in names:
        find = known[name].pretrained
        # A model of no family has no teacher; the technique reports that itself when it is applied.
        with contextlib.suppress(Unsupported):
            needed += [find(asked)] if find is not None else []
    by_path = {checkpoints.path(item): item for item in needed}
    return [item for path, item in by_path.items() if not path.exists()]


def _train(workload: Workload, device: str) -> None:
    family, size, text = workload.family, workload.size, workload.text
    assert family is not None and size is not None and text is not None
    torch.manual_seed(0)
    samples = text.packed()
    plain = dataclasses.replace(
        workload,
        phase=Phase.PRETRAIN,
        model=lambda: family.model(size),
        data=lambda: samples,
        # The weights must not depend on the batch of the run that happens to make them.
        batch=min(size.batch, len(samples)),
    )
    trainer = Trainer(baseline(plain, torch.device(device)), seed=0)
    last = trainer.steps(checkpoints.UPDATES)["losses"][-1]
    if not math.isfinite(last):
        raise FloatingPointError(f"the loss of the pre-training is {last}")
    checkpoints.save(trainer.setup.model, checkpoints.path(workload))
