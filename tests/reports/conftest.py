"""One made-up run for all tests of reports."""

from __future__ import annotations

import pytest

import reports.page.html
from harness.record import Record
from results.compare import Comparison, compare
from tests.reports.synthetic import (
    PLAN,
    Page,
    machine,
    run,
)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return run() + run("bert/mini", step_s=0.212)


@pytest.fixture(scope="module")
def comparisons(records: list[Record]) -> list[Comparison]:
    return compare(records, machine())


@pytest.fixture(scope="module")
def text(records: list[Record], comparisons: list[Comparison]) -> str:
    return reports.page.html.render(comparisons, records, machine(), PLAN, captions={"compile": "Compiles the model."})


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)
