"""A run that has ended in one file: the parts of a hundred arms are mostly footers.

The file is sorted, its name has its own checksum, and `_manifest.json` beside it lists the checksum of each part that
it was made of. It is there, durable and whole, before any part is removed; readers of a folder take whichever there is
(results.store).
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
"""Readers of the folder pass over names that begin with an underscore."""


def compact(folder: Path) -> Path | None:
    """Put all records of a run into one file and remove the parts; None where there were none left to put there.

    Whatever ends it on the way, every record is there once for who reads by `store`, and the next time the rest is
    done. Raises OSError if the file cannot be written, and then all parts are left.
    """
    records = folder / "records"
    # What is damaged stands for nothing.
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
    # Columns that earlier parts do not have are null.
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
    """The checksums of parts that were put together before."""
    file = records / MANIFEST
    found: Mapping[str, str] = json.loads(file.read_text(encoding="utf-8"))["sha256"] if file.exists() else {}
    return found


def _remove(records: Path, files: Sequence[Path]) -> None:
    """What is in another file. That this one is there survives a loss of power only once its folder is written."""
    opened = os.open(records, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
    for file in files:
        file.unlink()
