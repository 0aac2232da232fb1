"""What keeps a model from memorising its samples."""

from __future__ import annotations

import pytest
from torch import nn

from bench.composition import compose
from bench.corpus import Corpus
from bench.setup import Unsupported
from tests.training import apply, build, own


@pytest.mark.parametrize("percent", [0, 10, 20])
@pytest.mark.parametrize("model", ["gpt2/nano", "llama/nano", "t5/nano"])
def test_every_layer_has_the_dropout_that_is_asked_for(corpus: Corpus, model: str, percent: int) -> None:
    setup = build(corpus, model, f"dropout_{percent}")
    layers = [module.p for module in setup.model.modules() if isinstance(module, nn.Dropout)]
    numbers = [getattr(module, "attention_dropout", None) for module in setup.model.modules()]
    assert {*layers, *(number for number in numbers if isinstance(number, float))} == {percent / 100}


def test_a_model_without_it_is_refused() -> None:
    with pytest.raises(Unsupported, match=r"dropout_10 needs a model that has dropout layers; .* has none"):
        apply(own(lambda: nn.Linear(2, 2)), "dropout_10")


def test_one_dropout_at_a_time() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        compose(["dropout_10", "dropout_20"])
