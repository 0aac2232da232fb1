"""Pruning: exactly the right parts are removed, they stay removed in training, and the rest computes the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2LMHeadModel, T5Config
from transformers.models.t5.modeling_t5 import T5Block

from bench.composition import compose, unmet
from bench.corpus import Corpus
from bench.host import Host
from bench.setup import TrainingSetup, Unsupported
from bench.techniques._conv1d import linear_layers
from bench.techniques.pruning import head_strength, mlps
from bench.techniques.sparsity import FINAL_SPARSITY, RAMP_UPDATES, sparsity_after
from harness.timing.trainer import Trainer
from tests.training import apply, build, first_loss, own, train_three_steps

pytestmark = pytest.mark.usefixtures("one_thread")

LAYERS = {"gpt2/nano": 2 * 4, "bert/nano": 2 * 6 + 1}
"""Linear layers below the output head: those of each block, and for BERT one more before the head."""

both_models = pytest.mark.parametrize("model", list(LAYERS))
all_techniques = pytest.mark.parametrize(
    "name", ["prune_magnitude_50", "prune_heads_50", "prune_mlp_50", "prune_gradual"]
)


def config(setup: TrainingSetup) -> Any:
    return setup.model.config


def parameter_count(setup: TrainingSetup) -> int:
    return sum(parameter.numel() for parameter in setup.model.parameters())


@both_models
def test_the_smaller_half_of_each_weight_is_masked_and_stays_masked(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model)
    layers = linear_layers(setup.model)
    dense = {name: layer.get_parameter("weight").detach().clone() for name, layer in layers.items()}
    count = parameter_count(setup)
    setup = apply(setup, "prune_magnitude_50")
    assert len(layers) == LAYERS[model]
    assert parameter_count(setup) == count
    kept = {name: layer.get_buffer("weight_mask").bool() for name, layer in layers.items()}
    for name, weight in dense.items():
        assert int(kept[name].sum()) * 2 == weight.numel()
        assert weight[kept[name]].abs().min() >= weight[~kept[name]].abs().max()
    train_three_steps(setup)
    first_loss(setup)  # A forward pass masks the updated weights.
    for name, layer in layers.items():
        masked = layer.weight
        assert isinstance(masked, torch.Tensor)
        assert torch.equal(masked != 0, kept[name])


@both_models
def test_the_output_head_is_not_masked(corpus: Corpus, model: str) -> None:
    setup = apply(build(corpus, model), "prune_magnitude_50")
    head, embedding = setup.model.get_output_embeddings(), setup.model.get_input_embeddings()  # type: ignore[operator]
    assert head.weight is embedding.weight


@both_models
def test_half_of_the_heads_leave_with_exactly_their_parameters(corpus: Corpus, model: str) -> None:
    full = build(corpus, model)
    width, layers = config(full).hidden_size, config(full).num_hidden_layers
    count = parameter_count(full)
    halved = apply(full, "prune_heads_50")
    queries_keys_values, output = 3 * (width * width + width), width * width
    assert count - parameter_count(halved) == layers * (queries_keys_values + output) // 2
    train_three_steps(halved)


ATTENTION = {
    "gpt2/tiny": ("transformer.h.{}.attn", ["c_attn"], "c_proj"),
    "bert/mini": ("bert.encoder.layer.{}.attention", ["self.query", "self.key", "self.value"], "output.dense"),
}


@pytest.mark.parametrize("model", list(ATTENTION))
def test_the_weak_heads_leave_and_the_others_compute_as_before(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model)
    size = config(setup).hidden_size // config(setup).num_attention_heads
    where, _, output = ATTENTION[model]
    with torch.no_grad():
        for index in range(config(setup).num_hidden_layers):
            mixing = setup.model.get_submodule(where.format(index)).get_submodule(output)
            weight = mixing.get_parameter("weight")
            by_input = weight.t() if isinstance(mixing, nn.Linear) else weight
            by_input *= 100
            # Nothing uses heads 1 and 3, so they are the weakest and removing them changes nothing.
            for head in (1, 3):
                by_input[head * size : (head + 1) * size] = 0
    expected = first_loss(setup)
    assert first_loss(apply(setup, "prune_heads_50")) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("model", list(ATTENTION))
def test_the_layers_really_shrink(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model)
    width = config(setup).hidden_size
    apply(setup, "prune_heads_50")
    where, inputs, output = ATTENTION[model]
    attention = setup.model.get_submodule(where.format(0))
    made = sum(attention.get_submodule(path).get_parameter("weight").shape[0] for path in inputs)
    assert made == 3 * width // 2
    assert attention.get_submodule(output).get_parameter("weight").shape == (width, width // 2)


def test_head_strength_counts_the_rows_that_make_a_head_and_the_columns_that_read_it() -> None:
    fused, output = nn.Linear(4, 12), nn.Linear(4, 4)
    with torch.no_grad():
        fused.weight.zero_()
        output.weight.zero_()
        fused.weight[4 + 2] = 1  # The keys of the second of two heads of size 2.
        output.weight[:, 0] = 2
    assert head_strength([fused], output, heads=2).tolist() == [16.0, 4.0]


def test_frozen_parameters_stay_frozen(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano")
    frozen = ["transformer.h.0.attn.c_attn.weight", "transformer.h.1.attn.c_proj.bias"]
    for name in frozen:
        setup.model.get_parameter(name).requires_grad_(False)
    apply(setup, "prune_heads_50")
    assert [name for name, item in setup.model.named_parameters() if not item.requires_grad] == frozen


@both_models
@all_techniques
@pytest.mark.parametrize("other", ["accumulate_4", "checkpoint_activations", "amp_bf16"])
def test_composes(corpus: Corpus, model: str, name: str, other: str) -> None:
    train_three_steps(apply(build(corpus, model), name, other))


@both_models
def test_both_prunings_compose(corpus: Corpus, model: str) -> None:
    train_three_steps(apply(build(corpus, model), "prune_heads_50", "prune_magnitude_50"))


@both_models
@all_techniques
def test_composes_with_ddp(corpus: Corpus, one_rank: None, model: str, name: str) -> None:
    setup = apply(build(corpus, model), name)
    train_three_steps(replace(setup, model=DistributedDataParallel(setup.model)))


@all_techniques
def test_is_captured_in_one_graph(corpus: Corpus, name: str) -> None:
    torch._dynamo.reset()
    setup = apply(build(corpus, "bert/nano"), name)
    captured = torch.compile(setup.model, backend="eager", fullgraph=True)
    train_three_steps(replace(setup, model=captured))  # type: ignore[arg-type]


@pytest.mark.parametrize("heads", [1, 3])
def test_an_odd_number_of_heads_is_unsupported(heads: int) -> None:
    size = GPT2Config(vocab_size=260, n_embd=24, n_layer=1, n_head=heads)
    with pytest.raises(Unsupported, match=f"even number; it is {heads}"):
        apply(own(lambda: GPT2LMHeadModel(size)), "prune_heads_50")


def test_other_models_are_unsupported() -> None:
    with pytest.raises(Unsupported, match="attention layers of BERT and GPT-2 only; Sequential has neither"):
        apply(own(lambda: nn.Sequential(nn.Linear(4, 4))), "prune_heads_50")
    with pytest.raises(Unsupported, match=r"needs nn\.Linear or Conv1D layers"):
        apply(own(lambda: nn.Sequential(nn.Conv2d(3, 4, 3))), "prune_magnitude_50")


def test_projections_that_were_replaced_are_unsupported(corpus: Corpus) -> None:
    setup = build(corpus, "bert/nano")
    attention = setup.model.get_submodule("bert.encoder.layer.0.attention")
    attention.set_submodule("self.query", nn.Sequential(nn.Linear(64, 64)))
    with pytest.raises(Unsupported, match=r"self\.query is a Sequential"):
        apply(setup, "prune_heads_50")


MLP = {
    "gpt2/nano": ("transformer.h.{}.mlp", ["c_fc"], "c_proj"),
    "bert/nano": ("bert.encoder.layer.{}", ["intermediate.dense"], "output.dense"),
    "llama/nano": ("model.layers.{}.mlp", ["gate_proj", "up_proj"], "down_proj"),
}


@pytest.mark.parametrize("model", list(MLP))
def test_the_weak_neurons_leave_and_the_others_compute_as_before(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model)
    where, inputs, output = MLP[model]
    with torch.no_grad():
        for index in range(config(setup).num_hidden_layers):
            reading = setup.model.get_submodule(where.format(index)).get_submodule(output)
            weight = reading.get_parameter("weight")
            by_neuron = weight.t() if isinstance(reading, nn.Linear) else weight
            by_neuron *= 100
            # Nothing uses every second neuron, so these are the weakest and removing them changes nothing.
            by_neuron[::2] = 0
    neurons = len(by_neuron)
    expected = first_loss(setup)
    assert first_loss(apply(setup, "prune_mlp_50")) == pytest.approx(expected, abs=1e-5)
    for layer in (setup.model.get_submodule(f"{where.format(0)}.{path}") for path in inputs):
        assert layer.get_parameter("weight").shape[0] * 2 == neurons
    train_three_steps(setup)


def test_attention_that_is_wider_than_the_model_is_no_mlp() -> None:
    block = T5Block(T5Config(d_model=16, d_kv=16, num_heads=2, d_ff=64))
    ((inputs, output),) = mlps(block)
    assert [layer.out_features for layer in inputs] == [output.in_features] == [64]


@both_models
def test_zeros_grow_by_the_schedule_and_stay(corpus: Corpus, model: str) -> None:
    trainer = Trainer(build(corpus, model, "prune_gradual"), seed=0)
    layers = linear_layers(trainer.setup.model)
    assert len(layers) == LAYERS[model]
    before: dict[str, torch.Tensor] = {}
    for updates in (1, 2, 3):
        trainer.steps(1)
        for name, layer in layers.items():
            zeros = layer.get_parameter("weight") == 0
            assert int(zeros.sum()) == int(sparsity_after(updates) * zeros.numel())
            assert not (before.get(name, zeros) & ~zeros).any()
            before[name] = zeros.clone()


def test_what_is_pruned_at_the_end_of_the_schedule_stays_so(corpus: Corpus) -> None:
    trainer = Trainer(build(corpus, "gpt2/nano", "prune_gradual"), seed=0)
    trainer.steps(RAMP_UPDATES)
    weight = trainer.setup.model.get_parameter("transformer.h.0.mlp.c_fc.weight")
    zeros = weight == 0
    assert int(zeros.sum()) == FINAL_SPARSITY * weight.numel()
    trainer.steps(2)
    assert torch.equal(weight == 0, zeros)


def test_sparsity_rises_ever_more_slowly_to_its_end() -> None:
    rises = [sparsity_after(updates + 1) - sparsity_after(updates) for updates in range(RAMP_UPDATES)]
    assert rises == sorted(rises, reverse=True)
    assert sum(rises) == pytest.approx(FINAL_SPARSITY)
    assert sparsity_after(10 * RAMP_UPDATES) == FINAL_SPARSITY


def test_sparse_2_4_needs_an_ampere_gpu() -> None:
    chosen = compose(["sparse_2_4"])
    assert "needs an Ampere or newer GPU" in (unmet(chosen, Host(device="cpu")) or "")
    assert unmet(chosen, Host(device="cuda", gpus=1, capability=(8, 0))) is None
