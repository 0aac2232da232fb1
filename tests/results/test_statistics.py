"""Intervals cover as often as they claim, and agree with scipy and with published tables."""

import math

import numpy as np
import pytest
from scipy import stats

from results.statistics import interval, moments, welch_half_width


def test_small_samples_use_student_t() -> None:
    values = [0.1, 0.3, 0.2]
    found = interval(values)
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.method == "mean, Student t, n=3"


def test_six_repetitions_span_all_walsh_averages() -> None:
    found = interval([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    assert (found.low, found.high) == (1.0, 32.0)
    assert "signed-rank, n=6" in found.method


@pytest.mark.parametrize("size", [6, 7, 8, 12, 20])
def test_the_interval_inverts_the_exact_test(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size)
    found = interval(values.tolist())
    assert found.low is not None and found.high is not None
    for bound, sign in ((found.low, 1), (found.high, -1)):
        inside, outside = bound + sign * 1e-9, bound - sign * 1e-9
        assert stats.wilcoxon(values - inside, method="exact").pvalue > 0.05
        assert stats.wilcoxon(values - outside, method="exact").pvalue <= 0.05


@pytest.mark.parametrize("size", [3, 5, 6, 10])
def test_intervals_cover_the_truth(size: int) -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        found = interval(random.normal(0.3, 1.0, size).tolist())
        assert found.low is not None and found.high is not None
        covered += found.low <= 0.3 <= found.high
    # The rate of a 95 % event in 2000 draws varies by 0.5 %; the signed-rank interval is conservative if n is small.
    assert 0.935 <= covered / 2000 <= 0.98


def test_smallest_effect_is_found_four_times_in_five() -> None:
    random = np.random.default_rng(1)
    size, hits, tries = 5, 0, 2000
    effect = (stats.t.ppf(0.975, size - 1) + stats.t.ppf(0.8, size - 1)) / math.sqrt(size)
    for _ in range(tries):
        found = interval(random.normal(effect, 1.0, size).tolist())
        assert found.low is not None
        hits += found.low > 0
    assert 0.75 <= hits / tries <= 0.9


def test_one_value_has_no_interval_and_none_is_refused() -> None:
    assert interval([0.5]).low is None
    for values in ([], [math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="at least one finite value"):
            interval(values)


def test_welchs_interval_is_scipys() -> None:
    draw = np.random.default_rng(2)
    for sizes in ((2, 3), (5, 5), (4, 30)):
        one, other = (draw.normal(scale=size, size=size).tolist() for size in sizes)
        found, half = stats.ttest_ind(one, other, equal_var=False), welch_half_width(moments(one), moments(other), 0.9)
        bounds = found.confidence_interval(0.9)
        assert (np.mean(one) - np.mean(other) - half, np.mean(one) - np.mean(other) + half) == pytest.approx(
            tuple(bounds)
        )
    assert welch_half_width(moments([1.0, 1.0]), moments([2.0, 2.0])) == 0
    assert np.isnan(welch_half_width(moments([1.0]), moments([2.0, 3.0])))
