"""Every technique that this machine can run does the work that it claims, on both families."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.corpus import Corpus
from bench.registry import Host, compose, ranks, techniques, unmet
from bench.setup import split
from harness.trainer import Trainer
from tests.training import build

HERE = Host(device="cpu")
OWN = [name for name, item in techniques().items() if item.family != "planted"]
# compile has its own test below, and several ranks need processes of their own: test_sweep runs them.
IN_PROCESS = [
    name
    for name in OWN
    if name != "compile" and ranks(compose([name]), HERE).count == 1 and not unmet(compose([name]), HERE)
]


@pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])
@pytest.mark.parametrize("name", IN_PROCESS)
def test_technique_trains(corpus: Corpus, model: str, name: str) -> None:
    setup = build(corpus, model, name)
    trainer = Trainer(setup, seed=0)
    before = [parameter.detach().clone() for parameter in setup.model.parameters()]
    losses = trainer.steps(3)["losses"]
    assert all(torch.isfinite(torch.tensor(losses)))
    moved = [not torch.equal(new, old) for new, old in zip(setup.model.parameters(), before, strict=True)]
    assert any(moved)


def test_the_only_techniques_left_out_here_need_a_gpu() -> None:
    reasons = {name: unmet(compose([name]), HERE) for name in OWN}
    assert all("GPU" in reason for reason in reasons.values() if reason)


def test_compile_is_captured_in_one_graph(corpus: Corpus) -> None:
    torch._dynamo.reset()
    setup = build(corpus, "gpt2/nano", "compile")
    plain = build(corpus, "gpt2/nano")
    for model in (setup.model, plain.model):
        model.eval()
    ids = torch.arange(64).view(2, 32)
    batch = {"input_ids": ids, "labels": ids}
    torch.testing.assert_close(setup.loss(setup.model, batch), plain.loss(plain.model, batch))


def test_amp_computes_in_half_precision(corpus: Corpus) -> None:
    setup = build(corpus, "gpt2/nano", "amp_bf16")
    seen = set()
    head = setup.model.get_submodule("lm_head")
    head.register_forward_hook(lambda _module, _inputs, output: seen.add(output.dtype))
    Trainer(setup, seed=0).steps(1)
    assert seen == {torch.bfloat16}
    assert {item.dtype for item in setup.model.parameters()} == {torch.float32}


def test_split_keeps_order_and_refuses_remainders() -> None:
    batch: dict[str, Any] = {"x": torch.arange(8), "y": (torch.arange(16).view(8, 2),)}
    parts = split(batch, 4)
    assert torch.equal(torch.cat([part["x"] for part in parts]), batch["x"])
    assert [tuple(part["y"][0].shape) for part in parts] == [(2, 2)] * 4
    with pytest.raises(ValueError, match="batch 8 does not divide into 3"):
        split(batch, 3)


def test_checkpointing_recomputes(corpus: Corpus) -> None:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    for name, expected in (((), 1), (("checkpoint_activations",), 2)):
        calls = 0
        setup = build(corpus, "gpt2/nano", *name)
        setup.model.get_submodule("transformer.h.0.mlp").register_forward_pre_hook(count)
        Trainer(setup, seed=0).steps(1)
        assert calls == expected
