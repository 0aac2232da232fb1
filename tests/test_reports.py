"""The reports: what they show is what the comparisons say, nothing is invented, and the page stands on its own."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import matplotlib as mpl
import pytest
from rich.console import Console

import reports.html
from bench.spec import BASELINE, Plan, WorkloadSpec
from harness.record import Machine, Measurement, Record, Status, WorkCertificate
from reports import charts, export, markdown, panels, quantity, scatter, terminal, view
from reports.columns import COLUMNS, speedup
from results.compare import Comparison, Verdict, compare
from results.metrics import step_time_s

Draw = Callable[[Sequence[Comparison], str], charts.Chart | None]

HOSTILE = "<script>alert('x')</script>"
TIMES = {
    # Step time of each technique as a share of the baseline's.
    "fp32": 1.0,
    "amp_bf16": 0.81,
    "pure_bf16": 0.76,
    "compile": 0.84,
    "amp_bf16+compile": 0.66,
    "adamw_fused": 0.95,
    "adamw_foreach": 0.995,
    "sgd_momentum": 0.90,
    "adafactor": 1.34,
    "adamax": 1.01,
    "checkpoint_activations": 1.29,
    "accumulate_4": 1.12,
    "qat_int8": 2.4,
    "prune_heads_50": 0.79,
    "amp_bf16+compile+adamw_fused": 0.64,
}
MEMORY = {"checkpoint_activations": 0.55, "amp_bf16": 0.8, "pure_bf16": 0.55, "sgd_momentum": 0.8, "accumulate_4": 0.5}
FAILED = {
    "tf32": (Status.UNSUPPORTED, "tf32 needs an Ampere or newer GPU; this run is on cpu"),
    "fp8_tensorwise": (Status.UNSUPPORTED, "fp8_tensorwise needs compute capability 8.9; this run is on cpu"),
    "ddp_2": (Status.OOM, "RuntimeError: can't allocate memory: you tried to allocate 4831838208 bytes"),
    "amp_fp16": (Status.DIVERGED, "the loss is nan at step 7"),
    "prune_magnitude_50": (Status.UNEQUAL_WORK, "trained parameters differ: 412,032 against 824,064"),
}


def machine(device: str = "cpu") -> Machine:
    gpu = device == "cuda"
    return Machine(
        machine_id="4f1c0a9be213",
        device=device,
        device_name="NVIDIA H100 80GB HBM3" if gpu else "AMD EPYC 7B13",
        gpus=int(gpu),
        gpu_memory_bytes=85_017_493_504 if gpu else None,
        capability=(9, 0) if gpu else None,
        driver="CUDA 13.0" if gpu else None,
        cpu="AMD EPYC 7B13",
        cpu_cores=2,
        threads=2,
        memory_bytes=8_318_521_344,
        system="Linux 6.1.0",
        python="3.11.9",
        packages={"trainpace": "0.1.0", "torch": "2.13.0", "transformers": "5.23.0"},
        matmul_flops_per_s={"float32": 1.41e11, "bfloat16": 2.2e10},
        published_flops_per_s={"float32": 66.9e12, "bfloat16": 989.4e12} if gpu else {},
        published_source="NVIDIA's data sheets of the chips, dense figures" if gpu else None,
        git_commit=None,
        git_dirty=None,
        unknown={
            "git_commit": "the run was not started in a git checkout",
            **({} if gpu else {"mfu": "no published peak on file for AMD EPYC 7B13", "gpu": "the run is on the CPU"}),
        },
    )


def _measurement(techniques: str, step_s: float, rng: random.Random, device: str) -> Measurement:
    def times(count: int, spread: float = 0.03) -> list[float]:
        return [step_s * rng.lognormvariate(0, spread) for _ in range(count)]

    compiles = "compile" in techniques
    first_s = step_s * 2.5 + (14.0 if compiles else 0.02) * rng.lognormvariate(0, 0.1)
    samples = 6
    gpu = device == "cuda"
    return Measurement(
        build_s=0.2,
        ready_s=first_s + 0.3,
        first_step_s=first_s,
        compile_s=first_s * 0.9 if compiles else None,
        warmup_step_times_s=[first_s, *(time_s * 1.15 for time_s in times(3)), *times(5)],
        warmup_steady=techniques != "adafactor",
        sustained_s=step_s * 10.2,
        sustained_step_times_s=times(10),
        sustained_data_wait_s=[step_s * 0.003] * 10,
        sustained_samples=80,
        sustained_tokens=80 * 128,
        round_index=list(range(12)),
        round_step_times_s=times(12),
        round_host_times_s=times(12),
        round_samples=[8] * 12,
        round_tokens=[8 * 128] * 12,
        losses=[9.1, 9.0],
        peak_memory_bytes=int(
            600e6 * MEMORY.get(techniques.split("+", maxsplit=1)[0], 1.0) * rng.lognormvariate(0, 0.02)
        ),
        sample_t_s=[0.1 * (index + 1) for index in range(samples)],
        sample_cpu_pct=[rng.uniform(88, 97) for _ in range(samples)],
        sample_foreign_cpu_pct=[rng.uniform(0, 9 if techniques == "compile" else 3) for _ in range(samples)],
        sample_steal_pct=[0.0] * samples,
        sample_gpu_util_pct=[rng.uniform(70, 99) for _ in range(samples)] if gpu else [],
        throttle_reasons=["software power cap"] if gpu and compiles else [],
        sustained_energy_j=180.0 * step_s if gpu else None,
        unknown=[] if gpu else ["GPU figures are unknown: the run is on the CPU"],
    )


def record(
    techniques: str,
    repetition: int,
    *,
    workload: str = "gpt2/tiny",
    step_s: float = 0.0584,
    status: Status = Status.OK,
    reason: str | None = None,
    device: str = "cpu",
) -> Record:
    rng = random.Random(f"{workload} {techniques} {repetition}")
    return Record(
        run_id="20261024-091502-quick",
        plan="quick",
        workload=workload,
        techniques=techniques,
        repetition=repetition,
        heat_part=0,
        status=status,
        reason=reason,
        changes=["architecture"] if "prune" in techniques else [],
        device=device,
        machine_id="4f1c0a9be213",
        world_size=1,
        batch=8,
        sequence=128,
        seed=repetition,
        corpus_sha256="c0ffee" * 10,
        compute="bfloat16" if "bf16" in techniques else "float32",
        step_flops=5.1e9,
        parameters=824_064,
        started_at=f"2026-10-24T09:{15 + repetition}:02+00:00",
        command=f"trainpace run --model {workload} --technique {techniques} --device {device} --batch 8 --sequence 128",
        measurement=_measurement(techniques, step_s, rng, device) if status is Status.OK else Measurement(),
        certificate=None
        if status is not Status.OK
        else WorkCertificate(
            parameters=824_064,
            trained_parameters=824_064,
            updates=31,
            skipped_updates=0,
            tensors=28,
            moved_tensors=28,
            movement_rms=1e-4,
            weight_dtypes=["float32"],
            state_dtypes=["float32"],
            first_losses=[9.21, 9.08, 8.97 + rng.gauss(0, 0.001)],
        ),
    )


def run(workload: str = "gpt2/tiny", repetitions: int = 3, device: str = "cpu", step_s: float = 0.0584) -> list[Record]:
    """The records of one heat: the techniques of TIMES, and those of FAILED."""
    found = []
    for repetition in range(repetitions):
        shared = random.Random(repetition).lognormvariate(0, 0.02)
        for techniques, share in TIMES.items():
            own = random.Random(f"{workload}{techniques}{repetition}").lognormvariate(0, 0.008)
            took_s = step_s * share * shared * own
            found.append(record(techniques, repetition, workload=workload, step_s=took_s, device=device))
        for techniques, (status, reason) in FAILED.items():
            how = {"status": status, "reason": reason, "device": device}
            found.append(record(techniques, repetition, workload=workload, **how))  # type: ignore[arg-type]
    return found


PLAN = Plan(name="quick", workloads=(WorkloadSpec(model="gpt2/tiny"),), compositions=(("compile",),))


class Page(HTMLParser):
    """Reads a page strictly: every element that opens must close, in order. Keeps what the tests ask about."""

    VOID = frozenset({"meta", "input", "br", "hr", "img", "link"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.scripts: list[dict[str, str | None]] = []
        self.classes: list[str] = []
        self.cells: list[dict[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [found[key] or "" for key in ("src", "href", "xlink:href", "srcset", "action") if key in found]
        self.scripts += [found] if tag == "script" else []
        self.classes += (found.get("class") or "").split()
        if tag == "td" and "data-value" in found:
            self.cells.append(found)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td" and self.cells:
            self.cells[-1]["text"] = self.cells[-1].get("text") or data.strip()
        self.texts.append(data)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return run() + run("bert/mini", step_s=0.212)


@pytest.fixture(scope="module")
def comparisons(records: list[Record]) -> list[Comparison]:
    return compare(records, machine())


@pytest.fixture(scope="module")
def text(records: list[Record], comparisons: list[Comparison]) -> str:
    return reports.html.render(comparisons, records, machine(), PLAN, captions={"compile": "Compiles the model."})


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def ranked(comparisons: list[Comparison], workload: str) -> list[Comparison]:
    return [item for item in comparisons if item.workload == workload and view.is_ranked(item)]


def find(comparisons: list[Comparison], techniques: str) -> Comparison:
    return next(item for item in comparisons if item.techniques == techniques)


# The page


def test_page_is_well_formed_and_its_ids_are_unique(page: Page) -> None:
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"answer", "throughput", "first-step", "traces", "utilisation", "arms", "machine"} <= set(page.ids)


def test_page_loads_nothing_from_elsewhere(text: str, page: Page) -> None:
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\(\s*[\"']?(?!#)|@import|\bfetch\(|XMLHttpRequest|\bimport\b", text)
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_page_stays_under_two_megabytes_by_leaving_out_charts(
    text: str, records: list[Record], comparisons: list[Comparison], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(text.encode()) < 2_000_000
    room = len(text.encode()) - 100_000
    monkeypatch.setattr(reports.html, "PAGE_BYTES", room)
    smaller = reports.html.render(comparisons, records, machine(), PLAN)
    assert len(smaller.encode()) < room + 1000
    assert "Left out to keep this file under 2 MB" in smaller
    assert "Left out to keep this file under 2 MB" not in text


def test_sections_come_in_the_order_of_the_reader_s_questions(page: Page) -> None:
    order = ["answer", "throughput", "first-step", "traces", "utilisation", "arms", "excluded", "warnings", "machine"]
    assert sorted(order, key=page.ids.index) == order


def test_names_from_records_are_escaped_everywhere() -> None:
    hostile = [replace(item, techniques=item.techniques.replace("tf32", HOSTILE)) for item in run(HOSTILE, 2)]
    compared = compare([replace(item, reason=item.reason and HOSTILE) for item in hostile], machine())
    shown = reports.html.render(compared, hostile, machine(), replace(PLAN, name=HOSTILE))
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
    shown = reports.html.render([], [], machine(), PLAN)
    assert Page(shown).open == []
    assert "There is no record" in shown


# Charts


@pytest.mark.parametrize("narrow", [False, True])
def test_forest_has_one_marker_for_each_ranked_arm(comparisons: list[Comparison], narrow: bool) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    chart = charts.forest(arms, "f", narrow=narrow)
    assert chart is not None
    points = re.findall(r'class="point"[^>]*aria-label="([^":]+):', chart.svg)
    assert sorted(points) == sorted(item.techniques for item in ranked(comparisons, "gpt2/tiny"))
    assert points[0] == max(ranked(comparisons, "gpt2/tiny"), key=lambda item: item.speedup or 0).techniques
    assert "prune_magnitude_50" not in chart.svg
    assert "prune_magnitude_50 (unequal work)" in chart.note


@pytest.mark.parametrize("draw", [scatter.throughput, scatter.first_step])
def test_scatters_hold_ranked_arms_and_the_baseline(comparisons: list[Comparison], draw: Draw) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    chart = draw(arms, "s")
    assert chart is not None
    assert chart.svg.count('class="point"') == len(ranked(comparisons, "gpt2/tiny")) + 1
    assert not any(techniques in chart.svg for techniques in FAILED)


def test_arm_with_an_unknown_figure_is_named_beside_the_chart(comparisons: list[Comparison]) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    lacking = [replace(item, peak_memory_bytes=None) if item.techniques == "compile" else item for item in arms]
    chart = scatter.throughput(lacking, "s")
    assert chart is not None
    assert chart.note == "Not drawn, for a figure is unknown: compile."
    assert scatter.throughput([replace(item, peak_memory_bytes=None) for item in arms], "s") is None


def test_charts_follow_the_theme_and_fit_any_width(comparisons: list[Comparison], records: list[Record]) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    drawn = [charts.forest(arms, "a"), scatter.throughput(arms, "b"), panels.traces(records, "c")]
    for chart in drawn:
        assert chart is not None
        assert not re.search(r"#[0-9a-f]{6}\b", chart.svg.replace('xlink:href="#', ""))
        assert {"var(--ink)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", chart.svg))
        assert not re.search(r"<svg[^>]* (width|height)=", chart.svg)
        assert "DejaVu" not in chart.svg


def test_drawing_leaves_matplotlib_s_settings_alone(comparisons: list[Comparison]) -> None:
    before = dict(mpl.rcParams)
    charts.forest(comparisons, "f")
    assert dict(mpl.rcParams) == before


def test_wide_interval_is_cut_off_with_an_arrow(comparisons: list[Comparison]) -> None:
    sure = find(comparisons, "compile")
    vague = replace(find(comparisons, "adamax"), speedup_low=0.01, speedup_high=80.0, verdict=Verdict.UNCLEAR)
    chart = charts.forest([sure, vague], "f")
    assert chart is not None
    assert "[0.010, 80.000]" in chart.svg
    assert "50x" not in chart.svg


def test_traces_show_the_median_repetition_of_each_arm(records: list[Record]) -> None:
    own = [item for item in records if item.workload == "gpt2/tiny"]
    chosen = panels.representative(own)
    assert [item.techniques for item in chosen] == [*TIMES, *FAILED]
    times = sorted(metric for item in own if item.techniques == "compile" and (metric := step_time_s(item)))
    assert step_time_s(next(item for item in chosen if item.techniques == "compile")) == times[1]


def test_compiling_first_step_leaves_its_panel_and_is_named(records: list[Record]) -> None:
    own = [item for item in records if item.workload == "gpt2/tiny" and item.techniques in ("fp32", "compile")]
    chart = panels.traces(own, "t")
    assert chart is not None
    first_s = panels.representative(own)[1].measurement.first_step_s
    assert first_s is not None
    assert f"\N{UPWARDS ARROW} {quantity.duration(first_s, 2)}" in chart.svg
    assert "10 s" not in chart.svg


def test_nothing_to_draw_is_no_chart() -> None:
    bare = [record("tf32", 0, status=Status.UNSUPPORTED, reason="no GPU")]
    assert panels.traces(bare, "t") is None
    assert panels.utilisation(bare, "u") is None
    assert charts.forest(compare(bare, machine()), "f") is None


def test_thinned_keeps_the_extremes() -> None:
    points = [(float(index), 1.0) for index in range(1000)]
    points[333] = (333.0, 9.0)
    thin = panels.thinned(points, 100)
    assert len(thin) <= 100
    assert (333.0, 9.0) in thin
    assert thin == sorted(thin)


def test_spread_labels_neither_touch_nor_change_order() -> None:
    wanted = [50.0, 10.0, 10.5, 11.0, 99.0, 98.0]
    heights = scatter.spread(wanted, 12, top=0, bottom=100)
    by_height = sorted(heights)
    assert all(after - before >= 12 - 1e-9 for before, after in itertools.pairwise(by_height))
    assert min(heights) >= 6 and max(heights) <= 94
    assert sorted(range(6), key=lambda index: heights[index]) == sorted(range(6), key=lambda index: wanted[index])


# Words and figures


def test_another_training_job_is_never_called_faster_without_saying_so(comparisons: list[Comparison]) -> None:
    pruned = find(comparisons, "prune_heads_50")
    assert pruned.verdict == "faster"
    for shown in (terminal.plain(comparisons), markdown.render(comparisons)):
        line = next(line for line in shown.splitlines() if "prune_heads_50" in line and "1.2" in line)
        assert "faster, other architecture" in line
    changed = [replace(item, changes=["objective"]) for item in comparisons]
    assert "(other objective) is fastest" in view.answer(changed)


SIZES = {"gpt2/nano": 120_000, "gpt2/tiny": 824_000, "gpt2/mini": 4_800_000}


def over_sizes(speedups: Sequence[float]) -> list[Comparison]:
    """compile over the sizes of a family, six quiet repetitions each."""
    records = []
    for (workload, parameters), ratio in zip(SIZES.items(), speedups, strict=True):
        for label, step_s in ((BASELINE, 0.1), ("compile", 0.1 / ratio)):
            made = [record(label, index, workload=workload, step_s=step_s) for index in range(6)]
            sizes = [replace(item, parameters=parameters, certificate=None) for item in made]
            records += sizes
    return compare(records, machine())


@pytest.mark.parametrize(
    ("speedups", "expected"),
    [
        ((0.7, 1.0, 1.5), "compile pays from gpt2/mini (4.80 M parameters"),
        ((0.7, 1.4, 1.5), "compile pays from gpt2/tiny (824 k parameters"),
        ((1.4, 1.4, 1.5), "compile pays on all of the 3 sizes of gpt2 tried"),
        ((1.4, 0.8, 0.9), "compile is not shown to pay on the largest of the 3 sizes"),
    ],
)
def test_the_size_from_which_a_technique_pays_is_named(speedups: Sequence[float], expected: str) -> None:
    comparisons = over_sizes(speedups)
    assert expected in view.answer(comparisons)
    page = reports.html.render(comparisons, [], machine(), PLAN)
    assert "Speed-up of compile over the sizes of gpt2" in page and expected in page


def test_two_sizes_make_no_curve() -> None:
    comparisons = [item for item in over_sizes((0.7, 1.0, 1.5)) if item.workload != "gpt2/mini"]
    assert "sizes of gpt2" not in view.answer(comparisons)


def test_answer_names_the_fastest_with_its_interval(comparisons: list[Comparison]) -> None:
    best = find(comparisons, "amp_bf16+compile+adamw_fused")
    sentences = view.answers(comparisons)[best.workload]
    assert f"{best.techniques} is fastest, at {speedup(best)} the speed of fp32" in sentences
    assert "Slower by most is qat_int8" in sentences
    assert f"Of {len(TIMES) - 1 + len(FAILED)} tried" in sentences
    assert "2 unsupported" in sentences and "1 unequal work" in sentences
    assert view.answer(comparisons) == " ".join(view.answers(comparisons).values())


def test_answer_when_nothing_is_faster() -> None:
    slow = [item for item in run() if item.techniques in (BASELINE, "adafactor")]
    assert "nothing is shown to be faster than fp32" in view.answer(compare(slow, machine()))
    assert "one repetition gives no interval" in view.answer(compare(run(repetitions=1), machine()))


def test_answer_when_the_baseline_failed() -> None:
    failed = [
        replace(item, status=Status.OOM, reason="too big") if item.techniques == BASELINE else item for item in run()
    ]
    compared = compare(failed, machine())
    assert "nothing can be compared: the baseline fp32 ended as out of memory (too big)" in view.answer(compared)
    assert view.outcome(find(compared, "compile")) == "not compared"
    assert not any(view.is_ranked(item) for item in compared)


def test_unequal_work_is_never_ranked_however_fast() -> None:
    def cheat(item: Record) -> Record:
        unequal = item.techniques == "sgd_momentum" and item.repetition == 1
        return replace(item, status=Status.UNEQUAL_WORK, reason="half the tokens") if unequal else item

    compared = compare([cheat(item) for item in run()], machine())
    assert not view.is_ranked(find(compared, "sgd_momentum"))
    assert "sgd_momentum" not in view.answer(compared)
    assert [item.reason for item in view.excluded(compared) if item.techniques == "sgd_momentum"] == ["half the tokens"]


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


@pytest.mark.parametrize(
    ("figures", "written"),
    [
        ((1.32, 1.28, 1.36), "1.32x [1.28, 1.36]"),
        ((1.02, 1.003, 1.04), "1.020x [1.003, 1.040]"),
        ((0.953, 0.941, 0.966), "0.953x [0.941, 0.966]"),
        ((1.0, 0.9797, 1.0101), "1.0000x [0.9797, 1.0101]"),
        ((12.34, 10.0, 15.0), "12.3x [10.0, 15.0]"),
        ((1.3, None, None), "1.30x [unknown]"),
    ],
)
def test_ratio_interval(figures: tuple[float, float | None, float | None], written: str) -> None:
    assert quantity.ratio_interval(*figures) == written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantity.duration(0.0584), "58.4 ms"),
        (quantity.duration(0.99999), "1.00 s"),
        (quantity.memory(123_456_789), "118 MiB"),
        (quantity.memory(-5e6), "-4.77 MiB"),
        (quantity.rate(12345), "12,300/s"),
        (quantity.percent(37.2), "37 %"),
        (quantity.percent(0), "0.0 %"),
        (quantity.share(0.4231), "42 %"),
        (quantity.signed(0.5), "+0.50"),
        (quantity.signed(0.0), "0"),
        (quantity.count(124_439_808), "124 M"),
        (quantity.several(["a", "b", "c", "d", "e"]), "a, b, c and 2 more"),
    ],
)
def test_quantities(written: str, expected: str) -> None:
    assert written == expected


def test_warnings_say_what_was_seen_and_what_to_do() -> None:
    calm = [replace_measurement(item, sample_foreign_cpu_pct=[1.0], warmup_steady=True) for item in run(repetitions=6)]
    assert view.warnings([], calm) == []
    seen: list[tuple[dict[str, Any], str]] = [
        ({"sample_foreign_cpu_pct": [40.0, 60.0]}, "Other programs used the CPU"),
        ({"sample_steal_pct": [7.0]}, "hypervisor"),
        ({"throttle_reasons": ["hardware thermal slowdown"]}, "hardware thermal slowdown (1 of 120 records)"),
        ({"warmup_steady": False}, "Warm-up ended before steps were steady in 1 of 120 records: fp32 on gpt2/tiny"),
    ]
    for changed, said in seen:
        found = view.warnings([], [replace_measurement(calm[0], **changed), *calm[1:]])
        assert len(found) == 1, said
        assert said in found[0].text
        assert found[0].advice


def replace_measurement(item: Record, **changed: Any) -> Record:
    return replace(item, measurement=replace(item.measurement, **changed)) if item.measurement.sample_t_s else item


def test_warnings_of_few_repetitions_and_wide_intervals(comparisons: list[Comparison]) -> None:
    texts = [warning.text for warning in view.warnings(comparisons, [])]
    assert any(text.startswith("With 3 repetitions") for text in texts)
    assert any(text.startswith("Intervals are wide") for text in texts)
    single = view.warnings(compare(run(repetitions=1), machine()), [])
    assert ["only one repetition" in warning.text for warning in single] == [True]
    strangers = [*run(repetitions=1), replace(record("compile", 1), machine_id="another")]
    assert "differ in machine_id" in view.warnings([], strangers)[0].text


def test_reasons_for_unknown_figures_are_specific(comparisons: list[Comparison], records: list[Record]) -> None:
    rows = view.rows(comparisons, records, machine())
    cells = {cell.name: cell for row in rows if row.techniques == "amp_bf16" for cell in row.cells}
    assert cells["gpu_util_pct"].why == "the run is on the CPU"
    assert cells["mfu"].why == "no published peak on file for AMD EPYC 7B13"
    assert cells["compile_s"].why == "not recorded"
    assert cells["speedup"].why is None
    assert cells["matmul_share"].value is not None


def test_gpu_figures_are_shown_on_a_gpu() -> None:
    records = run("gpt2/medium", 2, "cuda", 0.012)
    compared = compare(records, machine("cuda"))
    shown = reports.html.render(compared, records, machine("cuda"), PLAN)
    columns = {cell["data-key"] for cell in Page(shown).cells}
    assert {"gpu_util_pct", "energy_j_per_token", "mfu"} <= columns
    assert "989 TFLOP/s" in shown and "data sheets of the chips" in shown
    assert "software power cap" in shown


# Other surfaces


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
    assert any("95 % intervals: mean, Student t, n=3" in line for line in lines)
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
