"""Number formats: everything that is said to be in a format is in it, and training still follows the baseline."""

from __future__ import annotations

import math

import pytest
import torch

from bench.composition import compose
from bench.corpus import Corpus
from bench.setup import TrainingSetup
from harness.certificate import dtypes, without_dropout
from harness.trainer import Trainer
from tests.training import apply, build

pytestmark = pytest.mark.usefixtures("one_thread")

both_models = pytest.mark.parametrize("model", ["gpt2/nano", "bert/nano"])


def quiet(corpus: Corpus, model: str, *names: str) -> TrainingSetup:
    setup = build(corpus, model)
    without_dropout(setup.model)
    return apply(setup, *names)


@both_models
@pytest.mark.parametrize(("name", "kind"), [("pure_bf16", "bfloat16"), ("pure_fp16", "float16")])
def test_parameters_gradients_and_state_are_all_in_half_precision(
    corpus: Corpus, model: str, name: str, kind: str
) -> None:
    trainer = Trainer(build(corpus, model, name), seed=0)
    assert trainer.optimizer is not None
    seen: list[torch.Tensor] = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.extend(item.grad for item in trainer.setup.model.parameters() if item.grad is not None)
    )
    trainer.steps(1)
    state = [item for each in trainer.optimizer.state.values() for item in each.values() if item.dim()]
    assert dtypes(list(trainer.setup.model.parameters())) == dtypes(seen) == dtypes(state) == [kind]


@both_models
def test_ten_updates_in_float16_follow_the_baseline(corpus: Corpus, model: str) -> None:
    exact = Trainer(quiet(corpus, model), seed=0).steps(10)["losses"]
    (technique,) = compose(["pure_fp16"])
    rounded = Trainer(quiet(corpus, model, "pure_fp16"), seed=0).steps(10)["losses"]
    assert all(math.isfinite(loss) for loss in rounded)
    assert rounded == pytest.approx(exact, rel=technique.loss_tolerance)
