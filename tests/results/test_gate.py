"""From repetitions to a verdict: what counts, what does not, and what is invalid whatever the times."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pytest

from harness.ab.pair import Pair, Seen
from harness.record import Record, Status
from results.decision import LOOKS, Margins, Verdict
from results.gate import MOST_DROPPED, Finding, Limits, Referee, log_ratio, overall
from results.pace import centre
from tests.pairs import certificate, pair

NAME = "gpt2/tiny"


def referee(*names: str, missing: dict[str, str] | None = None, needs_checkout: bool = False) -> Referee:
    return Referee({name: Limits() for name in names or (NAME,)}, missing or {}, needs_checkout=needs_checkout)


def judged(pairs: Sequence[Pair]) -> Finding:
    (finding,) = referee().conclude(pairs)
    return finding


def with_head(made: Pair, **changes: object) -> Pair:
    return dataclasses.replace(made, head=dataclasses.replace(made.head, **changes))  # type: ignore[arg-type]


def measured(record: Record, **changes: object) -> Record:
    return dataclasses.replace(record, measurement=dataclasses.replace(record.measurement, **changes))  # type: ignore[arg-type]


def with_times(made: Pair, time_s: float) -> Pair:
    return dataclasses.replace(made, head=measured(made.head, round_step_times_s=[time_s] * 12))


def test_the_ratio_of_a_repetition_is_the_middle_of_its_rounds() -> None:
    made = pair(0, 1.04)
    base, head = made.base.measurement.round_step_times_s, made.head.measurement.round_step_times_s
    ratios = [math.log(own / other) for own, other in zip(head, base, strict=True)]
    assert log_ratio(made) == pytest.approx(centre(ratios))


def test_equal_sides_pass_at_the_first_look_and_no_more_is_asked_for() -> None:
    judge = referee()
    pairs: list[Pair] = []
    while judge(pairs):
        pairs.append(pair(len(pairs)))
    assert len(pairs) == min(LOOKS)
    (finding,) = judge.conclude(pairs)
    assert finding.verdict is Verdict.PASS and finding.repetitions == 8


def test_a_slow_head_is_a_regression_and_a_slightly_slow_one_takes_longer() -> None:
    assert judged([pair(index, 1.08) for index in range(8)]).verdict is Verdict.REGRESSION
    found = judged([pair(index, 1.0 if index % 2 else 1.06) for index in range(24)])
    assert found.verdict is Verdict.INCONCLUSIVE and found.repetitions == 24


def test_too_few_repetitions_are_inconclusive_and_so_are_none() -> None:
    assert judged([pair(index) for index in range(5)]).verdict is Verdict.INCONCLUSIVE
    assert judged([]).verdict is Verdict.INCONCLUSIVE
    assert judged([pair(0, disturbed=("the machine slept",))]).verdict is Verdict.INVALID


def test_a_disturbed_repetition_is_replaced_and_not_counted() -> None:
    slow = pair(0, 3.0, disturbed=("other processes took 40% of the cores",))
    judge = referee()
    pairs = [slow, *(pair(index) for index in range(1, 8))]
    assert judge(pairs) == [NAME]
    pairs.append(pair(8))
    assert not judge(pairs)
    (finding,) = judge.conclude(pairs)
    assert (finding.verdict, finding.repetitions, finding.dropped) == (Verdict.PASS, 8, 1)
    assert finding.disturbances == {"other processes took 40% of the cores": 1}


def test_too_many_disturbed_repetitions_are_invalid() -> None:
    disturbed = [pair(index, disturbed=("the hypervisor took 9%",)) for index in range(3)]
    found = judged([*disturbed, *(pair(index) for index in range(3, 11))])
    assert found.verdict is Verdict.INVALID and "3 of 11" in found.reasons[0]
    judge = referee()
    hopeless = [pair(index, disturbed=("the hypervisor took 9%",)) for index in range(MOST_DROPPED + 1)]
    assert judge(hopeless[:-1]) == [NAME]
    assert not judge(hopeless)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda made: with_head(made, status=Status.DIVERGED, reason="the loss is nan at step 3"), "diverged"),
        (lambda made: with_head(made, status=Status.UNEQUAL_WORK, reason="half the tokens"), "half the tokens"),
        (lambda made: dataclasses.replace(made, head=measured(made.head, losses=[math.nan] * 12)), "not numbers"),
        (lambda made: with_times(made, math.nan), "not numbers"),
        (lambda made: with_times(made, 0.0), "not numbers"),
        (
            lambda made: dataclasses.replace(
                made,
                head=measured(
                    made.head,
                    **{
                        name: getattr(made.head.measurement, name)[:6]
                        for name in ("round_index", "round_step_times_s", "round_samples", "round_tokens")
                    },
                ),
            ),
            "12 steps, head 6",
        ),
        (lambda made: dataclasses.replace(made, head=measured(made.head, round_tokens=[1] * 12)), "tokens"),
        (lambda made: dataclasses.replace(made, head_seen=Seen(strays=("mine from /old",))), "mine from /old"),
        (lambda made: dataclasses.replace(made, base_seen=Seen(), head_seen=Seen()), "neither side"),
    ],
)
def test_what_is_unfit_is_invalid_at_once(spoil: object, words: str) -> None:
    judge = referee(needs_checkout=True)
    assert judge([pair(0)]) == [NAME]
    spoilt = [pair(0), spoil(pair(1))]  # type: ignore[operator]
    assert not judge(spoilt)
    (finding,) = judge.conclude(spoilt)
    assert finding.verdict is Verdict.INVALID
    assert words in finding.reasons[0]


def test_a_missing_workload_is_invalid_whatever_the_others_say() -> None:
    judge = referee(NAME, "gone", missing={"gone": "head cannot run it"})
    findings = judge.conclude([pair(index) for index in range(8)])
    assert [finding.verdict for finding in findings] == [Verdict.PASS, Verdict.INVALID]
    assert overall(findings) is Verdict.INVALID


def test_several_workloads_are_held_to_a_stricter_threshold() -> None:
    judge = referee("a", "b")
    slow = [pair(index, 1.08, workload="a") for index in range(8)]
    assert judge([*slow, *(pair(index, workload="b") for index in range(8))]) == ["a"]
    twelve = [pair(index, 1.08, workload="a") for index in range(12)]
    findings = judge.conclude([*twelve, *(pair(index, workload="b") for index in range(8))])
    assert [finding.verdict for finding in findings] == [Verdict.REGRESSION, Verdict.PASS]
    assert overall(findings) is Verdict.REGRESSION


def test_memory_that_grew_is_a_regression_though_the_time_did_not() -> None:
    grown = [pair(index) for index in range(8)]
    for made in grown:
        made.head.measurement.peak_memory_bytes = 101_000_000
    found = judged(grown)
    assert found.verdict is Verdict.REGRESSION and "peak memory grew by 1.0%" in found.reasons[0]
    assert found.time is not None and found.time.verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (((1000, 1006), (1000, 1006)), Verdict.REGRESSION),
        # Within the limit; over it, but seen only once; over it in one replay only.
        (((1000, 1005), (1000, 1005)), Verdict.PASS),
        (((1000, 1006), None), Verdict.INCONCLUSIVE),
        (((1000, 1006), (1000, 1000)), Verdict.INCONCLUSIVE),
    ],
)
def test_what_is_allocated_is_held_to_the_byte(seen: tuple[tuple[int, int] | None, ...], verdict: Verdict) -> None:
    pairs = [pair(index) for index in range(8)]
    for made, sizes in zip(pairs, seen, strict=False):
        if sizes:
            made.base.measurement.allocated_peak_bytes, made.head.measurement.allocated_peak_bytes = sizes
    found = judged(pairs)
    assert found.verdict is verdict
    assert (
        found.reasons
        == {
            Verdict.REGRESSION: ("allocated memory grew from 1,000 to 1,006 bytes, by more than 0.5%",),
            Verdict.INCONCLUSIVE: ("allocated memory may have grown",),
            Verdict.PASS: (),
        }[verdict]
    )
    known = [sizes for sizes in seen if sizes]
    assert (found.base_allocated_bytes, found.head_allocated_bytes) == known[-1]


def test_nothing_passes_while_memory_may_have_grown_or_is_unknown() -> None:
    grown = [pair(index) for index in range(8)]
    for made in grown:
        # About a tenth more, but a little less in one repetition: too little for a proof, too much for a pass.
        smaller = made.repetition == 3
        made.head.measurement.peak_memory_bytes = 99_900_000 if smaller else 110_000_000 + 1000 * made.repetition
    found = judged(grown)
    assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, ("peak memory may have grown",))
    for unknown in (None, 0, -4096):
        blind = [pair(index) for index in range(8)]
        blind[3].head.measurement.peak_memory_bytes = unknown
        found = judged(blind)
        assert (found.verdict, found.reasons) == (Verdict.INCONCLUSIVE, ("peak memory is unknown",))


def test_what_only_one_side_compiles_has_no_more_recompiles() -> None:
    compiled = [
        dataclasses.replace(
            with_head(pair(index), certificate=certificate(recompiles=1)),
            base=dataclasses.replace(pair(index).base, certificate=certificate(recompiles=None)),
        )
        for index in range(8)
    ]
    assert judged(compiled).verdict is Verdict.PASS


def test_more_graph_breaks_are_a_regression() -> None:
    broken = [with_head(pair(index), certificate=certificate(graph_breaks=2)) for index in range(8)]
    found = judged(broken)
    assert found.verdict is Verdict.REGRESSION and found.reasons == ("graph breaks went from 0 to 2",)


def test_no_workloads_are_no_pass() -> None:
    assert overall([]) is Verdict.INVALID


def test_limits_are_checked() -> None:
    with pytest.raises(ValueError, match="memory"):
        Limits(memory=-1)
    assert Limits(time=Margins(tolerance=0.0, harm=0.5)).memory == 0.005
