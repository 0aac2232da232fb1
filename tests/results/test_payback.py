"""When a technique has earned back its longer start."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from typing import Any

import pytest

from harness.record import Record
from reports.charts.curves import total_time
from reports.formats.export import to_json
from reports.wording.columns import COLUMNS, text, why_unknown
from results.compare import Comparison, Verdict, compare
from results.metrics import METRICS
from results.payback import Payback, Pays, payback
from tests.samples import MACHINE, record

STEP_S = 0.1


def arm(label: str, share: float, ready_s: float, **measured: Any) -> list[Record]:
    """Three repetitions at this share of the baseline's step time, with four steps of warm-up after the first."""
    made = []
    for index, luck in enumerate((1.0, 1.01, 0.99) if label == "fp32" else (0.98, 1.0, 1.01)):
        step_s = STEP_S * share * luck
        found = record(label, index, [step_s] * 4)
        warmup = [found.measurement.first_step_s, *[2 * step_s] * 4]
        changes: dict[str, Any] = {"ready_s": ready_s, "warmup_step_times_s": warmup} | measured
        made.append(dataclasses.replace(found, measurement=dataclasses.replace(found.measurement, **changes)))
    return made


COLUMN = next(column for column in COLUMNS if column.name == "pays_after_updates")


def row(share: float, ready_s: float, **measured: Any) -> Comparison:
    return compare([*arm("fp32", 1.0, 0.3), *arm("arm", share, ready_s, **measured)], MACHINE)[1]


def test_what_compiles_for_seconds_pays_after_what_it_saves() -> None:
    """Until it is warm, the baseline takes 0.3 s and twice 4 steps, of which 5 count as useful."""
    found = row(0.5, 10.3)
    assert found.start_s == pytest.approx(10.3 + (4 * 2 - 5) * STEP_S / 2, rel=1e-3)
    extra_s = 10.0 - 3 * STEP_S / 2
    assert found.pays is Pays.AFTER
    assert found.pays_after_updates == pytest.approx(extra_s / (STEP_S / 2), rel=0.02)
    bounds = (found.pays_after_updates_low, found.pays_after_updates, found.pays_after_updates_high)
    low, value, high = (item or 0.0 for item in bounds)
    assert 0 < low < value < high
    assert re.fullmatch(r"\d+ updates \[\d+, \d+\]", text(COLUMN, found))


def test_a_total_is_the_same_where_it_has_just_paid() -> None:
    """Checked step by step: the first update after which the arm is no longer behind."""
    found = payback(7.0, 0.1, 1.25, 1.2, 1.3)
    first = next(updates for updates in itertools.count() if 7.0 + updates * 0.1 / 1.25 <= updates * 0.1)
    assert found.updates is not None and first - 1 < found.updates - 1e-9 <= first


@pytest.mark.parametrize(
    ("share", "ready_s", "pays", "said"),
    [(0.5, 0.2, Pays.AT_ONCE, "at once"), (2.0, 9.0, Pays.NEVER, "never"), (1.0, 9.0, None, "unknown")],
)
def test_what_starts_as_fast_pays_at_once_and_what_is_slower_never(
    share: float, ready_s: float, pays: Pays | None, said: str
) -> None:
    found = row(share, ready_s)
    assert found.pays is pays and text(COLUMN, found) == said
    told = json.loads(to_json([found]))[0]
    assert told["pays"] == pays and told["pays_after_updates"] == (0.0 if pays is Pays.AT_ONCE else None)


def test_what_was_found_in_a_cache_says_nothing_of_what_starting_takes() -> None:
    found = row(0.5, 0.2, compile_cache="warm")
    assert found.verdict is Verdict.FASTER and (found.start_s, found.pays) == (None, None)
    assert why_unknown(COLUMN, found, [], MACHINE) == "its start was not timed"


def test_bounds_that_hold_1_leave_it_open() -> None:
    assert payback(7.0, 0.1, 1.05, 0.98, 1.1) == Payback()
    assert payback(7.0, 0.1, 0.95, 0.9, 1.02) == Payback()
    assert payback(None, 0.1, 0.8, 0.7, 0.9).pays is Pays.NEVER


def test_steps_that_became_slower_after_the_warm_up_say_nothing_of_what_starting_takes() -> None:
    """They would make the start negative, which a logarithmic scale cannot show."""
    steps_s = [0.001] * 10
    rows = compare([*arm("fp32", 1.0, 0.3), *arm("arm", 0.5, 0.01, warmup_step_times_s=steps_s)], MACHINE)
    assert (rows[1].start_s, rows[1].pays) == (None, None)
    assert total_time(rows, "total-time") is None


def test_a_single_start_of_less_than_nothing_counts_like_the_others() -> None:
    """Leaving it out would make the median of the others too long."""
    records = arm("fp32", 1.0, 0.3)
    slow = dataclasses.replace(records[0].measurement, ready_s=0.001, warmup_step_times_s=[0.001] * 5)
    records[0] = dataclasses.replace(records[0], measurement=slow)
    starts_s = [METRICS["start_s"].derive(item, MACHINE) or 0.0 for item in records]
    assert starts_s[0] < 0 < min(starts_s[1:])
    assert METRICS["start_s"].median(records, MACHINE) == min(starts_s[1:])
