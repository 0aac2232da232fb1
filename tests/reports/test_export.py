"""Tables for the terminal, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from reports.formats import export
from reports.text import markdown, terminal
from reports.wording import view
from reports.wording.columns import speedup
from results.compare import Comparison
from tests.reports.synthetic import (
    FAILED,
)


def test_json_has_the_fields_of_a_comparison_and_no_nan(comparisons: list[Comparison]) -> None:
    broken = replace(comparisons[0], final_loss=math.nan, loss_delta=math.inf)
    read = json.loads(export.to_json([broken, *comparisons[1:]]), parse_constant=pytest.fail)
    assert [tuple(item) for item in read] == [export.FIELDS] * len(comparisons)
    assert read[0]["final_loss"] is None and read[0]["loss_delta"] is None
    for item, comparison in zip(read[1:], comparisons[1:], strict=True):
        assert item == {name: getattr(comparison, name) for name in export.FIELDS}
    assert {item["verdict"] for item in read} <= {None, "faster", "slower", "same", "unclear"}


def test_csv_reads_back(comparisons: list[Comparison]) -> None:
    read = list(csv.DictReader(io.StringIO(export.to_csv(comparisons))))
    assert len(read) == len(comparisons)
    for item, comparison in zip(read, comparisons, strict=True):
        assert item["techniques"] == comparison.techniques
        for name in ("step_time_s", "speedup_low", "mfu"):
            value = getattr(comparison, name)
            assert item[name] == "" if value is None else float(item[name]) == value


def test_markdown_is_a_table_of_the_same_figures(comparisons: list[Comparison]) -> None:
    odd = [replace(item, workload="a|b") if item.techniques == "compile" else item for item in comparisons]
    lines = markdown.render(odd).splitlines()
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if line.startswith("|")]
    header, ruler, *body = cells
    assert len(body) == len(comparisons) and {len(line) for line in cells} == {len(header)}
    assert all(set(mark) <= set("-:") for mark in ruler)
    for line, comparison in zip(body, odd, strict=True):
        assert line[:2] == [comparison.workload.replace("|", "\\|"), comparison.techniques]
        expected = speedup(comparison) if view.is_ranked(comparison) else ("reference", "unknown")
        assert line[header.index("Speed-up")] in expected
    assert any(view.INTERVALS in line for line in lines)
    assert any(FAILED["fp8_tensorwise"][1] in line for line in lines)


def test_terminal_shows_every_arm_with_its_interval(comparisons: list[Comparison]) -> None:
    console = Console(width=200, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(terminal.table(comparisons))
    for shown in (captured.get(), terminal.plain(comparisons)):
        for comparison in comparisons:
            assert comparison.techniques in shown
            assert not view.is_ranked(comparison) or speedup(comparison) in shown
        assert FAILED["tf32"][1] in shown


def test_plain_text_is_aligned(comparisons: list[Comparison]) -> None:
    lines = terminal.plain(comparisons).splitlines()[: len(comparisons) + 1]
    start = lines[0].index("Outcome")
    assert {line[start - 1] for line in lines} == {" "}
    assert all(line[start] != " " for line in lines)
