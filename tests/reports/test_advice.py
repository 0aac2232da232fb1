"""Warnings and what to do about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.record import Record, note
from reports.wording import view
from results.compare import Comparison, compare
from tests.reports.synthetic import (
    find,
    machine,
    record,
    run,
)


def test_warnings_say_what_was_seen_and_what_to_do() -> None:
    quiet: dict[str, Any] = {"sample_foreign_cpu_pct": [1.0], "warmup_steady": True, "throttle_reasons": []}
    calm = [replace_measurement(item, **quiet) for item in run(repetitions=6)]
    assert view.warnings([], calm) == []
    seen: list[tuple[dict[str, Any], str]] = [
        ({"sample_foreign_cpu_pct": [40.0, 60.0]}, "Other programs used the CPU"),
        ({"sample_steal_pct": [7.0]}, "hypervisor"),
        ({"throttle_reasons": ["hardware thermal slowdown"]}, "hardware thermal slowdown (1 of 90 records)"),
        ({"warmup_steady": False}, "Warm-up ended before steps were steady in 1 of 120 records: fp32 on gpt2/tiny"),
    ]
    for changed, said in seen:
        found = view.warnings([], [replace_measurement(calm[0], **changed), *calm[1:]])
        assert len(found) == 1, said
        assert said in found[0].text
        assert found[0].advice


def test_an_arm_without_the_graphs_that_it_is_about_says_so() -> None:
    def graphs(device: str, launches: int | None, skips: int) -> Record:
        made = record("cuda_graphs", 0, device=device)
        assert made.certificate is not None
        seen = replace(made.certificate, cuda_graph_launches=launches, cudagraph_skips=skips)
        return replace(made, certificate=seen)

    (warning,) = view.warnings([], [graphs("cuda", 0, 2)])
    assert "gave up every CUDA graph" in warning.text and "cuda_graphs on gpt2/tiny" in warning.text
    for device, launches, skips in (("cuda", 2, 0), ("cuda", 1, 1), ("cuda", None, 1), ("cpu", None, 2)):
        assert view.warnings([], [graphs(device, launches, skips)]) == []
    shown = view.rows(compare([graphs("cuda", 0, 2)], machine("cuda")), [graphs("cuda", 0, 2)], machine("cuda"))[0]
    cells = {cell.name: cell.text for cell in shown.cells}
    assert (cells["cuda_graph_launches"], cells["cudagraph_skips"]) == ("none, all were skipped", "2")
    shown = view.rows(compare([graphs("cuda", 2, 0)], machine("cuda")), [graphs("cuda", 2, 0)], machine("cuda"))[0]
    cells = {cell.name: cell.text for cell in shown.cells}
    assert (cells["cuda_graph_launches"], cells["cudagraph_skips"]) == ("2", "0")


def test_a_gpu_that_could_not_be_watched_is_named_once_for_all_records() -> None:
    own = [note("throttle_reasons", "NVML says Not Supported")]
    records = run(repetitions=2, device="cuda")
    blind = [replace_measurement(item, throttle_reasons=None, unknown=own) for item in records]
    texts = [warning.text for warning in view.warnings([], blind)]
    assert "Whether the GPU was held back is unknown in 30 of 30 records: NVML says Not Supported." in texts
    seen = [replace_measurement(item, throttle_reasons=[]) for item in records]
    assert not [warning for warning in view.warnings([], seen) if "held back" in warning.text]
    assert not [warning for warning in view.warnings([], run(repetitions=2)) if "held back" in warning.text]


def replace_measurement(item: Record, **changed: Any) -> Record:
    return replace(item, measurement=replace(item.measurement, **changed)) if item.measurement.sample_t_s else item


def test_warnings_of_few_repetitions_and_wide_intervals(comparisons: list[Comparison]) -> None:
    alike = [replace(item, changes=[]) for item in comparisons]
    narrow, wide = ([replace(item, smallest_effect=effect) for item in alike] for effect in (0.01, 0.2))
    assert view.warnings(narrow, []) == []
    (told,) = view.warnings(wide, [])
    assert told.text.startswith("Intervals are wide")
    single = view.warnings([replace(item, changes=[]) for item in compare(run(repetitions=1), machine())], [])
    assert ["only one repetition" in warning.text for warning in single] == [True]
    # In the same heat, and as another run.
    for run_id in (run(repetitions=1)[0].run_id, "another"):
        stranger = replace(record("compile", 0), machine_id="another", run_id=run_id)
        assert "differ in machine_id" in view.warnings([], [*run(repetitions=1), stranger])[0].text


def test_what_teaches_otherwise_says_how_to_ask_what_it_is_worth(comparisons: list[Comparison]) -> None:
    alike = [replace(item, smallest_effect=0.01, changes=["numerics"]) for item in comparisons]
    assert view.warnings(alike, []) == []
    arm = find(alike, "prune_heads_50")
    (told,) = view.warnings([replace(arm, changes=["update rule"]), *alike], [])
    assert "does not show what they save: prune_heads_50 on bert/mini" in told.text
    named = f"--model {arm.workload} --technique {arm.techniques}"
    assert told.advice == f"Compare the time to the same loss: trainpace worth {named}"
    inferred = replace(arm, changes=["architecture"], workload="gpt2/nano infer")
    assert view.warnings([inferred], []) == []
    tuned = replace(arm, changes=["architecture"], workload="bert/nano finetune")
    assert "--model bert/nano --phase finetune --technique" in view.warnings([tuned], [])[0].advice


def test_what_was_left_out_is_told(records: list[Record]) -> None:
    busy = "other processes took 50% of the cores"
    assert not any("left out" in warning.text for warning in view.warnings([], records))
    bad = [
        replace(record, disturbed=record.repetition == 0, dropped_rounds=[1], disturbances=[busy]) for record in records
    ]
    (told,) = [warning for warning in view.warnings([], bad) if "left out" in warning.text]
    workloads = len({record.workload for record in records})
    assert f"{workloads} of {3 * workloads} repetitions" in told.text and busy in told.text
