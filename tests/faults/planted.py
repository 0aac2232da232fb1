"""Techniques that fail in one way each. The faults' fork servers import this module."""

from __future__ import annotations

import ctypes
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from bench.registry import Stage, technique
from bench.setup import TrainingSetup
from bench.workload import Batch

SOURCE = "https://example.invalid/faults"
IN_WARMUP, IN_A_TURN = 3, 12
"""The numbers of the losses at which something happens: an arm warms up for at least six steps."""

LOUD_BYTES = 100 * 1000 * 1000
ROOM_BYTES = 300 << 20
LEFT_BEHIND = "trainpace-left-behind"
"""The name of the grandchild process."""


def at_loss(setup: TrainingSetup, number: int, happens: Callable[[], object]) -> TrainingSetup:
    """The setup in which this happens at a loss of this number in the timed process."""
    calls = itertools.count(1)

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        if next(calls) == number:
            happens()
        return setup.loss(model, batch)

    return replace(setup, loss=loss)


@technique(stage=Stage.STEP, source=SOURCE)
def fault_segfault(setup: TrainingSetup) -> TrainingSetup:
    """Reads from an invalid address."""
    return at_loss(setup, IN_WARMUP, lambda: ctypes.string_at(0))


@technique(stage=Stage.STEP, source=SOURCE)
def fault_abort(setup: TrainingSetup) -> TrainingSetup:
    """Calls abort."""
    return at_loss(setup, IN_WARMUP, os.abort)


@technique(stage=Stage.STEP, source=SOURCE)
def fault_exits_early(setup: TrainingSetup) -> TrainingSetup:
    """Exits as if everything were done."""
    return at_loss(setup, IN_WARMUP, lambda: os._exit(0))


@technique(stage=Stage.STEP, source=SOURCE)
def fault_killed(setup: TrainingSetup) -> TrainingSetup:
    """Is killed from outside."""
    return at_loss(setup, IN_WARMUP, lambda: os.kill(os.getpid(), signal.SIGKILL))


@technique(stage=Stage.STEP, source=SOURCE)
def fault_address_space(setup: TrainingSetup) -> TrainingSetup:
    """Needs more address space than it is allowed."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, used + ROOM_BYTES))
    return at_loss(setup, IN_WARMUP, lambda: torch.ones(ROOM_BYTES))


@technique(stage=Stage.STEP, source=SOURCE)
def fault_takes_memory(setup: TrainingSetup) -> TrainingSetup:
    """Takes memory until the kernel kills it."""
    taken: list[Tensor] = []

    def take() -> None:
        while True:
            taken.append(torch.ones(1 << 24))

    return at_loss(setup, IN_WARMUP, take)


@technique(stage=Stage.MODEL, source=SOURCE)
def fault_hangs_in_build(setup: TrainingSetup) -> TrainingSetup:
    """Hangs while it is built."""
    threading.Event().wait()
    return setup


@technique(stage=Stage.STEP, source=SOURCE)
def fault_hangs_in_warmup(setup: TrainingSetup) -> TrainingSetup:
    """Hangs in an early step."""
    return at_loss(setup, IN_WARMUP, threading.Event().wait)


@technique(stage=Stage.STEP, source=SOURCE)
def fault_hangs_in_a_turn(setup: TrainingSetup) -> TrainingSetup:
    """Hangs in a later step."""
    return at_loss(setup, IN_A_TURN, threading.Event().wait)


@technique(stage=Stage.DISTRIBUTE, ranks=2, source=SOURCE)
def fault_hangs_in_a_collective(setup: TrainingSetup) -> TrainingSetup:
    """The second rank does not take part, and the first waits for it."""
    setup = replace(setup, model=DistributedDataParallel(setup.model))
    return at_loss(setup, IN_WARMUP, threading.Event().wait) if setup.rank == 1 else setup


@technique(stage=Stage.STEP, source=SOURCE)
def fault_loud(setup: TrainingSetup) -> TrainingSetup:
    """Prints 100 MB."""
    line = "x" * 99 + "\n"

    def shout() -> None:
        for _ in range(LOUD_BYTES // len(line) // 1000):
            sys.stdout.write(line * 1000)
        sys.stdout.flush()

    return at_loss(setup, IN_WARMUP, shout)


@technique(stage=Stage.STEP, source=SOURCE)
def fault_garbage(setup: TrainingSetup) -> TrainingSetup:
    """Writes garbage into all its sockets, including the one for its commands."""

    def write() -> None:
        for entry in Path("/proc/self/fd").iterdir():
            if entry.is_symlink() and os.readlink(entry).startswith("socket:"):
                os.write(int(entry.name), b"\x00\xff garbage \n")

    return at_loss(setup, IN_WARMUP, write)


@technique(stage=Stage.STEP, source=SOURCE)
def fault_leaves_grandchildren(setup: TrainingSetup) -> TrainingSetup:
    """Starts a process that starts another, in new sessions, and abandons them."""

    def leave() -> None:
        subprocess.run(["setsid", "bash", "-c", f"(exec -a {LEFT_BEHIND} sleep 1000) & exit"], check=True)

    return at_loss(setup, IN_WARMUP, leave)
