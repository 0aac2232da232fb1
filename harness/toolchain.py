"""What torch.compile finds out about a machine's compiler, kept apart from what it compiles for an arm."""

from __future__ import annotations

import os
import shutil

import torch

from harness.nursery import ArmFailed, Nursery
from harness.prepare import Prepared

TIMEOUT_S = 120.0


def learn(prepared: Prepared, nursery: Nursery, folder: str) -> None:
    """Fill the folder, a compile cache, with what is the machine's: its vector instructions, say, found by trying.

    An arm's cache starts as a copy of it. Were it empty, the first step of every compiling arm would hold some ten
    seconds that a user waits for once on a machine, not once a model.
    """
    arguments = {"folder": folder, "device": prepared.plan.device}
    try:
        nursery.run("harness.toolchain:compile_something", arguments, TIMEOUT_S)
    except ArmFailed:
        # What is half found would be copied: the arms find out for themselves, or fail with their reasons.
        shutil.rmtree(folder, ignore_errors=True)


def compile_something(folder: str, device: str) -> None:
    """Task: compile a function, any function, with this folder for a cache."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    torch.compile(lambda tensor: tensor.sin().sum(0))(torch.ones(8, 8, device=device))
