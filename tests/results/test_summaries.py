"""Summaries of runs are made once, and again when the records have changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.causes import DamagedRecords
from bench.corpus import cache_folder
from results import compaction, runs, store, summaries
from results.runs import Told
from tests.reports import synthetic


def made_of(folder: Path) -> Told:
    return runs.told(store.read(folder), store.read_machine(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return synthetic.keep(tmp_path / "run")


def test_what_is_kept_is_what_the_records_come_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = made_of(folder)
    assert summaries.told(folder) == expected

    def never(*_: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", never)
        assert summaries.told(folder) == expected
        assert summaries.summary(folder) == expected.summary


@pytest.mark.parametrize("kept", ["{", '{"comparisons": 3}'])
def test_what_is_broken_in_the_cache_is_made_anew(folder: Path, kept: str) -> None:
    expected = summaries.told(folder)
    files = list((cache_folder() / "summaries").rglob("*.json"))
    assert files
    for file in files:
        file.write_text(kept, encoding="utf-8")
    assert summaries.told(folder) == expected


def test_further_records_and_others_under_the_same_name_are_read(folder: Path) -> None:
    before = summaries.told(folder)
    store.write(synthetic.record("compile", 3), folder, machine=synthetic.machine(), plan=synthetic.PLAN)
    after = summaries.told(folder)
    assert after == made_of(folder) != before
    compaction.compact(folder)
    assert summaries.told(folder).summary.paces == after.summary.paces


def test_damage_is_told_each_time_that_it_is_met(folder: Path) -> None:
    part = next((folder / "records").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-10])
    with pytest.warns(DamagedRecords, match="set aside"):
        without = summaries.told(folder)
    assert without == made_of(folder)
