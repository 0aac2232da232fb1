"""The charts of the page."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import matplotlib as mpl
import pytest

from harness.evidence.kinds import Kind
from harness.record import Record, Status
from reports.charts import curves, makeup, panels, ranks, roofline, scatter
from reports.charts import forest as charts
from reports.wording import quantity
from results.compare import Comparison, Verdict, compare
from results.pace import step_time_s
from tests.pairs import certificate
from tests.reports.synthetic import (
    FAILED,
    TIMES,
    Draw,
    find,
    machine,
    ranked,
    record,
)


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
    assert chart.note.endswith("Not drawn, because a figure is unknown: compile.")
    assert scatter.throughput([replace(item, peak_memory_bytes=None) for item in arms], "s") is None


def test_curves_hold_ranked_arms_and_cross_1_where_they_pay(comparisons: list[Comparison]) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    chart = curves.total_time(arms, "c")
    assert chart is not None and chart.svg.count('class="point"') == len(ranked(comparisons, "gpt2/tiny"))
    drawn, _ = curves._curves(arms)
    found = {curve.comparison.techniques: curve for curve in drawn}
    # A curve is behind the baseline until it pays, and ahead from then on.
    ahead = [curves._UPDATES[found[name].ratios < 1] for name in ("compile", "pure_bf16", "qat_int8")]
    pays_after = found["compile"].comparison.pays_after_updates
    assert pays_after is not None and min(ahead[0]) / 1.5 < pays_after < min(ahead[0])
    assert len(ahead[1]) == len(curves._UPDATES) and len(ahead[2]) == 0


def test_a_curve_without_a_known_start_is_named_beside_the_chart(comparisons: list[Comparison]) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    chart = curves.total_time(
        [replace(item, start_s=None) if item.techniques == "compile" else item for item in arms], "c"
    )
    assert chart is not None and chart.note.endswith("Not drawn, because the start is unknown: compile.")
    assert curves.total_time([replace(item, start_s=None) for item in arms], "c") is None


def test_charts_follow_the_theme_and_fit_any_width(comparisons: list[Comparison], records: list[Record]) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    drawn = [
        charts.forest(arms, "a"),
        scatter.throughput(arms, "b"),
        panels.traces(records, "c"),
        curves.total_time(arms, "d"),
    ]
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


def test_the_makeup_of_a_step_is_a_bar_for_each_arm_that_was_profiled(
    records: list[Record], comparisons: list[Comparison]
) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    assert makeup.makeup(arms, records, machine(), "m") is None, "nothing was profiled"
    seen = certificate(
        forward_share=0.25,
        backward_share=0.5,
        optimizer_share=0.25,
        kinds=[Kind.PRODUCTS, Kind.OPTIMIZER, Kind.BETWEEN],
        kind_shares=[0.6, 0.2, 0.2],
    )
    names = ("fp32", "amp_bf16", "sgd_momentum")
    profiled = [replace(item, certificate=seen) for item in records if item.techniques in names]
    chart = makeup.makeup(arms, profiled, machine(), "m")
    assert chart is not None
    told = re.findall(r'class="point panel"[^>]*aria-label="([^"]+)"', chart.svg)
    assert [text.partition(",")[0] for text in told] == ["amp_bf16", "sgd_momentum", "fp32"]
    said = "forward 25 %, backward 50 %, optimizer 25 %; by kind products 60 %, optimizer 20 %"
    assert all(said in text for text in told)
    used = {kind for index, kind in enumerate(Kind) if f"var(--kind-{index})" in chart.svg}
    assert used == {Kind.PRODUCTS, Kind.OPTIMIZER, Kind.BETWEEN}


def test_operators_of_every_arm_lie_under_the_roofline(records: list[Record], comparisons: list[Comparison]) -> None:
    arms = [item for item in comparisons if item.workload == "gpt2/tiny"]
    assert roofline.roofline(arms, records, machine(), "r") is None, "nothing was counted"
    seen = certificate(
        kinds=[Kind.PRODUCTS, Kind.ELEMENTWISE, Kind.BETWEEN],
        kind_shares=[0.6, 0.2, 0.2],
        kind_flops=[1e9, 1e6, 0.0],
        kind_bytes=[2e7, 8e6, 0.0],
    )
    counted = [replace(item, certificate=seen) for item in records if item.techniques in ("fp32", "sgd_momentum")]
    chart = roofline.roofline(arms, counted, machine(), "r")
    assert chart is not None
    told = re.findall(r"<title>([^<]+)</title>", chart.svg)
    assert len(told) == 4
    wanted = re.compile(r"(fp32|sgd_momentum), (products|elementwise and others): .* of the roof")
    assert all(map(wanted.fullmatch, told))
    assert all(f">{name}</text>" in chart.svg for name in ("memory", "caches", "products of float32"))
    # The bar's tooltip says the same in words.
    bars = makeup.makeup(arms, counted, machine(), "m")
    assert bars is not None and "of the roof)" in bars.svg


def test_every_rank_has_a_bar_with_where_it_is_and_what_it_waits() -> None:
    made = [record("fp32", 0)]
    for repetition in range(2):
        arm = record("ddp_2", repetition, step_s=0.04)
        measured = replace(arm.measurement, rank_step_times_s=[0.04, 0.03], rank_hosts=["alpha", "beta"])
        shares = replace(certificate(), rank_exposed_shares=[0.1, 0.25])
        made.append(replace(arm, measurement=measured, certificate=shares, world_size=2))
    made.append(record("fp32", 1))
    chart = ranks.ranks(compare(made, machine()), made, machine(), "r")
    assert chart is not None
    told = re.findall(r'aria-label="(ddp_2, rank[^"]+)"', chart.svg)
    assert len(told) == 2
    assert "rank 0" in told[0] and "10 % of it waiting for others, on alpha" in told[0]
    assert "rank 1" in told[1] and "25 %" in told[1] and "on beta" in told[1]
    alone = [item for item in made if item.techniques == "fp32"]
    assert ranks.ranks(compare(alone, machine()), alone, machine(), "r") is None
