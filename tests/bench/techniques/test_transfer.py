"""Training a part of a model, or with a teacher: what should stay fixed does, and what should learn learns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.functional import log_softmax
from torch.nn.parallel import DistributedDataParallel

from bench import checkpoints
from bench.corpus import Corpus
from bench.samples import IGNORED
from bench.setup import TrainingSetup, Unsupported
from bench.spec import WorkloadSpec
from bench.techniques._blocks import blocks
from bench.techniques.distillation import TEMPERATURE, distance, larger, teacher
from bench.techniques.transfer import RANK
from harness.preparation.pretrain import make
from harness.timing.feed import Batches
from harness.timing.trainer import Trainer
from tests.training import apply, build, first_loss, own, train_three_steps

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = {"gpt2/nano": 2 * 4, "bert/nano": 2 * 6, "llama/nano": 2 * 7, "t5/nano": 2 * 6 + 2 * 10}
"""The number of linear layers in the stacks."""

AFTER = {
    "gpt2/nano": ("transformer.h.1.", "transformer.ln_f."),
    "bert/nano": ("bert.encoder.layer.1.", "cls."),
}
"""The last quarter of two layers, which is one layer, and everything after it."""

OTHERS = ["accumulate_2", "checkpoint_activations", "amp_bf16", "adamw_fused", "prune_heads_50"]

families = pytest.mark.parametrize("model", list(LAYERS))
both_models = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])


def moved(setup: TrainingSetup) -> set[str]:
    """The names of the parameters that three updates change."""
    before = {name: item.detach().clone() for name, item in setup.model.named_parameters()}
    Trainer(setup, seed=0).steps(3)
    return {name for name, item in setup.model.named_parameters() if not torch.equal(item, before[name])}


@both_models
def test_only_the_last_layers_and_what_follows_move(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "train_last_layers")
    names = moved(setup)
    last, after = AFTER[model]
    expected = {name for name, _ in setup.model.named_parameters() if name.startswith((last, after))}
    assert expected
    assert names <= expected
    # Three small updates may leave a bias unchanged.
    assert {name for name in expected if name.endswith("weight")} <= names


def test_a_quarter_of_the_layers_is_trained(corpus: Corpus) -> None:
    layers = blocks(build(corpus, "gpt2/tiny", "train_last_layers").model)
    trained = [all(item.requires_grad for item in layer.parameters()) for layer in layers]
    assert trained == [False, False, False, True]


@both_models
def test_frozen_layers_get_no_gradients(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "train_last_layers")
    seen: list[bool] = []
    blocks(setup.model)[0].register_forward_hook(lambda _module, _inputs, output: seen.append(output.requires_grad))
    train_three_steps(setup)
    assert seen == [False] * 3


@families
def test_embeddings_stay_and_so_does_a_tied_head(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "freeze_embeddings")
    head, embedding = setup.model.get_output_embeddings(), setup.model.get_input_embeddings()  # type: ignore[operator]
    before = embedding.weight.detach().clone()
    # T5 keeps its relative positions in an nn.Embedding of its first layer.
    assert all(item.requires_grad for layer in blocks(setup.model) for item in layer.parameters())
    train_three_steps(setup)
    assert torch.equal(embedding.weight, before)
    assert head.weight.requires_grad == (head.weight is not embedding.weight)


@families
def test_adapters_alone_are_trained(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "lora")
    trained = {name: item.shape for name, item in setup.model.named_parameters() if item.requires_grad}
    assert len(trained) == 2 * LAYERS[model]
    assert all(RANK in shape and "lora_" in name for name, shape in trained.items())
    assert moved(setup) == set(trained)


@families
def test_adapters_start_as_the_model_that_they_adapt(corpus: Corpus, model: str) -> None:
    assert first_loss(build(corpus, model, "lora")) == pytest.approx(first_loss(build(corpus, model)), abs=1e-6)


@families
def test_the_base_of_qlora_is_kept_in_four_bits(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "qlora")
    bases: list[Any] = [module.base_layer for module in setup.model.modules() if hasattr(module, "base_layer")]
    assert len(bases) == LAYERS[model]
    for base in bases:
        assert base.weight.quantized_data.dtype is torch.uint8
        assert 2 * base.weight.quantized_data.numel() == base.weight.numel()
    assert first_loss(setup) == pytest.approx(first_loss(build(corpus, model)), rel=1e-2)
    assert len(moved(setup)) == 2 * LAYERS[model]


@pytest.fixture(scope="module", autouse=True)
def teachers(corpus: Corpus) -> Iterator[None]:
    """The harness trains teachers before any arm needs them, and for longer; here their quality does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "UPDATES", 10)
        for model in ("gpt2/nano", "bert/nano"):
            spec = WorkloadSpec(model=model, batch=8, sequence=32)
            make(dataclasses.asdict(spec), dataclasses.asdict(corpus), ["distill"], "cpu")
        yield


NAMES = ["train_last_layers", "freeze_embeddings", "lora", "qlora", "distill"]
all_techniques = pytest.mark.parametrize("name", NAMES)


@both_models
@all_techniques
@pytest.mark.parametrize("other", OTHERS)
def test_composes(corpus: Corpus, model: str, name: str, other: str) -> None:
    train_three_steps(build(corpus, model, name, other))


@both_models
@all_techniques
def test_composes_with_ddp(corpus: Corpus, one_rank: None, model: str, name: str) -> None:
    setup = build(corpus, model, name)
    train_three_steps(replace(setup, model=DistributedDataParallel(setup.model)))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_another_kind_is_unsupported(name: str) -> None:
    with pytest.raises(Unsupported, match=f"{name} needs"):
        apply(own(lambda: nn.Sequential(nn.Linear(4, 4))), name)


def test_the_teacher_is_twice_as_deep_and_wide(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano")
    size = larger(setup.workload).size
    assert size is not None
    assert (size.layers, size.width, size.heads) == (4, 128, 4)


def test_distance_is_the_divergence_at_the_temperature() -> None:
    logits, goal = torch.randn(5, 7), torch.randn(5, 7)
    ours, theirs = (log_softmax(item / TEMPERATURE, dim=-1) for item in (logits, goal))
    expected = TEMPERATURE**2 * (theirs.exp() * (theirs - ours)).sum(-1).mean()
    torch.testing.assert_close(distance(logits, goal), expected)
    assert float(distance(goal, goal)) == 0.0


@both_models
def test_half_of_the_loss_is_the_distance_to_the_teacher_where_labels_are(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model)
    setup.model.eval()
    batch = next(Batches(setup, seed=0))
    torch.manual_seed(1)
    distilled = apply(setup, "distill")
    torch.manual_seed(1)
    same = teacher(setup)
    predicted = batch["labels"] != IGNORED
    apart = distance(setup.model(**batch).logits[predicted], same(**batch).logits[predicted])
    expected = (setup.loss(setup.model, batch) + apart) / 2
    torch.testing.assert_close(distilled.loss(setup.model, batch), expected)


def test_the_teacher_is_frozen_without_dropout_and_no_part_of_the_model(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "distill")
    model = teacher(setup)
    assert not model.training
    assert not any(item.requires_grad for item in model.parameters())
    counts = [sum(item.numel() for item in each.model.parameters()) for each in (setup, build(corpus, "gpt2/nano"))]
    assert counts[0] == counts[1]
