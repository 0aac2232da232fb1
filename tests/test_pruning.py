"""Pruning: exactly what should go is gone, it stays gone while training, and the rest still computes the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import GPT2Config, GPT2LMHeadModel

from bench.corpus import Corpus
from bench.registry import compose
from bench.setup import TrainingSetup, Unsupported, baseline
from bench.spec import WorkloadSpec
from bench.techniques._conv1d import linear_layers
from bench.techniques.pruning import head_strength
from bench.workload import Workload, resolve
from harness.step import batches, train_step

LAYERS = {"gpt2/nano": 2 * 4, "bert/nano": 2 * 6 + 1}
"""Linear layers under the output head: in each block, and BERT's one more before the head."""

both_models = pytest.mark.parametrize("model", list(LAYERS))
both_techniques = pytest.mark.parametrize("name", ["prune_magnitude_50", "prune_heads_50"])


def apply(setup: TrainingSetup, *names: str) -> TrainingSetup:
    for technique in compose(names):
        setup = technique.apply(setup)
    return setup


def plain(corpus: Corpus, model: str) -> TrainingSetup:
    torch.manual_seed(0)
    return baseline(resolve(WorkloadSpec(model=model, batch=8, sequence=32), corpus), torch.device("cpu"))


def own(make: Callable[[], nn.Module]) -> TrainingSetup:
    return baseline(Workload(model=make, data=list, batch=2), torch.device("cpu"))


def config(setup: TrainingSetup) -> Any:
    return setup.model.config


def first_loss(setup: TrainingSetup) -> float:
    setup.model.eval()
    with torch.no_grad():
        return float(setup.loss(setup.model, next(batches(setup, seed=0))))


def parameter_count(setup: TrainingSetup) -> int:
    return sum(parameter.numel() for parameter in setup.model.parameters())


def train_three_steps(setup: TrainingSetup) -> None:
    """Takes three updates and asserts what training must show."""
    parameters = [item for item in setup.model.parameters() if item.requires_grad]
    before = [item.detach().clone() for item in parameters]
    optimizer = setup.optimizer(parameters)
    without_gradient: set[int] = set()

    def look(*_: object) -> None:
        without_gradient.update(index for index, item in enumerate(parameters) if item.grad is None)

    optimizer.register_step_pre_hook(look)
    data = batches(setup, seed=0)
    losses = [float(train_step(setup, optimizer, next(data))) for _ in range(3)]
    assert all(math.isfinite(loss) for loss in losses)
    assert not without_gradient
    assert all(not torch.equal(new, old) for new, old in zip(parameters, before, strict=True))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps this small gain nothing from more threads, which spin for a long time where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@both_models
def test_the_smaller_half_of_each_weight_is_masked_and_stays_masked(corpus: Corpus, model: str) -> None:
    setup = plain(corpus, model)
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
    setup = apply(plain(corpus, model), "prune_magnitude_50")
    head, embedding = setup.model.get_output_embeddings(), setup.model.get_input_embeddings()  # type: ignore[operator]
    assert head.weight is embedding.weight


@both_models
def test_half_of_the_heads_leave_with_exactly_their_parameters(corpus: Corpus, model: str) -> None:
    full = plain(corpus, model)
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
    setup = plain(corpus, model)
    size = config(setup).hidden_size // config(setup).num_attention_heads
    where, _, output = ATTENTION[model]
    with torch.no_grad():
        for index in range(config(setup).num_hidden_layers):
            mixing = setup.model.get_submodule(where.format(index)).get_submodule(output)
            weight = mixing.get_parameter("weight")
            by_input = weight.t() if isinstance(mixing, nn.Linear) else weight
            by_input *= 100
            # Nothing reads heads 1 and 3, so they are the weakest and the model does not miss them.
            for head in (1, 3):
                by_input[head * size : (head + 1) * size] = 0
    expected = first_loss(setup)
    assert first_loss(apply(setup, "prune_heads_50")) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("model", list(ATTENTION))
def test_the_layers_really_shrink(corpus: Corpus, model: str) -> None:
    setup = plain(corpus, model)
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
    setup = plain(corpus, "gpt2/nano")
    frozen = ["transformer.h.0.attn.c_attn.weight", "transformer.h.1.attn.c_proj.bias"]
    for name in frozen:
        setup.model.get_parameter(name).requires_grad_(False)
    apply(setup, "prune_heads_50")
    assert [name for name, item in setup.model.named_parameters() if not item.requires_grad] == frozen


@both_models
@both_techniques
@pytest.mark.parametrize("other", ["accumulate_4", "checkpoint_activations", "amp_bf16"])
def test_composes(corpus: Corpus, model: str, name: str, other: str) -> None:
    train_three_steps(apply(plain(corpus, model), name, other))


@both_models
def test_both_prunings_compose(corpus: Corpus, model: str) -> None:
    train_three_steps(apply(plain(corpus, model), "prune_heads_50", "prune_magnitude_50"))


@both_models
@both_techniques
def test_composes_with_ddp(corpus: Corpus, one_rank: None, model: str, name: str) -> None:
    setup = apply(plain(corpus, model), name)
    train_three_steps(replace(setup, model=DistributedDataParallel(setup.model)))


@both_techniques
def test_is_captured_in_one_graph(corpus: Corpus, name: str) -> None:
    torch._dynamo.reset()
    setup = apply(plain(corpus, "bert/nano"), name)
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
    setup = plain(corpus, "bert/nano")
    attention = setup.model.get_submodule("bert.encoder.layer.0.attention")
    attention.set_submodule("self.query", nn.Sequential(nn.Linear(64, 64)))
    with pytest.raises(Unsupported, match=r"self\.query is a Sequential"):
        apply(setup, "prune_heads_50")
