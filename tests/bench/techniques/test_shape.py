"""Other architectures: layers have the claimed number, width, sharing and rate of skipping."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bench.corpus import Corpus
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._blocks import blocks, stacks
from bench.techniques.shape import SKIPPED
from harness.timing.feed import Batches
from harness.timing.trainer import Trainer
from tests.training import apply, build, own, train_three_steps

pytestmark = pytest.mark.usefixtures("one_thread")

both_models = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
families = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano", "llama/nano", "t5/nano", "distilbert/nano"])


def config(setup: TrainingSetup) -> Any:
    return setup.model.config


@families
def test_half_the_layers_of_half_the_width(corpus: Corpus, model: str) -> None:
    full, small = build(corpus, model), build(corpus, model, "fewer_layers", "narrower")
    assert 2 * len(blocks(small.model)) == len(blocks(full.model))
    assert 2 * config(small).hidden_size == config(full).hidden_size
    assert small.workload.size is not None
    with torch.device("meta"):
        described = small.workload.model()
    assert sum(item.numel() for item in described.parameters()) == sum(
        item.numel() for item in small.model.parameters()
    )
    train_three_steps(small)


def test_a_model_of_no_family_cannot_be_rebuilt() -> None:
    for name in ("fewer_layers", "narrower"):
        with pytest.raises(Unsupported, match=f"{name} needs a model from a family"):
            apply(own(lambda: nn.Sequential(nn.Linear(4, 4))), name)


@families
def test_all_layers_are_one_and_still_called_as_often(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "share_layers")
    calls: list[object] = []
    for stack in stacks(setup.model).values():
        assert len(stack) == 2
        assert stack[0] is stack[1]
        stack[0].register_forward_hook(lambda *_: calls.append(_))
    one = sum(item.numel() for stack in stacks(setup.model).values() for item in stack[0].parameters())
    plain = build(corpus, model)
    counts = [sum(item.numel() for item in each.model.parameters()) for each in (plain, setup)]
    # Only T5's first layer has the relative positions.
    assert counts[0] - counts[1] == pytest.approx(one, rel=1e-2)
    train_three_steps(setup)
    assert len(calls) == 3 * len(blocks(setup.model))


@both_models
@pytest.mark.parametrize("recomputed", [False, True])
def test_skipped_layers_are_not_computed_and_recomputation_skips_the_same(
    corpus: Corpus, model: str, recomputed: bool
) -> None:
    setup = build(corpus, model, "layer_drop", *(["checkpoint_activations"] if recomputed else []))
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    layers = blocks(setup.model)
    for block in layers:
        # The first part of the block is called whenever the block is computed.
        next(module for module in block.modules() if isinstance(module, nn.LayerNorm)).register_forward_hook(count)
    steps = 100
    Trainer(setup, seed=0).steps(steps)
    passes = steps * len(layers) * (2 if recomputed else 1)
    assert 1 - calls / passes == pytest.approx(SKIPPED, abs=0.1)
    calls = 0
    setup.model.eval()
    with torch.no_grad():
        setup.model(input_ids=torch.arange(32).view(1, 32))
    assert calls == len(layers)


def test_a_skipped_layer_is_not_updated(corpus: Corpus) -> None:
    trainer = Trainer(build(corpus, "gpt2/nano", "layer_drop"), seed=0)
    assert trainer.optimizer is not None
    computed: list[bool] = []
    updated: list[bool] = []
    first = blocks(trainer.setup.model)[0]
    weight = next(first.parameters())
    first.get_submodule("ln_1").register_forward_hook(lambda *_: computed.append(True))
    trainer.optimizer.register_step_pre_hook(lambda *_: updated.append(weight.grad is not None))
    trainer.steps(20)
    assert 0 < len(computed) == sum(updated) < 20


def test_layers_that_need_each_other_are_not_skipped(corpus: Corpus) -> None:
    with pytest.raises(Unsupported, match="can do without each other"):
        build(corpus, "t5/nano", "layer_drop")


@families
def test_the_vocabulary_is_padded_with_rows_that_lose_their_probability(corpus: Corpus, model: str) -> None:
    plain, setup = build(corpus, model), build(corpus, model, "pad_vocabulary")
    known = config(plain).vocab_size
    assert known < config(setup).vocab_size == 384
    head, embedding = setup.model.get_output_embeddings(), setup.model.get_input_embeddings()  # type: ignore[operator]
    assert head.weight.shape[0] == embedding.weight.shape[0] == 384
    batch = next(Batches(setup, seed=0))

    def of_padding() -> float:
        with torch.no_grad():
            return float(setup.model(**batch).logits.softmax(-1)[..., known:].sum(-1).mean())

    before = of_padding()
    Trainer(setup, seed=0).steps(10)
    assert of_padding() < before


def test_an_even_vocabulary_needs_no_padding(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "pad_vocabulary")
    with pytest.raises(Unsupported, match="not a multiple of 128; it is 384"):
        apply(setup, "pad_vocabulary")
