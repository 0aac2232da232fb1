"""Parts are written atomically, read back unchanged, and open in pandas with one line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from bench.causes import DamagedRecords
from bench.spec import Plan, WorkloadSpec
from harness.record import SCHEMA_VERSION, Measurement, Record, Status, WorkCertificate
from results import store
from tests.samples import MACHINE, record

PLAN = Plan(name="p", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Record], Path]:
    return lambda item: store.write(item, tmp_path, machine=MACHINE, plan=PLAN)


def test_records_come_back_as_they_were(write: Callable[[Record], Path], tmp_path: Path) -> None:
    certificate = WorkCertificate(
        parameters=10,
        trained_parameters=10,
        updates=3,
        skipped_updates=0,
        tensors=2,
        moved_tensors=2,
        movement_rms=0.1,
        weight_dtypes=["float32"],
        state_dtypes=[],
        first_losses=[1.0, 0.9],
    )
    full = dataclasses.replace(record("adam", 0, [0.1, 0.2]), certificate=certificate)
    failed = dataclasses.replace(record("compile", 0, []), status=Status.OOM, reason="too big")
    for item in (full, failed):
        write(item)
    assert sorted(store.read(tmp_path), key=lambda item: item.techniques) == [full, failed]
    assert store.read_machine(tmp_path) == MACHINE
    assert store.read_plan(tmp_path) == PLAN


def test_that_nothing_throttled_is_kept_apart_from_that_nobody_asked(
    write: Callable[[Record], Path], tmp_path: Path
) -> None:
    for repetition, reasons in enumerate((None, [], ["hardware slowdown"])):
        item = record("adam", repetition, [0.1])
        write(dataclasses.replace(item, measurement=dataclasses.replace(item.measurement, throttle_reasons=reasons)))
    found = {item.repetition: item.measurement.throttle_reasons for item in store.read(tmp_path)}
    assert found == {0: None, 1: [], 2: ["hardware slowdown"]}


def test_pandas_reads_a_run_with_one_line(write: Callable[[Record], Path], tmp_path: Path) -> None:
    for repetition in range(3):
        write(record("adam", repetition, [0.1, 0.2]))
    frame = pd.read_parquet(tmp_path / "records")
    assert len(frame) == 3
    assert list(frame["round_step_times_s"][0]) == [0.1, 0.2]


def test_units_and_origin_are_in_the_file(write: Callable[[Record], Path]) -> None:
    schema = pq.read_schema(write(record("adam", 0, [0.1])))
    assert schema.field("round_step_times_s").metadata == {b"unit": b"s"}
    assert schema.field("peak_memory_bytes").metadata == {b"unit": b"B"}
    keys = {"schema_version", "version", "git_commit", "git_dirty", "plan", "machine"}
    assert {f"trainpace.{key}".encode() for key in keys} <= set(schema.metadata)


def test_a_part_appears_whole_or_not_at_all(
    write: Callable[[Record], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(record("adam", 0, [0.1]))

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write(record("adam", 1, [0.1]))
    assert len(store.read(tmp_path)) == 1


def test_foreign_files_are_refused_by_name(write: Callable[[Record], Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no records"):
        store.read(tmp_path)
    checked = write(record("adam", 0, [0.1]))
    # Earlier parts have no checksum in their names.
    part = checked.rename(checked.with_name(store.unchecked(checked.name)))
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({"trainpace.schema_version": "99"}), part)
    with pytest.raises(ValueError, match=f"has schema version 99, this trainpace reads up to {SCHEMA_VERSION}"):
        store.read(tmp_path)
    part.write_bytes(b"not parquet")
    with pytest.warns(DamagedRecords, match="cannot be read"), pytest.raises(ValueError, match="that can be read"):
        store.read(tmp_path)


def test_every_column_has_a_field() -> None:
    names = store.schema().names
    expected = sum(len(dataclasses.fields(kind)) for kind in (Record, Measurement, WorkCertificate)) - 2
    assert len(names) == len(set(names)) == expected


def test_joined_runs_keep_every_repetition_apart() -> None:
    first = [record("adam", repetition, [0.1]) for repetition in range(3)]
    joined = store.join([first, first])
    assert sorted(item.repetition for item in joined) == [0, 1, 2, 3, 4, 5]
