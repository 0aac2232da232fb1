"""Metrics: what each is, from the steps that count."""

from __future__ import annotations

import pytest

from results.compare import compare
from results.pace import step_time_s
from tests.samples import MACHINE, record


def test_derived_metrics() -> None:
    baseline = [record("fp32", index, [slow * 0.1, slow * 0.12]) for index, slow in enumerate((1.0, 1.3, 0.8))]
    found = compare(baseline, MACHINE)[0]
    # The first of the three repetitions is the median.
    step_s = step_time_s(baseline[0])
    assert step_s is not None
    assert found.tokens_per_s == pytest.approx(8 * 128 / step_s)
    assert found.samples_per_s == pytest.approx(8 / step_s)
    assert found.data_wait_pct == pytest.approx(10)
    assert found.copy_pct == pytest.approx(20)
    assert found.mfu is None
    assert found.matmul_share is not None
    assert found.gpu_util_pct is None
