"""Every technique against every workload."""

from __future__ import annotations

import dataclasses

import pytest

from harness.record import Status
from reports.wording import sentences
from reports.wording.matrix import Line, Matrix, matrix
from results.compare import Comparison, Verdict, compare
from tests.reports.synthetic import FAILED, TIMES, machine, run


@pytest.fixture(scope="module")
def found(comparisons: list[Comparison]) -> Matrix:
    return matrix(comparisons)


def line(found: Matrix, techniques: str) -> Line:
    return next(item for item in found.lines if item.techniques == techniques)


def test_every_composition_has_a_line_and_a_tile_on_each_workload(found: Matrix) -> None:
    assert set(found.workloads) == {"gpt2/tiny", "bert/mini"}
    assert {item.techniques for item in found.lines} == {*TIMES, *FAILED} - {"fp32"}
    assert {len(item.tiles) for item in found.lines} == {2}


def test_what_helps_most_comes_first_and_what_is_not_ranked_last(found: Matrix) -> None:
    order = [item.techniques for item in found.lines]
    assert order[:2] == ["amp_bf16+compile+adamw_fused", "amp_bf16+compile"]
    assert set(order[-len(FAILED) :]) == set(FAILED)
    assert order.index("qat_int8") == len(order) - len(FAILED) - 1


def test_a_tile_tells_each_figure_and_how_much_better_it_is(found: Matrix, comparisons: list[Comparison]) -> None:
    assert [figure.name for figure in found.figures] == ["speedup", "memory", "start"]
    at = found.workloads.index("gpt2/tiny")
    tile = line(found, "pure_bf16").tiles[at]
    assert tile is not None and tile.outcome == "faster" and tile.arm == "gpt2/tiny pure_bf16"
    speed, memory, start = tile.figures
    own = next(item for item in comparisons if (item.workload, item.techniques) == ("gpt2/tiny", "pure_bf16"))
    assert speed is not None and speed.text == f"{own.speedup:.2f}x" and speed.shade > 0.3
    assert memory is not None and 0.5 < float(memory.text[:-1]) < 0.6 and memory.shade > 0.7
    compiled = line(found, "compile").tiles[at]
    assert compiled is not None and compiled.figures[2] is not None and compiled.figures[2].shade == -1
    assert start is not None and abs(start.shade) < 0.5


def test_what_failed_has_no_figure_and_says_how_it_ended(found: Matrix) -> None:
    for name, (status, _) in FAILED.items():
        for tile in line(found, name).tiles:
            assert tile is not None and tile.figures[0] is None
            assert tile.outcome == {Status.OOM: "out of memory"}.get(status, status.value.replace("_", " "))


def test_what_is_not_known_is_paler(comparisons: list[Comparison]) -> None:
    shades = []
    for verdict in (Verdict.FASTER, Verdict.UNCLEAR):
        changed = [dataclasses.replace(item, verdict=item.verdict and verdict) for item in comparisons]
        tile = line(matrix(changed), "pure_bf16").tiles[0]
        assert tile is not None and tile.figures[0] is not None
        shades.append(tile.figures[0].shade)
    assert 0 < shades[1] < shades[0] / 2


def test_energy_is_shown_where_it_is_known() -> None:
    shown = [figure.name for figure in matrix(compare(run(device="cuda"), machine("cuda"))).figures]
    assert shown == ["speedup", "memory", "energy", "start"]


def test_without_records_there_is_no_line() -> None:
    assert matrix([]) == Matrix(workloads=(), figures=(), lines=())
    assert sentences.headline([]) == sentences.NOTHING


def test_the_headline_names_what_trains_alike_and_is_faster(comparisons: list[Comparison]) -> None:
    said = sentences.headline(comparisons)
    assert said.startswith("Shown to be faster, with the same training: amp_bf16+compile+adamw_fused on 2 of 2")
    assert "prune" not in said
    one = [item for item in comparisons if item.workload == "gpt2/tiny"]
    assert sentences.headline(one) == sentences.answers(one)["gpt2/tiny"]
    none = [dataclasses.replace(item, verdict=item.verdict and Verdict.UNCLEAR) for item in comparisons]
    assert sentences.headline(none).startswith("Nothing with the same training is shown to be faster than fp32")
