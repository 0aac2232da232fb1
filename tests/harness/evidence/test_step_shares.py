"""What a step consists of, from profiles of real steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile

from bench.corpus import Corpus
from bench.resolve import resolve
from bench.seeds import seed_all
from bench.setup import baseline
from bench.spec import WorkloadSpec
from harness.evidence.kinds import Kind
from harness.evidence.step_shares import kind_of, step_shares
from harness.timing.trainer import Trainer
from tests.training import apply


def shares(corpus: Corpus, *names: str, model: str = "gpt2/nano") -> dict[str, Any]:
    seed_all(0)
    workload = resolve(WorkloadSpec(model=model, batch=8, sequence=64), corpus)
    trainer = Trainer(apply(baseline(workload, torch.device("cpu")), *names), seed=0)
    trainer.steps(2)
    with profile(use_kineto=False) as profiled:
        trainer.steps(1)
    return step_shares(profiled.function_events or [], None)


def kinds(found: dict[str, Any]) -> dict[str, float]:
    return dict(zip(found["kinds"], found["kind_shares"], strict=True))


@pytest.mark.parametrize(
    "names", [(), ("accumulate_4",), ("amp_fp16",), ("optimizer_in_backward",), ("clip_gradients",)]
)
def test_all_of_a_step_is_accounted_for_once(corpus: Corpus, names: tuple[str, ...]) -> None:
    found = shares(corpus, *names)
    parts = [found[f"{part}_share"] for part in ("forward", "backward", "optimizer")]
    assert sum(parts) == pytest.approx(1, abs=1e-6) and all(part > 0 for part in parts)
    by_kind = kinds(found)
    assert sum(by_kind.values()) == pytest.approx(1, abs=1e-6)
    assert {Kind.PRODUCTS, Kind.NORMALISATION, Kind.LOOKUPS, Kind.OPTIMIZER} <= set(by_kind)
    # The time of the optimizer's operators is part of the optimizer's time.
    assert by_kind[Kind.OPTIMIZER] <= found["optimizer_share"] + 1e-6


def test_an_optimizer_that_does_more_has_a_larger_share(corpus: Corpus) -> None:
    plain, dear = (shares(corpus, *names) for names in (("sgd",), ("soap",)))
    assert dear["optimizer_share"] > plain["optimizer_share"]


def test_recomputing_is_a_part_of_the_backward_pass(corpus: Corpus) -> None:
    plain, again = (shares(corpus, *names) for names in ((), ("checkpoint_activations",)))
    assert again["backward_share"] / again["forward_share"] > plain["backward_share"] / plain["forward_share"]


def test_inference_is_forward_alone() -> None:
    model, batch = nn.Linear(256, 256), torch.randn(256, 256)
    model(batch)
    with torch.inference_mode(), profile(use_kineto=False) as profiled:
        model(batch)
    found = step_shares(profiled.function_events or [], None)
    assert found["forward_share"] == pytest.approx(1) and found["backward_share"] == found["optimizer_share"] == 0
    assert kinds(found)[Kind.PRODUCTS] > 0.5


def test_nothing_seen_is_nothing_said() -> None:
    assert step_shares([], None) == {}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", Kind.PRODUCTS),
        ("aten::convolution_backward", Kind.PRODUCTS),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", Kind.ATTENTION),
        ("aten::native_layer_norm_backward", Kind.NORMALISATION),
        ("aten::embedding_dense_backward", Kind.LOOKUPS),
        ("aten::_log_softmax", Kind.LOOKUPS),
        ("aten::copy_", Kind.COPIES),
        ("aten::scatter_add", Kind.LOOKUPS),
        ("aten::gelu", Kind.ELEMENTWISE),
        ("Torch-Compiled Region: 0/0", Kind.COMPILED),
        ("autograd::engine::evaluate_function: AddmmBackward0", None),
        ("gloo:all_reduce", None),
    ],
)
def test_operators_have_kinds(name: str, kind: Kind | None) -> None:
    assert kind_of(name) is kind
