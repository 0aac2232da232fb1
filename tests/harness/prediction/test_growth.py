"""Memory by batch: what two batch sizes show holds for all."""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from bench.corpus import Corpus
from bench.resolve import resolve
from bench.spec import WorkloadSpec
from bench.workload import Workload
from harness.prediction.growth import growth
from harness.prediction.limits import Unforeseen
from harness.prediction.trial import Trial


def changes(tensors: list[tuple[int, int]], frees: list[int], batch: int) -> list[int]:
    """Tensors made in order; some are freed when the next one is made."""
    made: list[int] = []
    for index, (held, each) in enumerate(tensors):
        size = 1 + held + each * batch
        made.append(size)
        if index in frees:
            made.append(-size)
    return made


@pytest.mark.parametrize("seed", range(50))
def test_the_peak_of_every_batch_is_that_of_the_same_program(seed: int) -> None:
    draw = random.Random(seed)
    tensors = [(draw.randrange(1000), draw.randrange(100)) for _ in range(draw.randrange(1, 12))]
    frees = draw.sample(range(len(tensors)), draw.randrange(len(tensors)))
    grown = growth((changes(tensors, frees, 4), changes(tensors, frees, 8)), (4, 8), held_bytes=7)
    for batch in (1, 2, 4, 8, 9, 100, 1000):
        peak = 7 + max(itertools.accumulate(changes(tensors, frees, batch)))
        assert grown.peak_bytes(batch) == pytest.approx(peak, abs=1)


def test_another_program_is_not_known() -> None:
    with pytest.raises(Unforeseen, match="works differently on a larger batch"):
        growth(([8, -8, 4], [16, 4, -16]), (1, 2))


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("gpt2/nano", ()),
        pytest.param("gpt2/nano", ("accumulate_4",), marks=pytest.mark.long),
        ("gpt2/nano", ("checkpoint_activations", "amp_bf16")),
        pytest.param("gpt2/nano", ("adamw_8bit",), marks=pytest.mark.long),
        ("gpt2/nano", ("pure_bf16",)),
        ("gpt2/nano", ("optimizer_in_backward",)),
        ("moe/nano", ()),
        pytest.param("bert/tiny", (), marks=pytest.mark.long),
        pytest.param("t5/nano", ("adafactor",), marks=pytest.mark.long),
        pytest.param("vit/nano", (), marks=pytest.mark.long),
    ],
)
def test_two_batches_tell_of_a_third(corpus: Corpus, model: str, names: tuple[str, ...]) -> None:
    text = not model.startswith("vit")
    small, large = (
        resolve(WorkloadSpec(model=model, batch=batch, sequence=64 if text else None), corpus) for batch in (4, 24)
    )
    trial = Trial(techniques=names, device="cpu")
    seen, grown = trial.grow(small)
    assert seen.peak_bytes == trial.run(small).peak_bytes
    # Parts of a single sample may be handled differently from larger ones.
    assert seen.divisor == 4 or grown.peak_bytes(4) == seen.peak_bytes
    assert grown.peak_bytes(24) == pytest.approx(trial.run(large).peak_bytes, rel=1e-4)


class Quadratic(nn.Module):
    """A loss over all pairs of samples: its memory grows with the square of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, batch: Tensor) -> Tensor:
        made = self.layer(batch)
        loss: Tensor = (made @ made.T).softmax(1).square().mean()
        return loss


def test_what_grows_out_of_proportion_is_not_known() -> None:
    workload = Workload(
        name="pairs",
        model=Quadratic,
        data=lambda: TensorDataset(torch.randn(1000, 8)),
        batch=64,
        loss=lambda model, batch: model(batch[0]),
    )
    trial = Trial(device="cpu")
    with pytest.raises(Unforeseen, match="not grow in proportion"):
        trial.grow(workload)


def test_older_cards_have_other_kernels(corpus: Corpus) -> None:
    """Before Ampere there is no FlashAttention, and before Hopper the matrix library keeps less memory."""
    workload = resolve(WorkloadSpec(model="gpt2/tiny", batch=8, sequence=100), corpus)
    old, usual, new = (
        Trial(techniques=("pure_bf16",), device="cuda", capability=capability)
        for capability in ((7, 5), (8, 0), (9, 0))
    )
    held = {trial.capability: trial.run(workload).peak_bytes - trial.workspace_bytes for trial in (old, usual, new)}
    # The memory-efficient kernel keeps what it needs of each row in blocks of 32.
    assert held[7, 5] > held[8, 0] == held[9, 0]
    assert old.workspace_bytes == usual.workspace_bytes < new.workspace_bytes
