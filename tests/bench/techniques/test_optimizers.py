"""Optimizers, schedules and other parts of an update: each applies its own rule to the right parameters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer
from torch.optim.optimizer import _default_to_fused_or_foreach, _foreach_supported_types
from torch.utils._foreach_utils import _get_foreach_kernels_supported_devices
from torch.utils._pytree import tree_leaves

from bench.corpus import Corpus
from bench.setup import TrainingSetup, Unsupported
from harness.timing.trainer import Trainer
from tests.training import apply, build, own

pytestmark = pytest.mark.usefixtures("one_thread")

both_models = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])


def losses(setup: TrainingSetup) -> list[float]:
    torch.manual_seed(0)
    taken: list[float] = Trainer(setup, seed=0).steps(4)["losses"]
    return taken


def trained(setup: TrainingSetup) -> Optimizer:
    """The optimizer after two updates: SOAP changes nothing in its first."""
    trainer = Trainer(setup, seed=0)
    trainer.steps(2)
    assert trainer.optimizer is not None
    return trainer.optimizer


def kept(optimizer: Optimizer) -> dict[Tensor, int]:
    """The number of elements of state that the optimizer keeps for each parameter."""
    return {
        parameter: sum(item.numel() for item in tree_leaves(state) if isinstance(item, Tensor) and item.dim())
        for parameter, state in optimizer.state.items()
    }


def named_rates(setup: TrainingSetup, option: str) -> dict[str, float]:
    """An option of the optimizer's groups, for each parameter by name."""
    names = {parameter: name for name, parameter in setup.model.named_parameters()}
    groups = setup.optimizer(setup.model.parameters()).param_groups
    return {names[parameter]: group[option] for group in groups for parameter in group["params"]}


@both_models
@pytest.mark.parametrize("name", ["adamw_loop", "adamw_foreach", "adamw_fused", "schedule_constant"])
def test_it_is_the_very_same_adamw(corpus: Corpus, model: str, name: str) -> None:
    assert losses(build(corpus, model, name)) == pytest.approx(losses(build(corpus, model)), rel=1e-5)


def test_torch_batches_updates_by_default_on_a_gpu_and_not_on_a_cpu() -> None:
    """The `needs` of adamw_foreach and adamw_loop rest on this, as far as torch shows it without a GPU."""
    parameters: list[Tensor] = [nn.Parameter(torch.zeros(2))]
    assert _default_to_fused_or_foreach(parameters, differentiable=False) == (False, False)
    assert "cuda" in _get_foreach_kernels_supported_devices()
    assert {Tensor, nn.Parameter, DTensor} <= set(_foreach_supported_types)


@pytest.mark.parametrize(
    ("name", "tensors"), [("sgd", 0), ("sgd_nesterov", 1), ("lion", 1), ("nadam", 2), ("radam", 2), ("lamb", 2)]
)
def test_state_is_as_large_as_the_rule_says(corpus: Corpus, name: str, tensors: int) -> None:
    optimizer = trained(build(corpus, "gpt2/nano", name))
    assert all(count == tensors * parameter.numel() for parameter, count in kept(optimizer).items())


def test_lamb_moves_each_tensor_in_proportion_to_its_size(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "lamb")
    layer = setup.model.get_submodule("transformer.h.0.mlp.c_fc").get_parameter("weight")
    before = layer.detach().clone()
    Trainer(setup, seed=0).steps(1)
    moved = float((layer.detach() - before).norm() / before.norm())
    # Weight decay adds a hundredth of the learning rate.
    assert moved == pytest.approx(setup.workload.learning_rate, rel=0.02)


def test_lion_moves_every_element_by_the_learning_rate() -> None:
    setup = apply(own(lambda: nn.Linear(4, 4)), "lion")
    nn.init.zeros_(setup.model.get_parameter("weight"))
    optimizer = setup.optimizer(setup.model.parameters())
    setup.model(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    moved = setup.model.get_parameter("weight").abs()
    assert torch.allclose(moved, torch.full((4, 4), setup.workload.learning_rate))


@both_models
def test_soap_keeps_an_eigenbasis_for_each_side_of_a_matrix(corpus: Corpus, model: str) -> None:
    optimizer = trained(build(corpus, model, "soap"))
    matrices = {item: state for item, state in optimizer.state.items() if item.dim() == 2}
    assert matrices
    for parameter, state in matrices.items():
        for side, basis in zip(parameter.shape, state["Q"], strict=True):
            assert torch.allclose(basis.T @ basis, torch.eye(side), atol=1e-4)


@both_models
def test_muon_takes_the_hidden_matrices_alone(corpus: Corpus, model: str) -> None:
    setup = build(corpus, model, "muon")
    state = trained(setup).state
    embeddings = {id(m.weight) for m in setup.model.modules() if isinstance(m, nn.Embedding)}
    by_muon = {id(item) for item in state if "momentum_buffer" in state[item]}
    hidden = {id(item) for item in setup.model.parameters() if item.dim() == 2} - embeddings
    assert by_muon == hidden
    assert {id(item) for item in setup.model.parameters()} - hidden == {id(i) for i in state if "exp_avg" in state[i]}


def test_muon_leaves_an_untied_head_to_adamw(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano")
    head = setup.model.get_submodule("lm_head")
    head.weight = nn.Parameter(head.get_parameter("weight").detach().clone())
    state = trained(apply(setup, "muon")).state
    assert "exp_avg" in state[head.get_parameter("weight")]


def test_muon_trains_a_model_without_matrices() -> None:
    setup = apply(own(lambda: nn.LayerNorm(4)), "muon")
    optimizer = setup.optimizer(setup.model.parameters())
    setup.model(torch.randn(2, 4)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(setup.model.get_parameter("weight"), torch.ones(4))


@pytest.fixture
def sharded(corpus: Corpus, one_rank: None) -> TrainingSetup:
    setup = build(corpus, "gpt2/nano")
    for block in setup.model.get_submodule("transformer.h").children():
        fully_shard(block)
    fully_shard(setup.model)
    return setup


@pytest.mark.parametrize("names", [("lion",), ("muon",), ("schedule_free_adamw",), ("muon", "clip_gradients")])
def test_shards_are_updated_as_the_whole(corpus: Corpus, sharded: TrainingSetup, names: tuple[str, ...]) -> None:
    assert losses(apply(sharded, *names)) == pytest.approx(losses(build(corpus, "gpt2/nano", *names)), rel=1e-5)


@pytest.mark.parametrize("name", ["adafactor", "lamb", "soap"])
def test_what_needs_whole_tensors_refuses_shards(sharded: TrainingSetup, name: str) -> None:
    with pytest.raises(Unsupported, match=f"{name} needs whole parameter tensors"):
        Trainer(apply(sharded, name), seed=0)


@pytest.mark.parametrize(
    ("name", "bytes_an_element"),
    [
        # torchao compiles their steps.
        pytest.param("adamw_8bit", 1, marks=pytest.mark.long),
        pytest.param("adamw_4bit", 0.5, marks=pytest.mark.long),
        pytest.param("adamw_fp8", 1, marks=pytest.mark.long),
    ],
)
def test_state_is_really_in_few_bits(name: str, bytes_an_element: float) -> None:
    setup = apply(own(lambda: nn.Linear(64, 64, bias=False)), name)
    weight = setup.model.get_parameter("weight")
    before = weight.detach().clone()
    optimizer = setup.optimizer([weight])
    setup.model(torch.randn(8, 64)).square().sum().backward()
    optimizer.step()
    for moment in ("exp_avg", "exp_avg_sq"):
        codes = optimizer.state[weight][moment].codes
        assert codes.numel() * codes.element_size() == bytes_an_element * weight.numel()
    # AdamW's first update moves every element by the learning rate, whatever its gradient.
    moved = (weight - before * (1 - 0.01 * setup.workload.learning_rate)).abs()
    assert torch.allclose(moved, torch.full_like(moved, setup.workload.learning_rate), rtol=0.01)


@pytest.mark.parametrize("name", ["adamw_8bit", "adamw_4bit", "adamw_fp8"])
def test_a_model_that_few_bits_would_pass_over_is_refused(name: str) -> None:
    with pytest.raises(Unsupported, match=f"{name} needs a trained tensor of 4096 elements"):
        apply(own(lambda: nn.Linear(63, 64)), name)


def rates(*names: str) -> list[float]:
    """The learning rate of each of 1200 updates, as a share of the workload's, in the optimizer's last group."""
    setup = apply(own(lambda: nn.Linear(2, 2)), *names)
    optimizer = setup.optimizer(setup.model.parameters())
    taken = []
    for parameter in setup.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for _ in range(1200):
        taken.append(optimizer.param_groups[-1]["lr"] / setup.workload.learning_rate)
        optimizer.step()
    return taken


# The second combination keeps its groups in inner optimizers.
@pytest.mark.parametrize("others", [(), ("muon", "weight_decay")])
def test_cosine_warms_up_and_falls_to_a_tenth(others: tuple[str, ...]) -> None:
    rate = rates("schedule_cosine", *others)
    assert rate[0] == pytest.approx(0.01)
    assert rate[99] == pytest.approx(1.0)
    assert rate[550] == pytest.approx(0.55)
    assert rate[:100] == sorted(rate[:100]) and rate[100:1001] == sorted(rate[100:1001], reverse=True)
    assert rate[1000:] == pytest.approx([0.1] * 200)


def test_steps_fall_to_a_tenth_twice() -> None:
    assert rates("schedule_step") == pytest.approx([1.0] * 500 + [0.1] * 250 + [0.01] * 450)


def test_a_schedule_reaches_the_update_of_every_part() -> None:
    """The size of the first update of AdamW, and of Muon on one row, is given by the rate."""
    moved = {}
    for name in ((), ("schedule_cosine",)):
        torch.manual_seed(0)  # The same weights, because their decay depends on the rate too.
        setup = apply(own(lambda: nn.Linear(1, 1).double()), "muon", *name)
        before = [item.detach().clone() for item in setup.model.parameters()]
        optimizer = setup.optimizer(setup.model.parameters())
        for parameter in setup.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        moved[name] = [float((new - old).detach()) for new, old in zip(setup.model.parameters(), before, strict=True)]
    assert moved["schedule_cosine",] == pytest.approx([0.01 * item for item in moved[()]], rel=1e-3)


@pytest.mark.parametrize("name", ["adamw_fused", "muon", "lion", "optimizer_in_backward"])
def test_decay_is_for_matrices_alone(corpus: Corpus, name: str) -> None:
    setup = build(corpus, "bert/nano", name, "weight_decay")
    decay = named_rates(setup, "weight_decay")
    assert decay == {name: 0.1 if item.dim() > 1 else 0.0 for name, item in setup.model.named_parameters()}


def test_decay_shrinks_what_has_no_gradient_to_follow() -> None:
    setup = apply(own(lambda: nn.Linear(4, 4)), "weight_decay")
    before = {name: item.detach().clone() for name, item in setup.model.named_parameters()}
    optimizer = setup.optimizer(setup.model.parameters())
    for parameter in setup.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(setup.model.get_parameter("weight"), before["weight"] * (1 - 1e-4 * 0.1))
    assert torch.equal(setup.model.get_parameter("bias"), before["bias"])


def largest_norms(setup: TrainingSetup) -> list[float]:
    """The norm of all gradients, as the optimizer sees them, in three updates."""
    make, norms = setup.optimizer, []

    def measure(optimizer: Optimizer, *_: object) -> None:
        found = [item.grad for item in setup.model.parameters() if item.grad is not None]
        norms.append(float(get_total_norm(found)))

    def measured(parameters: Iterable[nn.Parameter]) -> Optimizer:
        optimizer = make(parameters)
        optimizer.register_step_pre_hook(measure)
        return optimizer

    Trainer(replace(setup, optimizer=measured), seed=0).steps(3)
    return norms


@both_models
@pytest.mark.parametrize("others", [(), ("accumulate_2",), ("amp_fp16",), ("amp_fp16", "adamw_fused")])
def test_gradients_are_clipped_to_a_norm_of_one(corpus: Corpus, model: str, others: tuple[str, ...]) -> None:
    assert max(largest_norms(build(corpus, model))) > 1.05
    clipped = largest_norms(build(corpus, model, "clip_gradients", *others))
    assert max(clipped) <= 1.001
    assert max(clipped) > 0.5


def test_a_fused_optimizer_under_loss_scaling_takes_the_clipped_gradients_as_they_are(corpus: Corpus) -> None:
    # SGD's update is proportional to its gradients; AdamW's would hide a wrong scale.
    def moved(fused: bool) -> Tensor:
        setup = build(corpus, "gpt2/nano", "amp_fp16")
        setup = replace(setup, optimizer=lambda items: torch.optim.SGD(items, lr=1e-2, fused=fused))
        setup = apply(setup, "clip_gradients")
        before = [item.detach().clone() for item in setup.model.parameters()]
        torch.manual_seed(0)
        Trainer(setup, seed=0).steps(1)
        return torch.cat([(new - old).flatten() for new, old in zip(setup.model.parameters(), before, strict=True)])

    assert torch.allclose(moved(True), moved(False), atol=1e-6)
    assert float(moved(True).norm()) == pytest.approx(1e-2, rel=0.01)


def test_fused_adamw_refuses_complex_weights_before_torch_does() -> None:
    with pytest.raises(Unsupported, match="takes no complex weights"):
        apply(own(lambda: nn.Linear(4, 4, dtype=torch.complex64)), "adamw_fused")
