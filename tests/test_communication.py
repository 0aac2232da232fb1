"""Exposed communication is what no computation hides, by union of intervals."""

from __future__ import annotations

import pytest

from harness.communication import exposed, length, over_ranks, union


def test_overlapping_intervals_count_once() -> None:
    assert union([(4, 6), (0, 2), (1, 3), (6, 7)]) == [(0, 3), (4, 7)]
    assert length(union([(0, 2), (1, 3)])) == 3


@pytest.mark.parametrize(
    ("communication", "computation", "expected"),
    [
        ([(0, 10)], [], 10),
        ([(0, 10)], [(0, 10)], 0),
        ([(0, 10)], [(2, 4), (3, 5)], 7),  # Summing up kernels would hide 4 instead of 3.
        ([(0, 4), (2, 6)], [(5, 9)], 5),
        ([(0, 1)], [(5, 9)], 1),
    ],
)
def test_exposed_is_communication_without_computation(
    communication: list[tuple[float, float]], computation: list[tuple[float, float]], expected: float
) -> None:
    assert exposed(communication, computation) == expected


def test_the_slowest_rank_waits_least() -> None:
    merged = over_ranks([{"communication": 0.5, "exposed": 0.4}, {"communication": 0.3, "exposed": 0.1}])
    assert merged["slowest_rank"] == 1
    assert merged["slowest_rank_lag"] == pytest.approx(0.3)
    assert merged["exposed_communication_share"] == pytest.approx(0.25)
    assert over_ranks([None]) == {} == over_ranks([None, {"communication": 0.5, "exposed": 0.4}])
