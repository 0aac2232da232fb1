"""The law of size and text: its predictions for trainings longer than those that it was fitted to."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from results.scaling import Law, Seen

SIZES = (120_000, 850_000, 4_900_000)


def true_loss(parameters: int, tokens: int, beside: float = 0.0) -> float:
    """A true loss with other exponents and another scale than the law's priors."""
    loss: float = (0.7 + 40 * float(parameters) ** -0.39 + 60 * float(tokens) ** -0.31) * math.exp(beside)
    return loss


def short_trainings(seed: int, longest: int = 1_500_000, noise: float = 0.004) -> list[Seen]:
    draw = random.Random(seed)
    seen = []
    for parameters in SIZES:
        # Smaller models make more steps in the same time, and sizes differ in ways that the law does not model.
        tokens = longest * SIZES[-1] // (4 * parameters) if parameters < SIZES[-1] else longest // 2
        beside = draw.gauss(0, 0.01)
        for part in (16, 8, 4, 2, 1):
            loss = true_loss(parameters, tokens // part, beside) * math.exp(draw.gauss(0, noise))
            seen.append(Seen(parameters=parameters, text_bytes=tokens // part, loss=loss))
    return seen


@pytest.mark.parametrize(("times", "within"), [(2, 0.03), (8, 0.1)])
def test_more_text_is_foretold_and_how_surely(times: int, within: float) -> None:
    errors, held = [], 0
    for seed in range(40):
        seen = short_trainings(seed)
        longest = [item for item in seen if item.parameters == SIZES[1]][-1]
        found = Law(seen).expected(SIZES[1], times * longest.text_bytes)
        true = longest.loss * true_loss(SIZES[1], times * longest.text_bytes) / true_loss(SIZES[1], longest.text_bytes)
        errors.append(abs(found.loss / true - 1))
        held += found.low < true < found.high
    assert sorted(errors)[37] < within
    assert held >= 36


MEASURED = {
    "at ten times the rate": {
        182_272: {328: 2.575, 656: 2.392, 1312: 2.195, 2624: 1.993, 5248: 1.789, 10496: 1.61},
        957_696: {109: 2.788, 218: 2.555, 436: 2.311, 872: 2.099, 1744: 1.835},
    },
    "nano at thirty": {
        182_272: {401: 2.6898, 802: 2.3893, 1605: 2.0555, 3209: 1.7858, 6419: 1.5557, 24679: 1.3359},
        957_696: {173: 2.7559, 345: 2.4004, 691: 2.1932, 1381: 1.9341, 5639: 1.425},
    },
}
"""Losses of gpt2/nano and gpt2/tiny on the standard library's text after so many updates of 1024 bytes, each from a
separate training. They fall faster at first and then more slowly, which no power law can follow."""


@pytest.mark.parametrize("name", MEASURED)
def test_trainings_are_foretold_from_shorter_ones(name: str) -> None:
    for size, losses in MEASURED[name].items():
        for before, updates in itertools.pairwise(list(losses)[2:]):
            seen = [
                Seen(parameters=other, text_bytes=1024 * taken, loss=loss)
                for other, own in MEASURED[name].items()
                for taken, loss in own.items()
                # For every size the same share of its whole training as for this one.
                if taken * max(losses) <= before * max(own)
            ]
            found, true = Law(seen).expected(size, 1024 * updates), losses[updates]
            assert found.low < true < found.high
            assert abs(found.loss / true - 1) < (0.03 if updates < 3 * before else 0.06)


def test_what_lies_farther_away_is_less_sure() -> None:
    law = Law(short_trainings(0))
    near, far = (law.expected(SIZES[0], tokens) for tokens in (20_000_000, 2_000_000_000))
    assert near.loss > far.loss
    assert near.high / near.low < far.high / far.low
    unseen = law.expected(400_000, 20_000_000)
    assert unseen.high / unseen.low > near.high / near.low


def test_one_amount_of_text_tells_nothing() -> None:
    seen = [Seen(parameters=size, text_bytes=1_000_000, loss=2.0) for size in SIZES]
    with pytest.raises(ValueError, match="no size was trained on two amounts of text"):
        Law(seen)
