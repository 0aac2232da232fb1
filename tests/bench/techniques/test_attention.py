"""The chosen attention kernel is the one that runs, in the forward pass and again in a checkpointed backward pass."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.resolve import resolve
from bench.setup import TrainingSetup, Unsupported, baseline
from bench.spec import Phase, WorkloadSpec
from harness.evidence.compiling import compile_facts
from harness.evidence.kernels import attention_kernels
from harness.timing.trainer import Trainer
from tests.training import apply, own

pytestmark = pytest.mark.usefixtures("one_thread")

FLASH = "aten::_scaled_dot_product_flash_attention_for_cpu"
MATH = "aten::_scaled_dot_product_attention_math"


def build(
    corpus: Corpus, model: str, *names: str, phase: Phase = Phase.PRETRAIN, dropout: bool = False
) -> TrainingSetup:
    torch.manual_seed(0)
    workload = dataclasses.replace(resolve(WorkloadSpec(model=model, batch=8, sequence=32), corpus), phase=phase)
    setup = baseline(workload, torch.device("cpu"))
    if not dropout:
        set_dropout(setup.model, 0.0)
    return apply(setup, *names)


def run(setup: TrainingSetup) -> tuple[list[float], list[str], int]:
    """The losses of three steps, the kernels of the last step, and how often it called one of them."""
    trainer = Trainer(setup, seed=0)
    losses = trainer.steps(2)["losses"]
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        losses += trainer.steps(1)["losses"]
    kernels = attention_kernels(profile.function_events or [], compiled=False)
    assert kernels is not None
    return losses, kernels, sum(event.count for event in profile.key_averages() if event.key in kernels)


@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano", "llama/nano"])
@pytest.mark.parametrize(("name", "kernels"), [("attention_eager", []), ("sdpa_math", [MATH]), ("sdpa_flash", [FLASH])])
def test_this_kernel_and_no_other_runs(corpus: Corpus, model: str, name: str, kernels: list[str]) -> None:
    plain, _, _ = run(build(corpus, model))
    losses, seen, calls = run(build(corpus, model, name))
    assert seen == kernels
    assert losses == pytest.approx(plain, rel=1e-5)
    again = run(build(corpus, model, name, "checkpoint_activations"))
    assert again == (losses, kernels, 2 * calls)


def test_math_runs_with_dropout_and_a_mask_too(corpus: Corpus) -> None:
    setup = build(corpus, "bert/nano", "sdpa_math", dropout=True)
    ids = torch.ones(2, 32, dtype=torch.long)
    mask = ids.clone()
    mask[1, 16:] = 0
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        setup.model(input_ids=ids, attention_mask=mask)
    assert attention_kernels(profile.function_events or [], compiled=False) == [MATH]


def test_flash_on_a_cpu_refuses_dropout_and_kernels_of_a_gpu_refuse_a_cpu(corpus: Corpus) -> None:
    for name, reason in (
        ("sdpa_flash", "on a CPU needs attention without dropout; it is 0.1"),
        ("sdpa_efficient", "no kernel for this model's attention, float32 of head size 32"),
        ("sdpa_cudnn", "no kernel for this model's attention, float32 of head size 32"),
    ):
        trainer = Trainer(build(corpus, "gpt2/nano", name, dropout=True), seed=0)
        with pytest.raises(Unsupported, match=reason):
            trainer.steps(1)


def test_flash_refuses_a_learned_bias(corpus: Corpus) -> None:
    setup = build(corpus, "t5/nano", "sdpa_flash", phase=Phase.INFER)
    for parameter in setup.model.parameters():
        parameter.requires_grad_(True)
    batch = torch.utils.data.default_collate([setup.workload.data()[index] for index in range(8)])
    with pytest.raises(Unsupported, match="no kernel for this model's attention"):
        setup.loss(setup.model, batch)


@pytest.mark.long
def test_flex_attention_infers_what_the_model_did(corpus: Corpus) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.clear_compilation_metrics()
    plain, kernels, _ = run(build(corpus, "bert/nano", phase=Phase.INFER))
    assert kernels == [FLASH]
    losses, kernels, _ = run(build(corpus, "bert/nano", "flex_attention", phase=Phase.INFER))
    assert losses == pytest.approx(plain, rel=1e-5)
    # Code that torch.compile generates for a CPU is not an operator, so a profile does not name it.
    assert kernels == [] and compile_facts()["graph_breaks"] == 0


@pytest.mark.long
def test_flex_attention_says_what_it_cannot(corpus: Corpus) -> None:
    with pytest.raises(Unsupported, match="on a CPU has no backward pass"):
        build(corpus, "bert/nano", "flex_attention")
    with pytest.raises(Unsupported, match="needs a model that supports it: GPT2LMHeadModel does not"):
        build(corpus, "gpt2/nano", "flex_attention", phase=Phase.INFER)
    setup = build(corpus, "bert/nano", "flex_attention", phase=Phase.INFER, dropout=True)
    setup.model.train()
    with pytest.raises(Unsupported, match=r"needs attention without dropout; it is 0\.1"):
        setup.model(torch.ones(1, 32, dtype=torch.long))


def test_other_models_are_refused() -> None:
    for name in ("attention_eager", "sdpa_math"):
        with pytest.raises(Unsupported, match=f"{name} needs a transformers model; it is a Linear"):
            apply(own(lambda: nn.Linear(2, 2)), name)
