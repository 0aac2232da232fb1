"""Compact a finished run into one file: the parts of a hundred arms are mostly parquet footers.

The file is sorted and has its own checksum in its name. `_manifest.json` lists the checksums of the parts that it was
made from. The file is complete and durable before any part is removed; readers accept both forms (results.store).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from bench.corpus import write_atomically
from results import folders, store

MANIFEST = "_manifest.json"
"""Readers of the folder skip names that begin with an underscore."""


def compact(folder: Path) -> Path | None:
    """Put all records of a run into one file and remove the parts; None if there was nothing to do.

    If it is interrupted, readers by `store` still see every record once, and the next call finishes the work. Raises
    OSError if the file cannot be written; then all parts remain.
    """
    records = folder / "records"
    # Damaged files replace no others.
    read = store.tables(folder)
    found = [file for file, _ in read]
    _remove(records, [Path(file) for file in folders.record_files(folder) if Path(file) not in found])
    parts = [file for file in found if file.name.startswith(folders.PART)]
    if not parts and len(found) == 1:
        return None
    known = _manifest(records)
    checksums = {**known, **{part.name: store.checksum(part.read_bytes()) for part in parts}}
    tables = [table for _, table in read]
    names = [f"{store.part_name(store.from_row(row))}.parquet" for table in tables for row in table.to_pylist()]
    order = sorted(range(len(names)), key=names.__getitem__)
    # Columns that earlier parts lack are null.
    table = pa.concat_tables(tables, promote_options="default").take(order)
    metadata = {**tables[0].schema.metadata, store.PARTS: json.dumps(sorted(names)).encode()}
    machines = list({machine.machine_id: machine for table in tables for machine in store.machines_of(table)}.values())
    if len(machines) > 1:
        metadata[store.MACHINES] = json.dumps([dataclasses.asdict(machine) for machine in machines]).encode()
    target = store.write_file(table.replace_schema_metadata(metadata), records, folders.WHOLE)
    text = json.dumps({"file": target.name, "records": len(names), "sha256": checksums}, indent=1)
    write_atomically(records / MANIFEST, lambda name: Path(name).write_text(text, encoding="utf-8"))
    _remove(records, [file for file in found if file != target])
    return target


def _manifest(records: Path) -> Mapping[str, str]:
    """The checksums of parts that were compacted before."""
    file = records / MANIFEST
    found: Mapping[str, str] = json.loads(file.read_text(encoding="utf-8"))["sha256"] if file.exists() else {}
    return found


def _remove(records: Path, files: Sequence[Path]) -> None:
    """Remove files whose records are in another one. The folder is synced first, so that the other one is durable."""
    opened = os.open(records, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    for file in files:
        file.unlink()
