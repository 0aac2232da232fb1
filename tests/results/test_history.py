"""Paces over many runs: a change is nominated where there is one, and hardly ever by chance."""

from __future__ import annotations

import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from bench.cli.app import app
from harness.record import Record
from reports.page import history as page
from results import store
from results.history import _rank_sum_p, history, nominate, runs_needed
from results.summary import Summary, summary
from tests.reports.synthetic import PLAN, Page, machine, record

CHANGES_AT, RUNS = 7, 14


def a_run(number: int, slower: float = 1.0) -> list[Record]:
    """The reference and one workload, on a machine whose speed changes from day to day."""
    draw = random.Random(number)
    day = draw.uniform(0.8, 1.25)
    made = []
    for repetition in range(3):
        for workload, step_s in (("gpt2/nano", 0.01), ("train.py:model", 0.05 * slower)):
            took_s = step_s * day * draw.lognormvariate(0, 0.004)
            made.append(record("fp32", 100 * number + repetition, workload=workload, step_s=took_s))
    return made


def measured(slower: float) -> list[list[Record]]:
    return [
        [
            dataclasses.replace(item, run_id=f"run-{number:02}", started_at=f"2026-01-{number + 1:02}T00:00:00+00:00")
            for item in a_run(number, slower if number >= CHANGES_AT else 1.0)
        ]
        for number in range(RUNS)
    ]


def runs(slower: float) -> list[Summary]:
    return [summary(records, commit=f"{number:040}") for number, records in enumerate(measured(slower))]


def test_a_change_is_nominated_where_it_is_though_the_machine_wavers_more() -> None:
    pinned, (series,) = history(list(reversed(runs(1.1))))
    assert pinned == "gpt2/nano" and series.workload == "train.py:model"
    (nomination,) = series.nominations
    assert nomination.index == CHANGES_AT
    assert nomination.factor == pytest.approx(1.1, abs=0.02)
    (sentence,) = page.sentences(series)
    assert "may have become slower between runs run-06 and run-07" in sentence
    assert f"trainpace gate --model train.py:model --base {6:040}"[:54] in sentence


def test_no_change_is_nominated_where_there_is_none() -> None:
    _, (series,) = history(runs(1.0))
    assert series.nominations == ()
    assert "more than chance would explain" in page.answer([series])[0]


@pytest.mark.parametrize("series", [1, 3, 30])
def test_too_few_runs_to_tell_anything_are_said_to_be(series: int) -> None:
    needed = runs_needed(series)
    for count in (needed - 1, needed):
        levels = [float(index + (count if index >= count // 2 else 0)) for index in range(count)]
        assert bool(nominate(levels, series=series)) == (count == needed)
    _, (few,) = history(runs(1.0)[:7])
    assert page.answer([few]) == ["7 runs of 1 arms are too few to tell a change from chance: that takes 8."]


def test_chance_nominates_no_more_than_it_may() -> None:
    draws = np.random.default_rng(5).normal(size=(400, 20))
    false = sum(bool(nominate(values.tolist())) for values in draws)
    # In 400 draws, a 5 % event occurs 34 times or more with probability 1/1000.
    assert false < 34
    assert nominate([0.0] * 7) == []


def test_a_reference_has_to_be_in_every_run() -> None:
    found = runs(1.0)
    lacking = summary([item for item in measured(1.0)[0] if item.workload != "gpt2/nano"])
    with pytest.raises(ValueError, match=r"'gpt2/nano' was not measured in run 'run-00'.*\(train.py:model\)"):
        history([lacking, *found[1:]])
    disturbed = summary(
        [dataclasses.replace(item, disturbances=["a build"], disturbed=True) for item in measured(1.0)[0]]
    )
    with pytest.raises(ValueError, match="the reference 'gpt2/nano' was disturbed or failed in run 'run-00': leave"):
        history([disturbed, *found[1:]])
    pinned, _ = history([lacking, *found[1:]], "train.py:model")
    assert pinned == "train.py:model"


@pytest.mark.parametrize("by_name", [True, False])
def test_the_page_is_whole_and_says_what_is_nominated(tmp_path: Path, *, by_name: bool) -> None:
    folders = []
    for records in measured(1.1):
        folder = tmp_path / records[0].run_id
        for item in records:
            store.write(item, folder, machine=machine(), plan=PLAN)
        folders.append(str(folder))
    # All runs by name, or the folder that contains them.
    done = CliRunner().invoke(
        app, ["history", *(folders if by_name else [str(tmp_path)]), "--out", str(tmp_path / "history.html")]
    )
    assert done.exit_code == 0, done.output
    assert "may have become slower" in done.output
    parsed = Page((tmp_path / "history.html").read_text())
    assert not parsed.open and len(parsed.ids) == len(set(parsed.ids))
    assert any("may have become slower" in text for text in parsed.texts)


def test_the_chance_of_an_order_is_scipys() -> None:
    draw = np.random.default_rng(3)
    for size, place in ((12, 4), (30, 15), (40, 4), (40, 36), (300, 6), (300, 294)):
        for shift in (0.0, 0.5, 2.0):
            values = draw.normal(size=size) + shift * (np.arange(size) < place)
            exact = stats.mannwhitneyu(values[:place], values[place:], alternative="two-sided", method="exact")
            assert _rank_sum_p(values, place) == pytest.approx(exact.pvalue, rel=1e-9)
    # The rarest possible order, and then values with ties.
    assert _rank_sum_p(np.arange(12.0), 4) == pytest.approx(2 / math.comb(12, 4))
    tied = np.array([1, 2, 2, 3, 3, 2, 4, 4, 5, 5.0])
    of_tied = stats.mannwhitneyu(tied[:5], tied[5:], alternative="two-sided", method="exact")
    assert _rank_sum_p(tied, 5) == pytest.approx(of_tied.pvalue)
