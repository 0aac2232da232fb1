"""Quantised training: the right layers are converted, they actually compute in 8 bits, and the model learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._triton import has_triton
from transformers.pytorch_utils import Conv1D

from bench.composition import compose, unmet
from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.host import Host
from bench.registry import techniques
from bench.resolve import resolve
from bench.setup import TrainingSetup, Unsupported, baseline
from bench.spec import WorkloadSpec
from bench.techniques._conv1d import conv1d_to_linear, linear_layers
from harness.heats import conformance
from harness.timing.feed import Batches
from harness.timing.trainer import Trainer
from tests.training import apply, build, first_loss, own, train_three_steps

pytestmark = pytest.mark.usefixtures("one_thread")

HERE = Host(device="cpu")
TRITON = "torchao runs its int8 products in a Triton kernel where there is a GPU, and that has no CPU form"
INT8 = pytest.param("int8_mixed_precision", marks=pytest.mark.skipif(has_triton(), reason=TRITON))
LAYERS = {"gpt2/nano": 2 * 4, "bert/nano": 2 * 6 + 1}
"""Linear layers below the output head: those of each block, and for BERT one more before the head."""

both_models = pytest.mark.parametrize("model", list(LAYERS))
all_that_run_here = pytest.mark.parametrize("name", ["qat_int8", "qat_int4", INT8])


def first_logits(setup: TrainingSetup) -> Tensor:
    batch = {name: item for name, item in next(Batches(setup, seed=0)).items() if name != "labels"}
    with torch.no_grad():
        logits: Tensor = setup.model.eval()(**batch).logits
    return logits


def test_conv1d_becomes_the_same_linear_layer(corpus: Corpus) -> None:
    setup, plain = build(corpus, "gpt2/nano"), build(corpus, "gpt2/nano")
    setup.model.get_parameter("transformer.h.0.mlp.c_fc.weight").requires_grad_(False)
    conv1d_to_linear(setup.model)
    assert not any(isinstance(module, Conv1D) for module in setup.model.modules())
    assert {type(layer) for layer in linear_layers(setup.model).values()} == {nn.Linear}
    assert first_loss(setup) == pytest.approx(first_loss(plain), abs=1e-6)
    frozen = [name for name, item in setup.model.named_parameters() if not item.requires_grad]
    assert frozen == ["transformer.h.0.mlp.c_fc.weight"]
    assert setup.model.get_parameter("lm_head.weight") is setup.model.get_parameter("transformer.wte.weight")
    sizes = [sum(item.numel() for item in each.model.parameters()) for each in (setup, plain)]
    assert sizes[0] == sizes[1]


def test_converting_draws_no_random_numbers(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano")
    before = torch.get_rng_state()
    conv1d_to_linear(setup.model)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_layer_in_two_places_stays_one_layer() -> None:
    shared = Conv1D(4, 4)
    model = nn.ModuleDict({"first": shared, "second": shared, "third": Conv1D(4, 4)})
    conv1d_to_linear(model)
    assert model["first"] is model["second"]
    assert model["first"] is not model["third"]


@both_models
@all_that_run_here
def test_every_linear_layer_but_the_head_is_converted_and_learns(corpus: Corpus, model: str, name: str) -> None:
    kind = "Int8MixedPrecisionTrainingLinear" if name == "int8_mixed_precision" else "FakeQuantizedLinear"
    setup = build(corpus, model, name)
    assert sum(type(module).__name__ == kind for module in setup.model.modules()) == LAYERS[model]
    head, embedding = setup.model.get_output_embeddings(), setup.model.get_input_embeddings()  # type: ignore[operator]
    assert type(head) is nn.Linear
    assert head.weight is embedding.weight
    train_three_steps(setup)


@both_models
@all_that_run_here
def test_the_rounding_shows_and_stays_small(corpus: Corpus, model: str, name: str) -> None:
    rounded, exact = build(corpus, model, name), build(corpus, model)
    # The mean loss may be the same to the last bit, but rounding shows in the logits.
    assert 1e-3 < float((first_logits(rounded) - first_logits(exact)).abs().max()) < 0.2
    assert first_loss(rounded) == pytest.approx(first_loss(exact), rel=1e-2)


def test_qat_rounds_each_row_of_a_weight_to_int8_levels(corpus: Corpus) -> None:
    layer = build(corpus, "gpt2/nano", "qat_int8").model.get_submodule("transformer.h.0.mlp.c_proj")
    weight = layer.get_parameter("weight")
    rounded = layer.get_submodule("weight_fake_quantizer")(weight)
    step = weight.abs().amax(dim=1, keepdim=True) / 127.5
    assert torch.all((rounded - weight).abs() <= 0.51 * step)
    assert max(len(row.unique()) for row in rounded) < weight.shape[1]


def test_qat_rounds_each_group_of_weights_to_int4_levels(corpus: Corpus) -> None:
    layer = build(corpus, "gpt2/nano", "qat_int4").model.get_submodule("transformer.h.0.mlp.c_proj")
    rounded = layer.get_submodule("weight_fake_quantizer")(layer.get_parameter("weight"))
    levels = [len(group.unique()) for group in rounded.view(-1, 32)]
    assert 8 < max(levels) <= 16


def int8_layers(setup: TrainingSetup) -> list[Any]:
    """The int8 numbers and the scales of each converted weight."""
    found: list[Any] = [layer.get_parameter("weight") for layer in linear_layers(setup.model).values()]
    return found


@both_models
def test_weights_are_int8_alone_and_each_update_moves_them(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "int8_weights")
    weights = int8_layers(setup)
    assert len(weights) == LAYERS[model]
    assert {weight.int_data.dtype for weight in weights} == {torch.int8}
    before = [weight.int_data.clone() for weight in weights]
    Trainer(setup, seed=0).steps(1)
    assert [weight is now for weight, now in zip(weights, int8_layers(setup), strict=True)] == [True] * len(weights)
    assert not any(torch.equal(weight.int_data, old) for weight, old in zip(weights, before, strict=True))


def test_int8_weights_decay_without_rounding(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "int8_weights")
    weight = int8_layers(setup)[0]
    numbers, value = weight.int_data.clone(), weight.dequantize()
    optimizer = torch.optim.AdamW([weight], lr=1e-3, weight_decay=0.5)
    weight.grad = torch.zeros(weight.shape)
    optimizer.step()
    assert torch.equal(weight.int_data, numbers)
    torch.testing.assert_close(weight.dequantize(), value * (1 - 1e-3 * 0.5))


def test_int8_weights_follow_the_baseline_over_ten_updates(corpus: Corpus) -> None:
    def losses(*names: str) -> list[float]:
        setup = build(corpus, "gpt2/nano")
        set_dropout(setup.model, 0.0)
        found: list[float] = Trainer(apply(setup, *names), seed=0).steps(10)["losses"]
        return found

    assert losses("int8_weights") == pytest.approx(losses(), rel=compose(["int8_weights"])[0].loss_tolerance)


OPTIMIZERS = [
    name
    for name, item in techniques().items()
    if item.slot == "optimizer"
    and name not in ("adamw_4bit", "adamw_8bit", "adamw_fp8")  # each would compile for half a minute
    and not conformance.conflict(("int8_weights", name))
    and not unmet(compose([name]), HERE)
]


@both_models
@pytest.mark.parametrize(
    "other", ["accumulate_4", "checkpoint_activations", "prune_heads_50", "pure_bf16", *OPTIMIZERS]
)
def test_int8_weights_compose_or_are_refused(corpus: Corpus, model: str, other: str) -> None:
    """Every optimizer is tried: some have kernels without a form for these weights, which then exclude them."""
    losses = Trainer(build(corpus, model, "int8_weights", other), seed=0).steps(3)["losses"]
    assert torch.isfinite(torch.tensor(losses)).all()


@pytest.mark.skipif(has_triton(), reason=TRITON)
def test_int8_products_agree_with_float_products_in_both_directions(corpus: Corpus) -> None:
    def gradient(setup: TrainingSetup) -> Tensor:
        setup.model.eval()
        loss = setup.loss(setup.model, next(Batches(setup, seed=0)))
        weight = setup.model.get_parameter("transformer.h.0.attn.c_attn.weight")
        return torch.autograd.grad(loss, [weight])[0]

    rounded = gradient(build(corpus, "gpt2/nano", "int8_mixed_precision"))
    exact = gradient(build(corpus, "gpt2/nano")).t()
    assert not torch.equal(rounded, exact)
    assert torch.cosine_similarity(rounded.flatten(), exact.flatten(), dim=0) > 0.99


@pytest.mark.skipif(has_triton(), reason=TRITON)
def test_int8_is_captured_in_one_graph(corpus: Corpus) -> None:
    torch._dynamo.reset()
    setup = build(corpus, "bert/nano", "int8_mixed_precision")
    captured = torch.compile(setup.model, backend="eager", fullgraph=True)
    train_three_steps(replace(setup, model=captured))  # type: ignore[arg-type]


@both_models
@all_that_run_here
@pytest.mark.parametrize("other", ["accumulate_4", "checkpoint_activations", "prune_heads_50"])
def test_composes(corpus: Corpus, model: str, name: str, other: str) -> None:
    train_three_steps(build(corpus, model, name, other))


@both_models
@all_that_run_here
def test_composes_with_ddp(corpus: Corpus, one_rank: None, model: str, name: str) -> None:
    setup = build(corpus, model, name)
    train_three_steps(replace(setup, model=DistributedDataParallel(setup.model)))


@pytest.mark.parametrize("names", [("qat_int8", "int8_mixed_precision"), ("qat_int8", "prune_magnitude_50")])
def test_meaningless_compositions_are_refused(names: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        compose(names)


@pytest.mark.parametrize("name", ["qat_int8", "qat_int4", INT8, "int8_weights", "fp8_tensorwise", "fp8_rowwise"])
def test_a_model_without_linear_layers_is_unsupported(name: str) -> None:
    class Convolutions(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU())

    (technique,) = compose([name])
    with pytest.raises(Unsupported, match=rf"{name} needs nn\.Linear or Conv1D layers"):
        technique.apply(own(Convolutions))


@pytest.mark.parametrize(("name", "scales"), [("fp8_tensorwise", "tensorwise"), ("fp8_rowwise", "axiswise")])
def test_fp8_converts_the_layers_that_its_kernels_accept(name: str, scales: str) -> None:
    class Uneven(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(16, 32), nn.Linear(32, 10))

    (technique,) = compose([name])
    setup = technique.apply(own(Uneven))
    assert [type(module).__name__ for module in setup.model.children()] == ["Float8Linear", "Linear"]
    converted: Any = next(setup.model.children())
    assert converted.config.cast_config_weight.scaling_granularity.value == scales
    assert setup.compute == "float8"


def test_fp8_needs_a_recent_gpu_and_a_sequence_in_sixteens(corpus: Corpus) -> None:
    chosen = compose(["fp8_tensorwise"])
    assert "needs an Ada, Hopper or newer GPU" in (unmet(chosen, Host(device="cpu")) or "")
    assert "8.0" in (unmet(chosen, Host(device="cuda", gpus=1, capability=(8, 0))) or "")
    assert unmet(chosen, Host(device="cuda", gpus=1, capability=(8, 9))) is None
    rowwise = unmet(compose(["fp8_rowwise"]), Host(device="cuda", gpus=1, capability=(8, 9)))
    assert "needs a Hopper or newer GPU" in (rowwise or "")
    workload = resolve(WorkloadSpec(model="gpt2/nano", batch=8, sequence=40), corpus)
    with pytest.raises(Unsupported, match="divides by 16; it is 40"):
        chosen[0].apply(baseline(workload, torch.device("cpu")))
