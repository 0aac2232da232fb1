"""What joins a recipe: only what helps beyond doubt."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.facts import Objective
from harness.record import Record, Status
from results import ladder
from results.ladder import Confirmation, Gain, Ladder, Rung, Tried
from tests.samples import record

RIVALS = {name: (name,) for name in ("a", "b", "c", "d", "e", "f", "g")}


def heat(paces: Mapping[str, float], repetitions: int, seed: int = 0, noise: float = 0.02) -> list[Record]:
    """Records of one heat, in which processes of an arm differ by `noise`, 2 % unless given."""
    draw = random.Random(seed)
    return [
        record(label, repetition, [0.01 / pace * draw.gauss(1, noise)] * 5)
        for repetition in range(repetitions)
        for label, pace in {"fp32": 1.0, **paces}.items()
    ]


def failed(records: list[Record], label: str, status: Status) -> list[Record]:
    return [
        dataclasses.replace(item, status=status, reason="why") if item.techniques == label else item for item in records
    ]


PACES = dict.fromkeys(RIVALS, 1.0) | {"b": 1.3, "c": 0.6}


def test_by_energy_it_is_what_each_token_takes_that_counts() -> None:
    """An arm that is slower but takes less energy, as counted by the machine."""

    def counted(item: Record) -> Record:
        joules = (4.0 if item.techniques == "a" else 5.0) * (1 + 0.01 * item.repetition)
        measured = dataclasses.replace(item.measurement, sustained_energy_j=joules, sustained_tokens=100)
        return dataclasses.replace(item, measurement=measured)

    plain = heat({**PACES, "a": 0.5}, 3)
    found = {item.label: item.gain for item in ladder.heat([*map(counted, plain)], (), RIVALS, by=Objective.ENERGY)}
    assert found["a"].speedup == pytest.approx(1.25) and found["a"].helps and not found["b"].helps
    # Without counted energy nothing is known.
    assert all(item.gain.speedup is None for item in ladder.heat(plain, (), RIVALS, by=Objective.ENERGY))


def test_what_helps_beyond_doubt_joins() -> None:
    tried = ladder.heat(heat(PACES, 3), (), RIVALS)
    best = ladder.best(tried)
    assert best is not None and best.techniques == ("b",)
    assert best.gain.low is not None and 1 < best.gain.low < 1.3 < (best.gain.high or 0)


def test_one_repetition_proves_nothing() -> None:
    tried = ladder.heat(heat(PACES, 1), (), RIVALS)
    assert ladder.best(tried) is None
    assert "c" not in {item.label for item in ladder.contenders(tried)}
    assert {"a", "b"} <= {item.label for item in ladder.contenders(tried)}


def test_nothing_joins_where_nothing_differs() -> None:
    """The bounds for all rivals together hold in 95 % of heats, and half of the failures are on this side."""
    joined = [ladder.best(ladder.heat(heat(dict.fromkeys(RIVALS, 1.0), 3, seed), (), RIVALS)) for seed in range(100)]
    assert sum(item is not None for item in joined) <= 7


@pytest.mark.parametrize("status", [Status.UNEQUAL_WORK, Status.CRASHED, Status.DIVERGED])
def test_what_is_fast_and_not_sound_never_joins(status: Status) -> None:
    tried = ladder.heat(failed(heat(PACES, 3), "b", status), (), RIVALS)
    assert ladder.best(tried) is None
    fast = next(item for item in tried if item.label == "b")
    assert fast.failed and fast.reason == "why"
    assert fast not in ladder.contenders(tried)


def test_what_takes_too_much_memory_does_not_join() -> None:
    records = [
        dataclasses.replace(item, measurement=dataclasses.replace(item.measurement, peak_memory_bytes=10**9))
        for item in heat(PACES, 3)
    ]
    assert ladder.best(ladder.heat(records, (), RIVALS, memory_bytes=10**9)) is not None
    tried = ladder.heat(records, (), RIVALS, memory_bytes=10**8)
    assert ladder.best(tried) is None
    assert {item.reason for item in tried} == {"takes 1 GB, more than 0.1 GB"}


def test_later_rungs_are_held_against_the_recipe_and_not_the_baseline() -> None:
    rivals = {f"b+{name}": ("b", name) for name in "acdefg"}
    paces = {"b": 1.3, **dict.fromkeys(rivals, 1.3), "b+d": 1.5}
    tried = ladder.heat(heat(paces, 3), ("b",), rivals)
    best = ladder.best(tried)
    assert best is not None and best.techniques == ("b", "d")
    assert best.gain.speedup == pytest.approx(1.5 / 1.3, rel=0.03)
    assert not next(item for item in tried if item.label == "b+a").gain.helps


def test_what_there_was_no_time_for_is_undecided() -> None:
    tried = ladder.heat(heat({"a": 1.0}, 5), (), RIVALS)
    rung = Rung(before=(), after=(), tried=tuple(tried), late=False, seconds=1.0, arm_s=1.0)
    assert {item.label for item in rung.undecided} == set(RIVALS) - {"a"}


def test_heats_beside_the_same_recipe_are_taken_together() -> None:
    paces = dict.fromkeys(RIVALS, 1.0) | {"b": 1.05}
    first, second = heat(paces, 2, seed=1), heat(paces, 3, seed=2)
    together = {item.label: item.gain for item in ladder.heat(second, (), RIVALS, earlier=[first])}
    alone = {item.label: item.gain for item in ladder.heat(second, (), RIVALS)}
    assert (alone["b"].repetitions, together["b"].repetitions) == (3, 5)
    assert together["b"].low is not None and alone["b"].low is not None
    assert alone["b"].low < together["b"].low < 1.05


@pytest.mark.parametrize("repetitions", [ladder.MOST_REPETITIONS, ladder.ENOUGH_REPETITIONS])
def test_what_promises_much_is_looked_for_longer(repetitions: int) -> None:
    """If processes differ by 4 %, five repetitions cannot show a gain of 3 %."""
    tried = ladder.heat(heat(dict.fromkeys(RIVALS, 1.0) | {"b": 1.03}, repetitions, noise=0.04), (), RIVALS)
    rung = Rung(before=(), after=(), tried=tuple(tried), late=False, seconds=1.0, arm_s=1.0)
    promising = {item.label for item in tried if (item.gain.speedup or 0.0) >= ladder.PROMISES}
    assert "b" in promising
    assert {item.label for item in rung.undecided} == (promising if repetitions < 15 else set())


def test_what_was_disturbed_each_time_is_undecided() -> None:
    disturbed = [
        dataclasses.replace(item, disturbed=True, dropped_rounds=list(range(5)), disturbances=["others took 40%"])
        for item in heat(PACES, 2)
    ]
    tried = ladder.heat(disturbed, (), RIVALS)
    assert {item.reason for item in tried} == {"others took 40%"}
    rung = Rung(before=(), after=(), tried=tuple(tried), late=False, seconds=1.0, arm_s=1.0)
    assert {item.label for item in rung.undecided} == set(RIVALS)


def test_what_is_told_of_a_rung_is_made_of_all_heats_that_had_both_sides_of_it() -> None:
    lucky, later = heat({"b": 1.4}, 3, seed=1), heat({"b": 1.2, "b+d": 1.3}, 6, seed=2)
    joined = ladder.heat(lucky, (), {"b": ("b",)})
    rung = Rung(before=(), after=("b",), tried=tuple(joined), late=False, seconds=1.0, arm_s=1.0)
    assert rung.gain == joined[0].gain
    told = ladder.overall(rung, [lucky, later, heat({"c": 1.0}, 3)])
    assert told.speedup is not None and 1.23 < told.speedup < 1.3 and told.repetitions == 9
    assert dataclasses.replace(rung, overall=told).gain == told


def test_it_is_kept_with_what_programs_ask_first(tmp_path: Path) -> None:
    def rung(before: tuple[str, ...], after: tuple[str, ...], factor: float) -> Rung:
        joined = Tried(techniques=after, gain=Gain(speedup=factor, low=factor - 0.02, high=factor + 0.02))
        return Rung(before=before, after=after, tried=(joined,), late=False, seconds=1.0, arm_s=1.0)

    whole = Gain(speedup=1.55, low=1.5, high=1.6, repetitions=3)
    made = Ladder(
        workload={"model": "gpt2/nano"},
        techniques=("b", "d"),
        rungs=(
            rung((), ("a",), 1.2),
            rung(("a",), ("b",), 1.1),
            rung(("b",), ("b", "d"), 1.2),
            rung(("b",), ("b",), 1),
        ),
        confirmation=Confirmation(techniques=("b", "d"), whole=whole),
        left_out={},
        allowed=(),
        ended="nothing more helps beyond doubt",
        device="cpu",
        device_name="A CPU",
        machine_id="m1",
        seed=0,
        seconds=1.0,
        version="0",
    )
    ladder.write(made, tmp_path / "recipe.json")
    kept = json.loads((tmp_path / "recipe.json").read_text())
    assert (kept["techniques"], kept["speedup"], kept["speedup_low"], kept["speedup_high"]) == (
        ["b", "d"],
        1.55,
        1.5,
        1.6,
    )
    assert [(step["added"], step["removed"]) for step in kept["rungs"]] == [(["a"], []), (["b"], ["a"]), (["d"], [])]
    assert kept["product_of_rungs"] == pytest.approx(1.2 * 1.1 * 1.2)
    assert dataclasses.replace(made, techniques=()).whole.speedup == 1.0
    assert dataclasses.replace(made, confirmation=None).whole.speedup is None
