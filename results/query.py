"""All measurements as SQL tables: DuckDB over the record files of runs, in place, with nothing copied."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow import fs

from results import store
from results.compare import Comparison, compare

if TYPE_CHECKING:
    import duckdb

ARM = "folder, run_id, workload, techniques, repetition, heat_part, copy"
"""The columns that identify a record: both sides of a gate have the same run_id."""

RUNS = """\
CREATE VIEW runs AS
SELECT folder, run_id, any_value(plan) AS plan, min(started_at) AS started_at, any_value(device) AS device,
    any_value(machine_id) AS machine_id, count(DISTINCT workload) AS workloads,
    count(DISTINCT (workload, techniques)) AS arms, count(*) AS records,
    count(*) FILTER (status <> 'ok') AS failed, count(*) FILTER (disturbed) AS disturbed
FROM records GROUP BY folder, run_id ORDER BY started_at"""

STEPS = f"""\
CREATE VIEW steps AS
WITH every AS (
    SELECT {ARM}, disturbed, dropped_rounds, lead_steps, round_index,
        unnest(range(len(round_step_times_s))) AS step, unnest(round_index) AS round,
        unnest(round_step_times_s) AS step_time_s, unnest(round_data_wait_s) AS data_wait_s
    FROM records
), turns AS (
    SELECT *, step + 1 - list_position(round_index, round) AS before,
        len(round_index) + 2 - list_position(list_reverse(round_index), round) - list_position(round_index, round)
            AS length FROM every
)
SELECT {ARM}, round, step, step_time_s, data_wait_s,
    NOT disturbed AND NOT list_contains(dropped_rounds, round) AND before >= least(lead_steps, length - 1) AS counted
FROM turns"""
"""The steps of all turns. `before` is the number of earlier steps in the same turn; results.pace says which count."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """Rows, with the names of their columns."""

    names: tuple[str, ...]
    rows: list[tuple[Any, ...]]

    def plain(self) -> list[dict[str, Any]]:
        """An object for each row."""
        return [dict(zip(self.names, row, strict=True)) for row in self.rows]


def query(sql: str, folders: Sequence[Path]) -> Answer:
    """The result of the SQL over the tables `runs`, `arms`, `steps`, `comparisons` and `records` of all runs in the
    folders.

    Raises ValueError for SQL that cannot be answered, and if there is no run.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise ValueError("query needs duckdb: pip install trainpace[query]") from None
    found = sorted({file.parent.parent for folder in folders for file in _files(folder)})
    if not found:
        raise ValueError(f"there is no run in {', '.join(map(str, folders))}: give folders that `trainpace run` made")
    connection = duckdb.connect(config={"threads": 2})
    try:
        _with_tables(connection, found, wants_comparisons=re.search(r"\bcomparisons\b", sql, re.IGNORECASE) is not None)
        # The SQL may read these tables, but no files.
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        answer = connection.sql(sql)
        if answer is None:
            raise ValueError("the SQL asks for nothing: begin with SELECT")
        return Answer(tuple(answer.columns), answer.fetchall())
    except duckdb.Error as error:
        raise ValueError(f"the SQL cannot be answered: {str(error).splitlines()[0]}") from error
    finally:
        connection.close()


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("records/*.parquet") if not file.name.startswith(".")]


def _with_tables(connection: duckdb.DuckDBPyConnection, folders: Sequence[Path], *, wants_comparisons: bool) -> None:
    schema = store.schema()
    # Damaged files are set aside first, so that none is read as sound.
    files = [(str(file), ds.field("folder") == str(folder)) for folder in folders for file in store.sound(folder)]
    # Columns that earlier versions lack are null.
    records = ds.FileSystemDataset.from_paths(
        [file for file, _ in files],
        schema=schema.insert(0, pa.field("folder", pa.string())),
        format=ds.ParquetFileFormat(),
        filesystem=fs.LocalFileSystem(),
        partitions=[where for _, where in files],
    )
    connection.register("records", records)
    raw = ", ".join(f'"{item.name}"' for item in schema if pa.types.is_list(item.type))
    connection.execute(f"CREATE VIEW arms AS SELECT * EXCLUDE ({raw}) FROM records")
    connection.execute(RUNS)
    connection.execute(STEPS)
    if wants_comparisons:
        connection.register("comparisons", _comparisons(folders))


def _comparisons(folders: Sequence[Path]) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for folder in folders:
        records, machine = store.read(folder), store.read_machine(folder)
        rows += [
            {"folder": str(folder), "run_id": records[0].run_id} | _flat(item) for item in compare(records, machine)
        ]
    return pa.Table.from_pylist(rows)


def _flat(comparison: Comparison) -> dict[str, Any]:
    return {field.name: getattr(comparison, field.name) for field in dataclasses.fields(comparison)}
