"""Memory savers: they recompute, keep and free what they claim to, and the training is the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from bench.composition import compose
from bench.corpus import Corpus
from bench.setup import Unsupported
from harness.timing.feed import Batches
from harness.timing.step import accumulate
from harness.timing.trainer import Trainer
from tests.training import build, own

pytestmark = pytest.mark.usefixtures("one_thread")

both_models = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
PRODUCTS = {"addmm", "_scaled_dot_product_flash_attention_for_cpu"}
"""Products in the layers' forward pass; the backward pass uses `mm` and other operators."""
CHEAP = {"native_layer_norm", "tanh", "gelu"}


class Counting(TorchDispatchMode):
    """Counts the operators that actually run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch has no types here
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[function.__name__.partition(".")[0]] += 1
        return function(*args, **(kwargs or {}))

    def of(self, names: set[str]) -> int:
        return sum(self.calls[name] for name in names)


def operators(corpus: Corpus, model: str, *names: str) -> Counting:
    """The operators of one forward and backward pass."""
    setup = build(corpus, model, *names)
    batch = next(Batches(setup, seed=0))
    counting = Counting()
    with counting:
        accumulate(setup, batch)
    return counting


def losses(corpus: Corpus, model: str, *names: str) -> list[float]:
    setup = build(corpus, model, *names)
    torch.manual_seed(0)
    taken: list[float] = Trainer(setup, seed=0).steps(4)["losses"]
    return taken


@both_models
@pytest.mark.parametrize("others", [(), ("amp_bf16",)])
def test_selective_checkpoints_compute_again_all_but_products(
    corpus: Corpus, model: str, others: tuple[str, ...]
) -> None:
    plain = operators(corpus, model, *others)
    selective = operators(corpus, model, "checkpoint_selective", *others)
    every = operators(corpus, model, "checkpoint_activations", *others)
    assert plain.of(PRODUCTS) == selective.of(PRODUCTS) < every.of(PRODUCTS)
    assert plain.of(CHEAP) < selective.of(CHEAP) == every.of(CHEAP)


@both_models
@pytest.mark.parametrize("name", ["checkpoint_activations", "checkpoint_selective", "optimizer_in_backward"])
def test_the_losses_stay_the_same(corpus: Corpus, model: str, name: str) -> None:
    assert losses(corpus, model, name) == pytest.approx(losses(corpus, model), rel=1e-5)


@pytest.mark.parametrize("name", ["checkpoint_activations", "checkpoint_selective"])
def test_a_model_that_knows_no_checkpoints_is_refused(name: str) -> None:
    (technique,) = compose([name])
    with pytest.raises(Unsupported, match=f"{name} needs a model with gradient_checkpointing_enable"):
        technique.apply(own(lambda: nn.Linear(2, 2)))


@both_models
def test_gradients_are_gone_as_soon_as_they_are_used(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "optimizer_in_backward")
    parameters = list(setup.model.parameters())
    trainer = Trainer(setup, seed=0)
    alive: list[int] = []

    def count(_: Tensor) -> None:
        alive.append(sum(item.grad is not None for item in parameters))

    for parameter in parameters:
        parameter.register_post_accumulate_grad_hook(count)
    trainer.steps(1)
    assert alive == [0] * len(parameters)


def test_updates_in_the_backward_pass_look_like_one_optimizer(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "optimizer_in_backward")
    trainer = Trainer(setup, seed=0)
    assert isinstance(trainer.optimizer, Optimizer)
    calls: list[str] = []
    trainer.optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    trainer.optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    trainer.steps(3)
    assert calls == ["before", "after"] * 3
    assert set(trainer.optimizer.state) == set(setup.model.parameters())
    assert {float(state["step"]) for state in trainer.optimizer.state.values()} == {3.0}
