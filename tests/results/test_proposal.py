"""Keep, discard or not known: decided by tests on the sum of two means, never by the estimate."""

from __future__ import annotations

import math
import random

import pytest
from scipy import stats

from results import proposal
from results.online import Entry, Ledger
from results.proposal import EXACT, Verdict


def around(centre: float, spread: float, count: int, draw: random.Random) -> proposal.Mean:
    return proposal.mean([math.log(centre) + draw.gauss(0, spread) for _ in range(count)])


def test_one_mean_is_students_test() -> None:
    values = [-0.03, -0.01, -0.05, -0.02, 0.01]
    expected = stats.ttest_1samp(values, 0.0, alternative="less").pvalue
    assert proposal.p_gain(proposal.total(proposal.mean(values), EXACT)) == pytest.approx(expected)


def test_two_means_are_welchs_test() -> None:
    one, other = [-0.03, -0.01, -0.05, -0.02], [0.02, 0.01, 0.04, 0.00, 0.03]
    expected = stats.ttest_ind(one, [-value for value in other], equal_var=False, alternative="less").pvalue
    assert proposal.p_gain(proposal.total(proposal.mean(one), proposal.mean(other))) == pytest.approx(expected)


def test_a_gain_is_kept_a_loss_discarded_and_the_rest_not_known() -> None:
    draw = random.Random(0)
    steps = around(1.0, 0.005, 6, draw)
    said = {
        centre: proposal.verdict(proposal.total(steps, around(centre, 0.03, 8, draw)), 0.001, is_late=False)[0]
        for centre in (0.8, 1.2, 0.97)
    }
    assert said == {0.8: Verdict.KEEP, 1.2: Verdict.DISCARD, 0.97: Verdict.UNKNOWN}


def test_a_head_that_does_not_get_there_is_never_kept() -> None:
    found = around(0.8, 0.01, 8, random.Random(0))
    assert proposal.verdict(found, 0.05, is_late=False)[0] is Verdict.KEEP
    assert proposal.verdict(found, 0.05, is_late=True)[0] is Verdict.UNKNOWN


def test_of_forty_nulls_at_most_two_are_kept_and_of_ten_gains_eight() -> None:
    """With the spreads that trainings of gpt2/nano have."""
    for seed in range(20):
        draw, ledger, kept = random.Random(seed), Ledger(), 0
        for number in range(50):
            is_real = number >= 40
            learnt = around(0.9 if is_real else 1.0, 0.03, 8, draw)
            found = proposal.total(around(1.0, 0.01, 6, draw), learnt)
            said, _ = proposal.verdict(found, ledger.level, is_late=False)
            kept += is_real and said is Verdict.KEEP
            ledger = ledger.with_entry(
                Entry(
                    at="",
                    base="",
                    head="",
                    workload="",
                    p=proposal.p_gain(found),
                    level=ledger.level,
                    kept=said is Verdict.KEEP,
                    seeds=(0, 0),
                )
            )
        assert sum(entry.kept for entry in ledger.entries[:40]) <= 2
        assert kept >= 8
