"""The results of a run in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

import reports.page.html
from bench.spec import BASELINE
from harness.record import Record, Status
from reports.text import markdown, terminal
from reports.wording import sentences, view
from reports.wording.columns import speedup
from results.compare import Comparison, compare
from tests.reports.synthetic import (
    FAILED,
    PLAN,
    TIMES,
    find,
    machine,
    record,
    run,
)


def test_another_training_job_is_never_called_faster_without_saying_so(comparisons: list[Comparison]) -> None:
    pruned = find(comparisons, "prune_heads_50")
    assert pruned.verdict == "faster"
    for shown in (terminal.plain(comparisons), markdown.render(comparisons)):
        line = next(line for line in shown.splitlines() if "prune_heads_50" in line and "1.2" in line)
        assert "faster, other architecture" in line
    changed = [replace(item, changes=["objective"]) for item in comparisons]
    assert "(other objective) is fastest" in sentences.answer(changed)


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
        ((0.7, 1.0, 1.5), "compile pays from gpt2/mini on (4.80 M parameters"),
        ((0.7, 1.4, 1.5), "compile pays from gpt2/tiny on (824 k parameters"),
        ((1.4, 1.4, 1.5), "compile pays on all of the 3 sizes of gpt2 tried"),
        ((1.4, 0.8, 0.9), "compile is not shown to pay on the largest of the 3 sizes"),
    ],
)
def test_the_size_from_which_a_technique_pays_is_named(speedups: Sequence[float], expected: str) -> None:
    comparisons = over_sizes(speedups)
    assert expected in sentences.answer(comparisons)
    page = reports.page.html.render(comparisons, [], machine(), PLAN)
    assert "Speed-up of compile over the sizes of gpt2" in page and expected in page


def test_two_sizes_make_no_curve() -> None:
    comparisons = [item for item in over_sizes((0.7, 1.0, 1.5)) if item.workload != "gpt2/mini"]
    assert "sizes of gpt2" not in sentences.answer(comparisons)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        ((90.0,), "(about 90 s more of measuring would settle that)"),
        ((90.0, 600.0), "(about 90 s to 600 s more of measuring would settle each)"),
    ],
)
def test_what_it_takes_to_settle_what_is_unclear_is_said(seconds: Sequence[float], said: str) -> None:
    """Of one verdict and of several."""
    made = [record(label, index, step_s=0.1) for label in (BASELINE, "compile", "adamw_fused") for index in range(3)]
    arms = [replace(item, seconds_to_know=None) for item in compare(made, machine())]
    unclear = [replace(arm, seconds_to_know=value) for arm, value in zip(arms[1:], seconds, strict=False)]
    assert said in sentences.answer([*unclear, arms[0], *arms[1 + len(unclear) :]])


def test_answer_names_the_fastest_with_its_interval(comparisons: list[Comparison]) -> None:
    best = find(comparisons, "amp_bf16+compile+adamw_fused")
    said = sentences.answers(comparisons)[best.workload]
    assert f"{best.techniques} is fastest, at {speedup(best)} the speed of fp32" in said
    assert "qat_int8 is slowest" in said
    assert f"Of {len(TIMES) - 1 + len(FAILED)} tried" in said
    assert "2 unsupported" in said and "1 unequal work" in said
    assert sentences.answer(comparisons) == " ".join(sentences.answers(comparisons).values())


def test_answer_when_nothing_is_faster() -> None:
    slow = [item for item in run() if item.techniques in (BASELINE, "adafactor")]
    assert "nothing is shown to be faster than fp32" in sentences.answer(compare(slow, machine()))
    assert "one repetition gives no interval" in sentences.answer(compare(run(repetitions=1), machine()))


def test_answer_when_the_baseline_failed() -> None:
    failed = [
        replace(item, status=Status.OOM, reason="too big") if item.techniques == BASELINE else item for item in run()
    ]
    compared = compare(failed, machine())
    assert "nothing can be compared: the baseline fp32 ended as out of memory (too big)" in sentences.answer(compared)
    assert view.outcome(find(compared, "compile")) == "not compared"
    assert not any(view.is_ranked(item) for item in compared)


def test_unequal_work_is_never_ranked_however_fast() -> None:
    def cheat(item: Record) -> Record:
        unequal = item.techniques == "sgd_momentum" and item.repetition == 1
        return replace(item, status=Status.UNEQUAL_WORK, reason="half the tokens") if unequal else item

    compared = compare([cheat(item) for item in run()], machine())
    assert not view.is_ranked(find(compared, "sgd_momentum"))
    assert "sgd_momentum" not in sentences.answer(compared)
    assert [item.reason for item in view.excluded(compared) if item.techniques == "sgd_momentum"] == ["half the tokens"]
