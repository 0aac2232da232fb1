"""The HTML page."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

import reports.page.html
from bench.spec import Plan
from harness.record import Record
from reports.charts import forest as charts
from reports.formats import export
from reports.wording.columns import COLUMNS
from results.compare import Comparison, compare
from tests.reports.synthetic import (
    FAILED,
    HOSTILE,
    PLAN,
    Page,
    machine,
    run,
)


def test_page_is_well_formed_and_its_ids_are_unique(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"answer", "throughput", "first-step", "traces", "utilisation", "arms", "machine"} <= set(page.ids)


def test_page_loads_nothing_from_elsewhere(text: str, page: Page) -> None:
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\(\s*[\"']?(?!#)|@import|\bfetch\(|XMLHttpRequest|\bimport\b", text)
    assert {link[1:] for link in page.links} <= set(page.ids)


@pytest.mark.parametrize("less_bytes", [40_000, 200_000])
def test_a_page_stays_under_its_size_by_leaving_out_charts(
    text: str,
    records: list[Record],
    comparisons: list[Comparison],
    less_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert len(text.encode()) < 2_000_000
    room = len(text.encode()) - less_bytes
    monkeypatch.setattr(reports.page.html, "PAGE_BYTES", room)
    smaller = reports.page.html.render(comparisons, records, machine(), PLAN)
    # No room is reserved for the line that says what was left out.
    assert len(smaller.encode()) < room + 200
    assert "Left out to keep this file under 2 MB" in smaller
    assert "Left out to keep this file under 2 MB" not in text


def test_sections_come_in_the_order_of_the_reader_s_questions(page: Page) -> None:
    charts = [section.name for section in reports.page.html.SECTIONS if not section.optional]
    order = ["answer", "intervals", *charts, "arms", "excluded", "warnings", "machine"]
    assert sorted(order, key=page.ids.index) == order


def test_names_from_records_are_escaped_everywhere() -> None:
    hostile = [replace(item, techniques=item.techniques.replace("tf32", HOSTILE)) for item in run(HOSTILE, 2)]
    compared = compare([replace(item, reason=item.reason and HOSTILE) for item in hostile], machine())
    shown = reports.page.html.render(compared, hostile, machine(), replace(PLAN, name=HOSTILE))
    assert HOSTILE not in shown
    read = Page(shown)
    assert read.open == []
    assert [item.get("type") for item in read.scripts] == ["application/json", None]
    assert any(HOSTILE in data for data in read.texts)


def test_mathematics_and_control_characters_in_a_name_are_plain_text() -> None:
    name = "a$_1$\x1b[0m"
    chart = charts.forest(compare(run(name, 2), machine()), "c")
    assert chart is not None
    assert "a$_1$\N{REPLACEMENT CHARACTER}[0m" in chart.svg


def test_table_shows_the_comparisons_own_numbers(page: Page, comparisons: list[Comparison]) -> None:
    names = [column.name for column in COLUMNS if column.main]
    shown = [cell for cell in page.cells if cell["data-key"] in names]
    columns = {cell["data-key"] for cell in shown}
    expected = [(item, name) for item in comparisons for name in names if name in columns]
    assert len(shown) == len(expected)
    for cell, (comparison, name) in zip(shown, expected, strict=True):
        figure = getattr(comparison, str(name))
        assert cell["data-value"] == ("" if figure is None else str(figure))


def test_written_figures_agree_with_bare_ones(page: Page) -> None:
    checked = 0
    for cell in page.cells:
        if cell["data-value"] and cell["data-key"] in ("speedup", "tokens_per_s") and cell["text"] != "reference":
            written = float(re.split(r"[x/]", str(cell["text"]).replace(",", ""), maxsplit=1)[0])
            assert written == pytest.approx(float(str(cell["data-value"])), rel=0.006)
            checked += 1
    assert checked > 40


def test_unknown_is_written_out_with_its_reason(page: Page, comparisons: list[Comparison]) -> None:
    empty = [cell for cell in page.cells if cell["data-value"] == "" and cell["text"] != "reference"]
    assert empty
    assert {cell["text"] for cell in empty} == {"unknown"}
    written = " ".join("".join(page.texts).split())
    for status, reason in FAILED.values():
        assert reason in written, status
    assert "MFU (no published peak on file for AMD EPYC 7B13)" in written
    assert "unknown (the run was not started in a git checkout)" in written
    assert not re.search(r"\b(None|nan)\b", written.replace("the loss is nan", ""))


def test_data_of_the_page_can_be_read_back(text: str, comparisons: list[Comparison]) -> None:
    found = re.search(r'<script type="application/json" id="trainpace-data">(.*?)</script>', text, re.DOTALL)
    assert found
    data = json.loads(found[1])
    assert data["comparisons"] == json.loads(export.to_json(comparisons))
    assert Plan.from_json(data["plan"]) == PLAN
    assert data["machine"]["machine_id"] == machine().machine_id


def test_every_row_has_the_command_that_reproduces_it(page: Page, comparisons: list[Comparison]) -> None:
    words = "".join(page.texts)
    assert all(item.command in words for item in comparisons)
    assert page.classes.count("copy") == len(comparisons)


def test_title_names_the_run_and_captions_are_shown(text: str) -> None:
    assert "<title>20261024-091502-quick \N{MIDDLE DOT} trainpace</title>" in text
    assert "Compiles the model." in text


def test_page_without_any_record_says_so() -> None:
    shown = reports.page.html.render([], [], machine(), PLAN)
    assert Page(shown).open == []
    assert "There is no record" in shown
