"""How good a trained model is on held-out data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bench.corpus import Corpus
from bench.held_out import with_held_out
from bench.spec import WorkloadSpec
from bench.workload import Workload
from harness.evidence.score import continued, is_continued


@pytest.fixture
def workload(corpus: Corpus) -> Workload:
    return with_held_out(WorkloadSpec(model="t5/nano", batch=4, sequence=64), corpus)


class Knowing:
    """Predicts the held-out text exactly, up to a character from which on it says something else."""

    def __init__(self, workload: Workload, right: int) -> None:
        assert workload.held_out is not None
        samples = workload.held_out()
        drawn = [samples[index] for index in range(len(samples))]
        self._known = {tuple(item["input_ids"]): item["labels"] for item in drawn}
        self._right = right

    def generate(self, input_ids: Tensor, max_new_tokens: int, **_: Any) -> Tensor:
        found = torch.stack([torch.as_tensor(self._known[tuple(row)].astype("int64")) for row in input_ids.numpy()])
        found[:, self._right :] = ord("~")
        return found[:, :max_new_tokens]


def test_what_goes_on_as_the_text_does_scores_all_and_less_the_less_of_it_does(workload: Workload) -> None:
    assert is_continued(workload)
    scores = [continued(Knowing(workload, right), workload, torch.device("cpu")) for right in (32, 24, 8)]
    assert scores[0] == {"bleu": pytest.approx(100), "chrf": pytest.approx(100)}
    for name in ("bleu", "chrf"):
        assert scores[0][name] > scores[1][name] > scores[2][name]


def test_a_model_that_has_learnt_nothing_writes_none_of_it(workload: Workload) -> None:
    torch.manual_seed(0)
    model: Any = workload.model()
    found = continued(model.eval(), workload, torch.device("cpu"))
    assert 0 <= found["bleu"] < 5 and 0 <= found["chrf"] < 20


def test_a_language_model_has_no_two_halves(corpus: Corpus) -> None:
    assert not is_continued(with_held_out(WorkloadSpec(model="gpt2/nano"), corpus))
