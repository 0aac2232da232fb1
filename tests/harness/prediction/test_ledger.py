"""The ledger of memory: what is alive, what it is for, and which module it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from harness.prediction.fakes import fake_tensors
from harness.prediction.ledger import Kind, Ledger

ROWS, WIDTH = 64, 100
MATRIX_BYTES = 4 * WIDTH * WIDTH
BATCH_BYTES = 4 * ROWS * WIDTH


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3))

    def forward(self, rows: Tensor) -> Tensor:
        for layer in self.layers:
            rows = functional.relu(layer(rows))
        return rows.sum()


def updates(ledger: Ledger, count: int, momentum: float = 0.9) -> None:
    model = Stack()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum, foreach=False)
    with ledger.training(model, optimizer):
        for _ in range(count):
            model(torch.empty(ROWS, WIDTH)).backward()
            optimizer.step()
            optimizer.zero_grad()


def test_parts_are_what_they_are_for() -> None:
    ledger = Ledger(1)
    with fake_tensors(), ledger:
        updates(ledger, 2)
    peak = ledger.peak()
    assert peak.kinds[Kind.WEIGHTS] == peak.kinds[Kind.OPTIMIZER_STATE] == 3 * MATRIX_BYTES
    # The peak is in the backward pass, with all gradients but few activations, or the reverse.
    gradients, activations = peak.kinds[Kind.GRADIENTS], peak.kinds[Kind.ACTIVATIONS]
    assert gradients % MATRIX_BYTES == 0 and gradients <= 3 * MATRIX_BYTES
    assert activations <= 7 * BATCH_BYTES
    assert sum(peak.kinds.values()) == sum(peak.modules.values()) == peak.bytes


def test_layers_of_a_stack_are_one_module() -> None:
    ledger = Ledger(1)
    with fake_tensors(), ledger:
        updates(ledger, 2)
    # Weights, optimizer state and products of three layers.
    assert ledger.peak().modules["layers.*"] >= 6 * MATRIX_BYTES


def test_nothing_is_left_when_all_is_gone() -> None:
    ledger = Ledger(1)
    with fake_tensors(), ledger:
        updates(ledger, 1)
    assert ledger._alive == {}
    assert sum(block.bytes * (1 if begins else -1) for block, begins in ledger._events) == 0


def test_allocations_are_rounded_up() -> None:
    ledger = Ledger(512)
    with fake_tensors(), ledger:
        kept = [torch.empty(1), torch.empty(128), torch.empty(129)]
        assert ledger.peak().bytes == 512 + 512 + 1024
    del kept


def test_what_is_fused_is_never_in_memory() -> None:
    ledger = Ledger(1)
    with fake_tensors(), ledger:
        kept = torch.empty(100)
        with ledger.fused():
            result = (kept.square() + 1).sqrt()
        ledger.see(result)
        assert ledger.peak().bytes == 800


def test_storages_that_are_made_empty_take_nothing() -> None:
    ledger = Ledger(1)
    with fake_tensors(), ledger:
        gathered = torch.empty(100)
        gathered.untyped_storage().resize_(0)
        other = torch.empty(50)
        assert ledger.peak().bytes == 400
        gathered.untyped_storage().resize_(400)
        assert ledger.peak().bytes == 600
    del gathered, other


def test_views_take_nothing() -> None:
    ledger = Ledger(1)
    with fake_tensors(), ledger:
        whole = torch.empty(100)
        parts = [whole[:50], whole.reshape(10, 10), whole.detach()]
        assert ledger.peak().bytes == 400
    del parts
