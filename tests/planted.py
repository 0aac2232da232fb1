"""Techniques that misbehave on purpose. Only tests import this module, in the fork server and in their own process."""

from __future__ import annotations

import hashlib
import itertools
import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from bench.corpus import Part
from bench.registry import Change, Stage, technique
from bench.setup import TrainingSetup, Unsupported, split
from bench.workload import Batch, Workload
from harness.timing.step import accumulate

SOURCE = "https://example.invalid/planted"

OPERATORS = torch.library.Library("planted", "FRAGMENT")
if not hasattr(torch.ops.planted, "end"):  # This file may also be imported by its path.
    OPERATORS.define("end(Tensor a) -> Tensor")
    OPERATORS.define("same(Tensor a) -> Tensor")
    OPERATORS.impl("end", lambda a: os._exit(7), "CPU")
    OPERATORS.impl("same", lambda a: a.clone(), "CPU")


@technique(stage=Stage.STEP, source=SOURCE)
def planted_half_batch(setup: TrainingSetup) -> TrainingSetup:
    """Trains on the first half of every batch."""

    def half(model: nn.Module, batch: Batch) -> Tensor:
        return setup.loss(model, split(batch, 2)[0])

    return replace(setup, loss=half)


def _no_teacher(workload: Workload) -> Workload:
    raise RuntimeError("the teacher is ill")


@technique(stage=Stage.STEP, pretrained=_no_teacher, source=SOURCE)
def planted_no_teacher(setup: TrainingSetup) -> TrainingSetup:
    """Learns from a model that cannot be trained."""
    return setup


@technique(stage=Stage.STEP, source=SOURCE)
def planted_dear(setup: TrainingSetup) -> TrainingSetup:
    """Multiplies large matrices in every pass, to no purpose."""
    large = torch.ones(2000, 2000)

    def dear(model: nn.Module, batch: Batch) -> Tensor:
        for _ in range(8):
            large @ large
        return setup.loss(model, batch)

    return replace(setup, loss=dear)


class _IdleOptimizer(torch.optim.SGD):
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Does nothing, quickly."""


@technique(stage=Stage.OPTIMIZER, changes={Change.UPDATE_RULE}, source=SOURCE)
def planted_idle_optimizer(setup: TrainingSetup) -> TrainingSetup:
    """An optimizer whose update changes nothing."""

    def idle(parameters: Iterable[nn.Parameter]) -> Optimizer:
        return _IdleOptimizer(parameters, lr=0.1)

    return replace(setup, optimizer=idle)


@technique(stage=Stage.STEP, changes={Change.UPDATE_RULE, Change.NUMERICS}, source=SOURCE)
def planted_cached_loss(setup: TrainingSetup) -> TrainingSetup:
    """Computes only the first loss, and returns it for every later batch."""
    kept: list[Tensor] = []

    def cached(model: nn.Module, batch: Batch) -> Tensor:
        if not kept:
            loss = setup.loss(model, batch)
            kept.append(loss.detach())
            return loss
        parameter = next(item for item in model.parameters() if item.requires_grad)
        return kept[0] + 0 * parameter.sum()

    return replace(setup, loss=cached)


@technique(stage=Stage.MODEL, source=SOURCE)
def planted_frozen_half(setup: TrainingSetup) -> TrainingSetup:
    """Stops training every second parameter tensor without saying so."""
    for parameter in list(setup.model.parameters())[::2]:
        parameter.requires_grad_(False)
    return setup


@technique(stage=Stage.MODEL, source=SOURCE)
def planted_raises(setup: TrainingSetup) -> TrainingSetup:
    """Raises an exception."""
    raise RuntimeError("planted failure")


@technique(stage=Stage.MODEL, source=SOURCE)
def planted_unsupported(setup: TrainingSetup) -> TrainingSetup:
    """Finds that it cannot run on this model."""
    raise Unsupported("planted_unsupported needs another model")


@technique(stage=Stage.MODEL, source=SOURCE)
def planted_hangs(setup: TrainingSetup) -> TrainingSetup:
    """Never returns."""
    if signal.getitimer(signal.ITIMER_REAL)[0]:
        # Its only purpose is to reach a timeout: tests need not wait for all of it.
        signal.setitimer(signal.ITIMER_REAL, 1.0)
    threading.Event().wait()
    return setup


@technique(stage=Stage.STEP, source=SOURCE)
def planted_kills_itself(setup: TrainingSetup) -> TrainingSetup:
    """Kills its own process at the first loss."""

    def deadly(model: nn.Module, batch: Batch) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return setup.loss(model, batch)

    return replace(setup, loss=deadly)


@technique(stage=Stage.STEP, source=SOURCE)
def planted_spins(setup: TrainingSetup) -> TrainingSetup:
    """Keeps a core busy between its steps, as a library's thread might: without holding the GIL."""
    data = bytes(1 << 20)

    def spin() -> None:
        while True:
            hashlib.sha256(data)

    threading.Thread(target=spin, daemon=True).start()
    return setup


@technique(stage=Stage.STEP, source=SOURCE, changes={Change.UPDATE_RULE})
def planted_divides_again(setup: TrainingSetup) -> TrainingSetup:
    """Divides gradients by the number of micro-batches, which was already done; alone it has no effect."""

    def divide(optimizer: Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for item in group["params"]:
                item.grad /= setup.accumulate

    def made(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = torch.optim.SGD(parameters, lr=0.5)
        optimizer.register_step_pre_hook(divide)
        return optimizer

    return replace(setup, optimizer=made)


@technique(stage=Stage.MODEL, source=SOURCE)
def planted_awake(setup: TrainingSetup) -> TrainingSetup:
    """The model of tests/drowsy.py no longer sleeps in its forward pass."""
    setup.model.sleep_s = 0.0  # type: ignore[assignment]
    return setup


@technique(stage=Stage.STEP, source=SOURCE)
def planted_nan(setup: TrainingSetup) -> TrainingSetup:
    """Every loss is NaN."""
    return replace(setup, loss=lambda model, batch: setup.loss(model, batch) * float("nan"))


@technique(stage=Stage.MODEL, source=SOURCE)
def planted_out_of_memory(setup: TrainingSetup) -> TrainingSetup:
    """Asks for more memory than any machine has."""
    torch.empty(2**60, dtype=torch.uint8)
    return setup


@technique(stage=Stage.STEP, source=SOURCE)
def planted_takes_memory(setup: TrainingSetup) -> TrainingSetup:
    """Takes all available memory at the first loss, until it is stopped."""

    def greedy(model: nn.Module, batch: Batch) -> Tensor:
        taken = []
        while True:
            taken.append(torch.ones(1 << 24))

    return replace(setup, loss=greedy)


@technique(stage=Stage.COMPILE, changes={Change.NUMERICS}, source=SOURCE)
def planted_idle_compile(setup: TrainingSetup) -> TrainingSetup:
    """Compiles the model, but calls the one that is not compiled."""
    inner, loss = setup.model, setup.loss
    compiled = torch.compile(inner)
    return replace(setup, model=compiled, loss=lambda model, batch: loss(inner, batch))  # type: ignore[arg-type]


@technique(stage=Stage.DISTRIBUTE, ranks=2, source=SOURCE)
def planted_idle_ranks(setup: TrainingSetup) -> TrainingSetup:
    """Wraps the model for the exchange of gradients, but calls the one inside."""
    inner, loss = setup.model, setup.loss
    wrapped = nn.parallel.DistributedDataParallel(inner)
    return replace(setup, model=wrapped, loss=lambda model, batch: loss(inner, batch))


@technique(stage=Stage.DISTRIBUTE, ranks=2, source=SOURCE)
def planted_second_rank_refuses(setup: TrainingSetup) -> TrainingSetup:
    """The first rank waits for the second, which cannot take part, until the launcher ends it."""
    if setup.rank:
        raise Unsupported("planted: the second rank refuses")
    threading.Event().wait()
    return setup


@technique(stage=Stage.DISTRIBUTE, ranks=2, source=SOURCE)
def planted_first_rank_refuses(setup: TrainingSetup) -> TrainingSetup:
    """The second rank waits for the first, which cannot take part, until the launcher ends it."""
    if not setup.rank:
        raise Unsupported("planted: the first rank refuses")
    threading.Event().wait()
    return setup


@technique(stage=Stage.DISTRIBUTE, ranks=2, source=SOURCE)
def planted_second_rank_is_killed(setup: TrainingSetup) -> TrainingSetup:
    """The first rank waits for the second, which was killed, until the launcher ends it."""
    if setup.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()
    return setup


@technique(stage=Stage.STEP, source=SOURCE)
def planted_equal_weights(setup: TrainingSetup) -> TrainingSetup:
    """Accumulates as if every micro-batch had the same weight."""
    return replace(setup, accumulate=4, targets=None)


@technique(stage=Stage.NUMERICS, changes={Change.NUMERICS}, source=SOURCE)
def planted_wrong_numbers(setup: TrainingSetup) -> TrainingSetup:
    """A faulty number format: three times the loss."""
    loss = setup.loss
    return replace(setup, loss=lambda model, batch: 3.0 * loss(model, batch))


@technique(stage=Stage.DATA, changes={Change.DATA_ORDER}, source=SOURCE)
def planted_held_out(setup: TrainingSetup) -> TrainingSetup:
    """Trains on the held-out text."""
    text = setup.workload.text
    assert text is not None
    held_out = replace(text, corpus=text.corpus.of(Part.HELD_OUT)).packed()
    return replace(setup, workload=replace(setup.workload, data=lambda: held_out))


@technique(stage=Stage.STEP, changes={Change.OBJECTIVE}, source=SOURCE)
def planted_doubled_loss(setup: TrainingSetup) -> TrainingSetup:
    """Trains on twice the loss."""
    return replace(setup, loss=lambda model, batch: 2 * setup.loss(model, batch))


@technique(stage=Stage.STEP, changes={Change.UPDATE_RULE}, source=SOURCE)
def planted_every_third(setup: TrainingSetup) -> TrainingSetup:
    """Learns from one batch in three, and only computes the loss of the others: faster steps that teach less."""
    taken = itertools.count()

    def gradients(own: TrainingSetup, batch: Batch) -> Tensor:
        if next(taken) % 3 == 0:
            return accumulate(own, batch)
        with torch.no_grad():
            return own.loss(own.model, batch).detach()

    return replace(setup, gradients=gradients)


@technique(stage=Stage.STEP, source=SOURCE)
def planted_awake_by_half(setup: TrainingSetup) -> TrainingSetup:
    """Does not sleep, and trains on only the first half of every batch: fast because it does less."""
    return planted_half_batch(planted_awake(setup))
