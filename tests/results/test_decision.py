"""The gate's decision: exact at its limits, and wrong no more often than it claims."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from results.decision import LOOKS, Decision, Margins, Verdict, decide, holm

Draw = Callable[[np.random.Generator, int], np.ndarray]
TRIES = 600


def alone(values: list[float], margins: Margins | None = None) -> Decision:
    return decide({"gpt2/tiny": values}, {"gpt2/tiny": margins or Margins()})["gpt2/tiny"]


def test_eight_repetitions_above_the_tolerance_convict_and_seven_do_not() -> None:
    slow = [math.log(1.05) + 1e-3 * index for index in range(8)]
    assert alone(slow).verdict is Verdict.REGRESSION
    assert alone(slow).p_regression == pytest.approx(1 / 256)
    assert alone([*slow[:7], 0.0]).verdict is Verdict.INCONCLUSIVE
    assert alone(slow[:7]).verdict is Verdict.INCONCLUSIVE


def test_a_pass_is_a_proof_that_no_harm_was_done() -> None:
    even = [1e-4 * index for index in range(-4, 4)]
    assert alone(even).verdict is Verdict.PASS
    # The value above the harm is nearer to it than the others: 2 of 256 sign assignments are as extreme.
    assert alone([*even[:7], 0.035]).verdict is Verdict.PASS
    assert alone([*even[:7], 0.2]).verdict is Verdict.INCONCLUSIVE


def test_what_is_proven_to_lie_between_the_margins_is_a_regression() -> None:
    between = [math.log(1.02) + 1e-4 * index for index in range(-4, 4)]
    found = alone(between)
    assert found.p_regression == found.p_pass == pytest.approx(1 / 256)
    assert found.verdict is Verdict.REGRESSION


def test_too_few_repetitions_see_nothing() -> None:
    assert alone([0.5, 0.6, 0.7]).least_seen is None
    assert alone([0.5, 0.6, 0.7]).verdict is Verdict.INCONCLUSIVE


def test_margins_of_a_workloads_own_decide_about_it() -> None:
    slow = [math.log(1.02) + 1e-4 * index for index in range(12)]
    lenient = Margins(tolerance=0.05, harm=0.1)
    found = decide({"a": slow, "b": slow}, {"a": Margins(), "b": lenient})
    assert (found["a"].verdict, found["b"].verdict) == (Verdict.REGRESSION, Verdict.PASS)


def test_holm_holds_the_smallest_to_the_strictest() -> None:
    assert holm({"a": 0.001, "b": 0.0015, "c": 0.5}, 0.004, 3) == {"a", "b"}
    assert holm({"a": 0.002, "b": 0.0021, "c": 0.0022}, 0.004, 3) == set()


def test_unequal_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="the same number"):
        decide({"a": [0.0] * 8, "b": [0.0] * 7}, {"a": Margins(), "b": Margins()})
    with pytest.raises(ValueError, match="tolerance"):
        Margins(tolerance=0.04)


def normal(random: np.random.Generator, size: int) -> np.ndarray:
    return random.normal(0.0, 0.014, size)


def heavy(random: np.random.Generator, size: int) -> np.ndarray:
    return 0.008 * random.standard_t(2, size)


def skewed(random: np.random.Generator, size: int) -> np.ndarray:
    """The difference of two arms whose disturbances are all upwards."""
    return 0.01 * (random.exponential(size=size) - random.exponential(size=size))


def outcomes(draw: Draw, ratio: float) -> dict[Verdict, int]:
    """How many of TRIES gates ended in each verdict, with the same looks as the real gate."""
    random = np.random.default_rng(7)
    counts = dict.fromkeys(Verdict, 0)
    for _ in range(TRIES):
        values = (math.log(ratio) + draw(random, max(LOOKS))).tolist()
        seen = (alone(values[:size]).verdict for size in LOOKS)
        counts[next((verdict for verdict in seen if verdict is not Verdict.INCONCLUSIVE), Verdict.INCONCLUSIVE)] += 1
    return counts


@pytest.mark.parametrize("draw", [normal, heavy, skewed])
def test_the_error_rates_are_those_that_are_stated(draw: Draw) -> None:
    # In 600 draws, a 1 % event occurs 16 times or more with probability 1/1000, and a 5 % event 47 times or more.
    assert outcomes(draw, 1.01)[Verdict.REGRESSION] < 16
    assert outcomes(draw, 1.03)[Verdict.PASS] < 47


def test_five_percent_is_caught_and_nothing_is_passed_at_the_spread_of_a_shared_machine() -> None:
    caught, unchanged = outcomes(normal, 1.05), outcomes(normal, 1.0)
    assert caught[Verdict.REGRESSION] > 0.97 * TRIES
    assert unchanged[Verdict.PASS] > 0.97 * TRIES
    assert unchanged[Verdict.REGRESSION] == 0


def test_the_smallest_regression_seen_is_seen_four_times_in_five() -> None:
    random = np.random.default_rng(3)
    size, spread = 16, 0.014
    samples = random.normal(0.0, spread, (TRIES, size))
    least = [alone(values.tolist()).least_seen for values in samples[:50]]
    typical = float(np.median([value for value in least if value is not None]))
    hits = sum(alone((math.log(typical) + values).tolist()).verdict is Verdict.REGRESSION for values in samples)
    assert 0.7 < hits / TRIES < 0.92
