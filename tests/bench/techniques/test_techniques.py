"""Single techniques in action; test_conformance checks that each does the work that it claims."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.corpus import Corpus
from bench.setup import split
from harness.timing.trainer import Trainer
from tests.training import build


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
