"""What a batch contains: tokens by every kind of attention mask, samples along whatever dimension."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.evidence.load import Load, load, real_tokens, rows

SAMPLES, LENGTH = 4, 16
REAL = torch.tensor([16, 10, 3, 1])
"""Tokens of each sample that are not padding."""


def one_each() -> Tensor:
    return torch.arange(LENGTH)[None] < REAL[:, None]


def pairs(*, causal: bool) -> Tensor:
    """A mask by query and key: no query sees padding, and what padding sees does not matter."""
    mask = one_each()[:, None, :].expand(SAMPLES, LENGTH, LENGTH).clone()
    return mask.tril() if causal else mask


def documents() -> Tensor:
    """Packed without padding: a token sees the earlier tokens of its own document."""
    document = (torch.arange(LENGTH) >= 5).long() + (torch.arange(LENGTH) >= 11).long()
    own = (document[:, None] == document[None, :]).tril()
    return own.expand(SAMPLES, LENGTH, LENGTH).clone()


def additive(mask: Tensor, hidden: float) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, hidden)


LEAST = torch.finfo(torch.float32).min


@pytest.mark.parametrize(
    ("mask", "tokens"),
    [
        (one_each(), 30),
        (one_each().long(), 30),
        (one_each().float(), 30),
        (additive(one_each(), LEAST), 30),
        (pairs(causal=False), 30),
        (pairs(causal=True), 30),
        (pairs(causal=True)[:, None], 30),
        (pairs(causal=True)[:, None].expand(-1, 3, -1, -1), 30),
        (additive(pairs(causal=True), LEAST), 30),
        (additive(pairs(causal=True)[:, None], float("-inf")), 30),
        (documents(), 64),
        (documents()[:, None].long(), 64),
        (additive(documents(), float("-inf")), 64),
        # One mask for all samples.
        (torch.ones(1, LENGTH, LENGTH).tril().bool(), 64),
        (additive(torch.ones(1, 1, LENGTH, LENGTH).tril().bool(), LEAST), 64),
        # Nothing is masked.
        (torch.zeros(SAMPLES, 1, LENGTH, LENGTH), 64),
        # One row of keys for all queries.
        (one_each()[:, None, None, :], 30),
        # The number of the packed document of each token, 0 for padding.
        (one_each().long() * torch.tensor([1, 2, 3, 4])[:, None], 30),
        # A bias by distance, which masks nothing.
        (-0.5 * (torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)[None]).abs().float()[None], 64),
    ],
)
def test_tokens_are_those_that_a_mask_shows(mask: Tensor, tokens: int) -> None:
    assert real_tokens(mask, SAMPLES, SAMPLES * LENGTH) == tokens
    batch = {"input_ids": torch.zeros(SAMPLES, LENGTH, dtype=torch.long), "attention_mask": mask}
    assert load(batch, SAMPLES, LENGTH) == Load(samples=SAMPLES, tokens=tokens)


def test_a_batch_of_one_trimmed_sample_is_no_mask_for_several() -> None:
    assert real_tokens(torch.ones(1, 5), 1, LENGTH) == 5


def test_samples_are_found_along_any_dimension() -> None:
    assert rows([torch.zeros(4, 20, 3)], 4) == 4
    assert rows([torch.zeros(20, 4, 3)], 4) == 4, "time first"
    assert rows([torch.zeros(()), torch.zeros(2, 20)], 4) == 2, "half of the batch was dropped"
    assert rows([], 4) == 0
