"""However many proposals there are, few of those kept are no gain."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from results.online import FALSE_SHARE, FIRST, Entry, Ledger, _share


def entry(p: float, level: float, *, seeds: tuple[int, int] = (0, 8)) -> Entry:
    return Entry(
        at="2026-01-01T00:00:00+00:00",
        base="a",
        head="b",
        workload="gpt2/nano",
        p=p,
        level=level,
        kept=p <= level,
        seeds=seeds,
    )


def judged(ps: list[float]) -> Ledger:
    ledger = Ledger()
    for p in ps:
        ledger = ledger.with_entry(entry(p, ledger.level))
    return ledger


def test_no_more_is_spent_than_there_is() -> None:
    assert 0.3 < sum(_share(number) for number in range(1, 200_000)) < 1


def test_the_level_falls_while_nothing_is_kept_and_rises_when_something_is() -> None:
    levels = [judged([0.5] * count).level for count in range(20)]
    assert levels == sorted(levels, reverse=True) and levels[0] < FIRST
    assert judged([0.5] * 10 + [1e-9]).level > 3 * judged([0.5] * 11).level


def test_of_a_thousand_nulls_few_are_kept_and_of_what_is_kept_few_are_null() -> None:
    draw = random.Random(0)
    assert sum(item.kept for item in judged([draw.random() for _ in range(1000)]).entries) <= 2
    false = kept = 0
    for _ in range(20):
        real = [draw.random() < 0.3 for _ in range(100)]
        entries = judged([draw.random() * (1e-5 if is_real else 1) for is_real in real]).entries
        kept += sum(item.kept for item in entries)
        false += sum(item.kept and not is_real for item, is_real in zip(entries, real, strict=True))
    assert kept > 400 and false / kept <= FALSE_SHARE


def test_a_ledger_is_kept_and_no_seed_is_counted_twice(tmp_path: Path) -> None:
    file = tmp_path / "ledger.json"
    assert Ledger.read(file).next_seed == 0
    ledger = Ledger((entry(0.5, 0.01), entry(0.001, 0.01, seeds=(8, 5))))
    ledger.write(file)
    assert Ledger.read(file) == ledger and ledger.next_seed == 13
    file.write_text("[]")
    with pytest.raises(ValueError, match="not one of trainpace judge"):
        Ledger.read(file)
