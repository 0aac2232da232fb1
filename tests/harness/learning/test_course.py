"""The learning rate over the course of a training."""

from __future__ import annotations

import pytest

from harness.learning.course import WARM_UP, Course, Point, Stand


def test_it_rises_and_falls_to_nothing() -> None:
    course = Course(updates=1000)
    rates = [course.rate(update) for update in range(1000)]
    top = rates.index(max(rates))
    assert top == pytest.approx(WARM_UP * 1000, abs=1) and rates[top] == pytest.approx(1.0, abs=0.05)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert 0 < rates[-1] < 0.01 and rates[0] > 0
    assert all(0 < Course(updates=count).rate(update) <= 1 for count in (1, 2, 7) for update in range(count))


def test_a_course_that_is_laid_anew_goes_on_where_it_was() -> None:
    course = Course(updates=1000)
    for updates in (700, 1500):
        anew = course.laid_anew(400, updates)
        assert anew.rate(400) == pytest.approx(course.rate(400), rel=0.01)
        assert anew.progress_at(updates) == pytest.approx(1.0)
        again = anew.laid_anew(500, 900)
        assert again.rate(500) == pytest.approx(anew.rate(500), rel=0.01) and again.updates == 900
    assert course.laid_anew(400, 3).updates == 401


def test_where_it_stands_is_kept() -> None:
    point = Point(updates=3, tokens=30, elapsed_s=1.5, held_out_loss=2.5, train_loss=None, rate=0.5)
    stand = Stand(
        course=Course(updates=9, since=2, progress=0.25),
        updates=3,
        tokens=30,
        elapsed_s=1.5,
        checkpoint="checkpoint-3.pt",
        points=(point,),
    )
    assert Stand.from_json(stand.to_json()) == stand
