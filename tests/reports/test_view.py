"""Comparisons as rows, with reasons for what is unknown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import reports.page.html
from bench.spec import BASELINE
from harness.record import GPU_FIGURES, Record, note
from reports.wording import view
from reports.wording.columns import speedup
from results.compare import Comparison, compare
from tests.reports.synthetic import (
    PLAN,
    Page,
    find,
    machine,
    run,
)


def test_one_repetition_has_an_unknown_interval(comparisons: list[Comparison]) -> None:
    single = find(compare(run(repetitions=1), machine()), "compile")
    assert speedup(single).endswith("x [unknown]")
    assert "one repetition" in view.notes(single, None)


def test_first_step_is_earned_back(comparisons: list[Comparison]) -> None:
    compiled, plain = find(comparisons, "compile"), find(comparisons, BASELINE)
    steps = view.payback_steps(compiled, plain)
    assert steps is not None
    assert compiled.first_step_s and plain.first_step_s and compiled.step_time_s and plain.step_time_s
    spent = [item.first_step_s + steps * item.step_time_s for item in (compiled, plain)]  # type: ignore[operator]
    assert spent[0] == pytest.approx(spent[1])
    assert view.payback_steps(find(comparisons, "adafactor"), plain) is None


def test_reasons_for_unknown_figures_are_specific(comparisons: list[Comparison], records: list[Record]) -> None:
    rows = view.rows(comparisons, records, machine())
    cells = {cell.name: cell for row in rows if row.techniques == "amp_bf16" for cell in row.cells}
    assert cells["gpu_util_pct"].why == "the run is on the CPU"
    assert cells["mfu"].why == "no published peak on file for AMD EPYC 7B13"
    assert cells["compile_s"].why == "nothing was compiled"
    assert cells["speedup"].why is None
    assert cells["matmul_share"].value is not None


def test_an_arm_that_was_always_disturbed_says_so_for_every_figure() -> None:
    records = [replace(item, disturbed=True, disturbances=["another program ran"]) for item in run(repetitions=2)]
    rows = view.rows(compare(records, machine()), records, machine())
    (row,) = [row for row in rows if row.techniques == "compile"]
    told = "every repetition was disturbed, so none is counted; in the last one, another program ran"
    assert (row.outcome, row.reason) == ("not compared", told)
    assert {cell.why for cell in row.cells if cell.name in ("step_time_s", "speedup", "seconds_to_know")} == {told}


def why(records: list[Record], name: str) -> str | None:
    """Why this figure of `compile` is unknown, for records of a GPU."""
    rows = view.rows(compare(records, machine("cuda")), records, machine("cuda"))
    return next(cell.why for row in rows if row.techniques == "compile" for cell in row.cells if cell.name == name)


def test_each_gpu_figure_has_its_own_reason() -> None:
    lost: dict[str, Any] = {"sample_gpu_util_pct": [], "sustained_energy_j": None}
    own = [note("sustained_energy_j", "NVML says Timeout"), note("sample_gpu_util_pct", "NVML says Not Supported")]
    records = changed(run(repetitions=2, device="cuda"), **lost, unknown=own)
    assert why(records, "gpu_util_pct") == "NVML says Not Supported"
    assert why(records, "energy_j_per_token") == "NVML says Timeout"
    closed = changed(records, unknown=[note(GPU_FIGURES, "NVML says Driver Not Loaded")])
    assert why(closed, "gpu_util_pct") == why(closed, "energy_j_per_token") == "NVML says Driver Not Loaded"
    others = changed(records, unknown=[note("sample_gpu_power_w", "NVML says Timeout")])
    assert why(others, "gpu_util_pct") == why(others, "energy_j_per_token") == "not recorded"
    no_text = changed(run(repetitions=2, device="cuda"), sustained_tokens=None)
    assert why(no_text, "energy_j_per_token") == "no tokens were counted"


def changed(records: list[Record], **changes: Any) -> list[Record]:
    return [replace(item, measurement=replace(item.measurement, **changes)) for item in records]


def test_gpu_figures_are_shown_on_a_gpu() -> None:
    records = run("gpt2/medium", 2, "cuda", 0.012)
    compared = compare(records, machine("cuda"))
    shown = reports.page.html.render(compared, records, machine("cuda"), PLAN)
    columns = {cell["data-key"] for cell in Page(shown).cells}
    assert {"gpu_util_pct", "energy_j_per_token", "mfu"} <= columns
    assert "989 TFLOP/s" in shown and "gtc22-whitepaper-hopper" in shown
    assert "software power cap" in shown


def test_what_the_plan_has_and_no_record_tells_of_is_not_measured() -> None:
    records = run()
    known = {item.techniques for item in records}
    plan = replace(PLAN, compositions=(("compile",), ("adam", "amp_bf16")))
    assert "compile" in known and "adam+amp_bf16" not in known
    (missing,) = view.unmeasured(compare(records, machine()), plan)
    assert (missing.techniques, missing.workloads, missing.outcome) == ("adam+amp_bf16", ("gpt2/tiny",), "not measured")
    page = reports.page.html.render(compare(records, machine()), records, machine(), plan)
    assert "trainpace run --resume" in page


def test_an_arm_that_only_one_workload_has_is_not_measured_on_the_other() -> None:
    records = run() + [item for item in run("gpt2/nano") if item.techniques != "compile"]
    page = reports.page.html.render(compare(records, machine()), records, machine(), PLAN)
    assert page.count('<td class="missing">not measured</td>') == 1
