"""A compacted run equals the run in parts, and at no moment is a record missing or duplicated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.causes import DamagedRecords
from bench.spec import Plan, WorkloadSpec
from harness.record import Record
from results import folders, store
from results.compaction import MANIFEST, compact
from results.query import query
from tests.samples import MACHINE, record

PLAN = Plan(name="p", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))


def write(folder: Path, *repetitions: int) -> list[Record]:
    made = [record(label, repetition, [0.1, 0.2]) for repetition in repetitions for label in ("fp32", "adam")]
    for item in made:
        store.write(item, folder, machine=MACHINE, plan=PLAN)
    return made


def test_a_run_in_one_file_is_the_run_in_its_parts(tmp_path: Path) -> None:
    write(tmp_path, 0, 1, 2)
    before, checksums = (
        store.read(tmp_path),
        {part.name: store.checksum(part.read_bytes()) for part in store.files(tmp_path)},
    )
    file = compact(tmp_path)
    assert file is not None and store.files(tmp_path) == [file]
    assert store.read(tmp_path) == before
    assert (store.read_machine(tmp_path), store.read_plan(tmp_path)) == (MACHINE, PLAN)
    manifest = json.loads((tmp_path / "records" / MANIFEST).read_text())
    assert manifest == {"file": file.name, "records": 6, "sha256": checksums}
    assert store.checksum(file.read_bytes()).startswith(file.stem.removeprefix(folders.WHOLE))
    assert len(pd.read_parquet(tmp_path / "records")) == 6
    assert query("SELECT count(*) FROM arms", [tmp_path]).rows == [(6,)]
    # A second call has nothing to do.
    assert compact(tmp_path) is None and store.files(tmp_path) == [file]


def test_what_comes_later_joins_it(tmp_path: Path) -> None:
    write(tmp_path, 0)
    first = compact(tmp_path)
    write(tmp_path, 1)
    assert len(store.read(tmp_path)) == 4 and store.files(tmp_path)[0] == first
    second = compact(tmp_path)
    assert store.files(tmp_path) == [second] and second != first
    found = store.read(tmp_path)
    assert sorted((item.techniques, item.repetition) for item in found) == [
        ("adam", 0),
        ("adam", 1),
        ("fp32", 0),
        ("fp32", 1),
    ]
    assert len(json.loads((tmp_path / "records" / MANIFEST).read_text())["sha256"]) == 4


@pytest.mark.parametrize(
    ("call", "later"), [("open", 1), ("fsync", 1), ("replace", 0), ("replace", 1), ("unlink", 0), ("unlink", 1)]
)
def test_whatever_ends_it_every_record_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, later: int
) -> None:
    write(tmp_path, 0, 1)
    compact(tmp_path)
    write(tmp_path, 2)
    before = {(item.techniques, item.repetition): item for item in store.read(tmp_path)}
    own: Callable[..., Any] = getattr(os, call)
    calls = 0

    def ends(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > later:
            raise KeyboardInterrupt
        return own(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, ends)
        with pytest.raises(KeyboardInterrupt):
            compact(tmp_path)
    for _ in range(2):
        found = store.read(tmp_path)
        assert len(found) == 6 and {(item.techniques, item.repetition): item for item in found} == before
        assert query("SELECT count(*) FROM arms", [tmp_path]).rows == [(6,)]
        compact(tmp_path)
    (file,) = store.files(tmp_path)
    assert {item.name for item in file.parent.iterdir() if not item.name.startswith(".")} == {file.name, MANIFEST}


@pytest.mark.long
@pytest.mark.parametrize("is_compact", [True, False])
def test_what_is_damaged_is_found_out_and_set_aside(tmp_path: Path, *, is_compact: bool) -> None:
    write(tmp_path, 0, 1)
    if is_compact:
        compact(tmp_path)
        # The part that came later is sound, and stays.
        write(tmp_path, 2)
    file = store.files(tmp_path)[0]
    content, aside = file.read_bytes(), file.with_name(file.name + store.DAMAGED)
    places = range(0, len(content), max(1, len(content) // 100))
    for place in places:
        for wrong in (content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :], content[:place]):
            file.write_bytes(wrong)
            with pytest.warns(DamagedRecords, match=rf"damaged|cannot be read.*set aside as {aside.name}"):
                found = store.read(tmp_path)
            assert len(found) == (2 if is_compact else 3)
            assert aside.read_bytes() == wrong and not file.exists()
            aside.rename(file)
    assert len(places) >= 100
    file.write_bytes(content)
    assert len(store.read(tmp_path)) == (6 if is_compact else 4)


def test_parts_outlive_the_damage_of_what_they_were_put_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a process is killed before it removes the parts, and the file is then damaged, nothing is lost."""
    made = write(tmp_path, 0, 1)

    def killed(file: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            compact(tmp_path)
    (whole,) = (tmp_path / "records").glob(f"{folders.WHOLE}*.parquet")
    content = whole.read_bytes()
    whole.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    with pytest.warns(DamagedRecords):
        compact(tmp_path)
    assert sorted(store.read(tmp_path), key=store.part_name) == sorted(made, key=store.part_name)


def test_parts_of_before_have_fewer_columns(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    made = write(tmp_path, 0, 1)
    part = store.files(tmp_path)[0]
    pq.write_table(
        pq.read_table(part).drop_columns(["predicted_peak_bytes"]), part.with_name(store.unchecked(part.name))
    )
    part.unlink()
    compact(tmp_path)
    assert sorted(store.read(tmp_path), key=store.part_name) == sorted(made, key=store.part_name)
