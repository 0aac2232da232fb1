"""The work of operators, counted while they run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import pytest
import torch
from torch import nn

from bench.corpus import Corpus
from bench.resolve import resolve
from bench.seeds import seed_all
from bench.setup import baseline
from bench.spec import WorkloadSpec
from harness.evidence.kinds import Kind
from harness.evidence.step_shares import Work
from harness.evidence.work import Tally
from harness.preparation.probing import probe_workload
from harness.timing.trainer import Trainer
from tests.training import apply

SPEC = WorkloadSpec(model="gpt2/nano", batch=8, sequence=64)
SIZE = 4  # Bytes of a float32


def of_a_step(corpus: Corpus, *names: str) -> tuple[Mapping[Kind, Work], Trainer]:
    seed_all(0)
    trainer = Trainer(apply(baseline(resolve(SPEC, corpus), torch.device("cpu")), *names), seed=0)
    trainer.steps(1)
    with Tally() as tally:
        trainer.steps(1)
    return tally.by_kind, trainer


def test_a_product_does_two_flop_for_each_pair_and_moves_its_three_matrices() -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    with Tally() as tally:
        torch.mm(left, right)
        left.view(5, 3).t()
        torch.empty(100)
    assert tally.by_kind == {Kind.PRODUCTS: Work(2 * 3 * 5 * 7, SIZE * (15 + 35 + 21))}


def test_what_is_changed_in_place_is_read_and_written() -> None:
    left, right = torch.ones(10), torch.ones(10)
    with Tally() as tally:
        left.add_(right)
    assert tally.by_kind == {Kind.ELEMENTWISE: Work(10, SIZE * 30)}


def test_an_expanded_tensor_is_as_large_as_what_is_there() -> None:
    once = torch.ones(1, 10).expand(50, 10)
    with Tally() as tally:
        torch.add(once, 1.0)
    assert tally.by_kind == {Kind.ELEMENTWISE: Work(500, SIZE * (10 + 500))}


def test_of_a_table_only_what_is_looked_up_is_read() -> None:
    table, rows = nn.Embedding(1000, 8), torch.arange(4)
    with torch.no_grad(), Tally() as tally:
        table(rows)
    assert tally.by_kind[Kind.LOOKUPS].bytes == SIZE * 8 * 4 * 2 + 8 * 4


@pytest.mark.parametrize("names", [(), ("accumulate_4",), ("adamw_fused",), ("attention_eager",)])
def test_products_do_the_flop_of_an_update(corpus: Corpus, names: tuple[str, ...]) -> None:
    counted = probe_workload(asdict(SPEC), asdict(corpus))["step_flops"]
    found, _ = of_a_step(corpus, *names)
    # Attention with dropout consists of products here.
    assert Kind.ATTENTION not in found
    assert found[Kind.PRODUCTS].flops == counted


def test_attention_in_one_operator_counts_its_products_and_once_more_its_scores() -> None:
    query, key, value = (torch.ones(2, 3, 32, 16, requires_grad=True) for _ in range(3))
    with Tally() as tally:
        nn.functional.scaled_dot_product_attention(query, key, value).sum().backward()
    assert tally.by_kind[Kind.ATTENTION].flops == (2 + 5) * 2 * (2 * 3) * 32 * 32 * 16


def test_checkpointed_activations_are_computed_again(corpus: Corpus) -> None:
    plain, again = (of_a_step(corpus, *names)[0] for names in ((), ("checkpoint_activations",)))
    assert 1.1 < again[Kind.PRODUCTS].flops / plain[Kind.PRODUCTS].flops < 1.34


def test_products_of_int8_weights_are_counted(corpus: Corpus) -> None:
    plain, rounded = (of_a_step(corpus, *names)[0] for names in ((), ("int8_mixed_precision",)))
    assert rounded[Kind.PRODUCTS].flops > 0.5 * plain[Kind.PRODUCTS].flops


def test_a_fused_optimizer_moves_all_of_its_state_once(corpus: Corpus) -> None:
    found, trainer = of_a_step(corpus, "adamw_fused")
    size = sum(item.numel() for item in trainer.setup.model.parameters())
    # Weights, gradients and both moments are read and written.
    assert found[Kind.OPTIMIZER].bytes == pytest.approx(8 * SIZE * size, rel=0.01)


def test_counting_changes_nothing_that_is_computed(corpus: Corpus) -> None:
    _, counted = of_a_step(corpus)
    seed_all(0)
    plain = Trainer(baseline(resolve(SPEC, corpus), torch.device("cpu")), seed=0)
    plain.steps(2)
    pairs = zip(counted.setup.model.parameters(), plain.setup.model.parameters(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)
