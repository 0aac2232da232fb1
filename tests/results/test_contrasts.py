"""Speed-ups of many rivals together: they agree with textbook formulas, and err as often as they claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from results.contrasts import Block, contrasts

BASE = "fp32"


def drawn(
    random: np.random.Generator, *, rivals: int, repetitions: int, baselines: int, unlike: float = 0.0
) -> list[Block]:
    """Blocks of arms with the same pace. Their spreads differ by a factor whose logarithm has the standard deviation
    `unlike`."""
    spreads = 0.01 * np.exp(random.normal(0, unlike, rivals + 1))
    blocks: list[Block] = []
    for shift in random.normal(0, 0.05, repetitions):
        block = {BASE: list(random.normal(shift, spreads[0], baselines))}
        block |= {f"arm{index}": [random.normal(shift, spreads[index + 1])] for index in range(rivals)}
        blocks.append(block)
    return blocks


def test_two_arms_are_compared_by_the_paired_t() -> None:
    base, arm = [0.1, 0.5, 0.2, 0.3], [0.15, 0.53, 0.27, 0.31]
    blocks = [{BASE: [one], "arm": [other]} for one, other in zip(base, arm, strict=True)]
    found = contrasts(blocks, BASE)["arm"]
    textbook = stats.ttest_rel(base, arm).confidence_interval(0.95)
    assert found.low == pytest.approx(textbook.low) and found.high == pytest.approx(textbook.high)
    assert (found.claim_low, found.claim_high) == (found.low, found.high)


def test_one_repetition_has_no_bounds() -> None:
    (found,) = contrasts([{BASE: [0.1, 0.2], "arm": [0.3]}], BASE).values()
    assert found.estimate == pytest.approx(-0.15)
    assert found.low is None and found.claim_low is None


@pytest.mark.parametrize("unlike", [0.0, 0.4])
def test_an_arm_of_one_repetition_has_the_spread_that_the_others_show(unlike: float) -> None:
    random, tries = np.random.default_rng(4), 300
    inside, wider = [], []
    for _ in range(tries):
        blocks = drawn(random, rivals=16, repetitions=3, baselines=4, unlike=unlike)
        for block in blocks[1:]:
            del block["arm0"]  # type: ignore[attr-defined]
        found = contrasts(blocks, BASE)
        once, thrice = found["arm0"], found["arm1"]
        if once.low is None or once.high is None or thrice.low is None or thrice.high is None:
            # By chance, the baseline's spread looked unlike all others.
            continue
        inside.append(once.low <= 0 <= once.high)
        wider.append((once.high - once.low) / (thrice.high - thrice.low))
    assert len(inside) > 0.9 * tries
    assert 0.92 <= np.mean(inside) <= 0.98
    # From process noise alone: the square root of (1 + 1/4) / (1/3 + 1/12), and a little more if spreads differ.
    assert 1.6 < np.median(wider) < 2.4


def test_an_arm_is_only_set_against_a_baseline_of_its_own_block() -> None:
    blocks = [{BASE: [0.1], "arm": [0.2]}, {"arm": [9.0]}, {BASE: [0.5]}]
    (found,) = contrasts(blocks, BASE).values()
    assert found.estimate == pytest.approx(-0.1)


def test_what_befalls_a_whole_block_is_no_spread() -> None:
    blocks = drawn(np.random.default_rng(0), rivals=8, repetitions=3, baselines=2)
    shifted = [
        {label: [value + 5.0 * at for value in own] for label, own in block.items()} for at, block in enumerate(blocks)
    ]
    for label, found in contrasts(blocks, BASE).items():
        other = contrasts(shifted, BASE)[label]
        assert other.low == pytest.approx(found.low) and other.claim_high == pytest.approx(found.claim_high)


@pytest.mark.parametrize("repetitions", [3, 4])
@pytest.mark.parametrize("unlike", [0.0, 0.4])
def test_intervals_hold_the_truth_as_often_as_they_say(repetitions: int, unlike: float) -> None:
    random, tries = np.random.default_rng(1), 150
    held, false = [], 0
    for _ in range(tries):
        blocks = drawn(random, rivals=16, repetitions=repetitions, baselines=4, unlike=unlike)
        found = contrasts(blocks, BASE).values()
        held += [item.low <= 0 <= item.high for item in found if item.low is not None and item.high is not None]
        false += any(
            not item.claim_low <= 0 <= item.claim_high
            for item in found
            if item.claim_low is not None and item.claim_high is not None
        )
    assert 0.93 <= np.mean(held) <= 0.97
    # Of 150 draws of a 5 % event, more than 14 occur in 1 % of cases; differing spreads add a few per cent.
    assert false <= 14 + 8 * bool(unlike)


def test_a_shared_spread_and_more_baselines_make_bounds_narrow() -> None:
    def width(blocks: list[Block]) -> float:
        found = contrasts(blocks, BASE).values()
        return float(
            np.median([item.high - item.low for item in found if item.low is not None and item.high is not None])
        )

    random = np.random.default_rng(2)
    many = np.median([width(drawn(random, rivals=16, repetitions=3, baselines=4)) for _ in range(20)])
    single = np.median([width(drawn(random, rivals=1, repetitions=3, baselines=1)) for _ in range(200)])
    # Student's t of 2.1 instead of 4.3, and a baseline that is known twice as well.
    assert many / single < 0.5


def test_an_arm_with_a_spread_of_its_own_keeps_it() -> None:
    random = np.random.default_rng(3)
    blocks = drawn(random, rivals=16, repetitions=4, baselines=4)
    for block, noise in zip(blocks, (-0.4, 0.5, -0.5, 0.4), strict=True):
        block["arm0"][0] += noise  # type: ignore[index]
    found = contrasts(blocks, BASE)
    widths = {label: item.high - item.low for label, item in found.items() if item.high and item.low}
    assert widths.pop("arm0") > 10 * max(widths.values())
    calm = contrasts([{label: own for label, own in block.items() if label != "arm0"} for block in blocks], BASE)
    for label, width in widths.items():
        low, high = calm[label].low, calm[label].high
        assert low is not None and high is not None and width == pytest.approx(high - low)


def test_times_without_any_spread_are_no_trouble() -> None:
    blocks = [{BASE: [0.0, 0.0]} | {f"arm{index}": [0.1] for index in range(8)} for _ in range(3)]
    for found in contrasts(blocks, BASE).values():
        assert found.claim_high is not None and found.claim_high < 0
