"""One immutable parquet part for each arm and repetition, until the run has ended and they are compacted into one file.

A run is a folder: `records/*.parquet` (this module), `plan.json` and `report.html`. A part has one row. Its columns are
the fields of Record, its measurement and its certificate; raw samples are list columns. Read a whole run with
`pandas.read_parquet("runs/<run_id>/records")`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import types
import typing
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench import __version__, plain
from bench.causes import DamagedRecords, one_line
from bench.spec import Plan
from harness.record import SCHEMA_VERSION, Machine, Measurement, Record, Status, WorkCertificate
from results.folders import PART, WHOLE

UNITS = {"_s": "s", "_bytes": "B", "_pct": "%", "_j": "J", "_w": "W", "_hz": "Hz", "_c": "degC", "_flops": "FLOP"}
"""Units by the ending of a column's name; the unit is also in the field's metadata."""

_ARROW = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}
READABLE = 180
"""The most characters of workload and techniques in the name of a part."""

DIGITS = 16
"""The name of a file ends with so many hex digits of the file's own checksum."""

READABLE_VERSIONS = frozenset(map(str, range(1, SCHEMA_VERSION + 1)))
"""Each version only adds columns to the one before; missing columns are read as empty."""

GROUP_ROWS = 4096
"""Rows per row group, which a reader has to load into memory at once."""

MOST_ROWS, MOST_BYTES = 1 << 21, 1 << 29
"""The most rows of a file that is read, and the most uncompressed bytes of one of its row groups."""

DAMAGED = ".damaged"
"""The ending added to the name of a damaged file, which is then no longer read."""

_CHECKED = re.compile(rf"[.-](?P<digits>[0-9a-f]{{{DIGITS}}})\.parquet$")

PARTS = b"trainpace.parts"
"""Metadata key of a compacted file: the names of the parts that it was made from."""

MACHINE, MACHINES = b"trainpace.machine", b"trainpace.machines"
"""Metadata keys: the machine of the measurements, and the list of all machines if there are several."""

CERTIFICATE_PREFIX = "work_"
"""The prefix of the names of the certificate's columns."""


class Damaged(ValueError):
    """A record file cannot be read, or does not match the checksum in its name."""

    def __init__(self, file: Path, reason: object) -> None:
        super().__init__(f"record {str(file)!r} {one_line(str(reason))}")
        self.file = file


def _arrow_type(annotation: Any) -> pa.DataType:
    """The column type of a dataclass field: a scalar or a list of scalars, either of them optional."""
    if isinstance(annotation, types.UnionType):
        annotation = next(item for item in typing.get_args(annotation) if item is not type(None))
    if typing.get_origin(annotation) is list:
        return pa.list_(_arrow_type(typing.get_args(annotation)[0]))
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return pa.string()
    return _ARROW[annotation]


def _fields(kind: type, *, prefix: str = "", leave_out: Collection[str] = ()) -> list[pa.Field]:
    hints = {name: hint for name, hint in typing.get_type_hints(kind).items() if name not in leave_out}
    return [pa.field(prefix + name, _arrow_type(hint), metadata=_unit(name)) for name, hint in hints.items()]


def _unit(name: str) -> dict[str, str] | None:
    return next(({"unit": unit} for end, unit in UNITS.items() if name.endswith(end)), None)


def schema() -> pa.Schema:
    """The columns of a part, from the annotations of the dataclasses."""
    return pa.schema(
        _fields(Record, leave_out=("measurement", "certificate"))
        + _fields(Measurement)
        + _fields(WorkCertificate, prefix=CERTIFICATE_PREFIX)
    )


REQUIRED = frozenset(
    field.name
    for field in dataclasses.fields(Record)
    if field.default is field.default_factory is dataclasses.MISSING
    and field.name not in ("measurement", "certificate")
)
"""Columns that every version has."""


def to_row(record: Record) -> dict[str, Any]:
    """The record as one flat dictionary, column by column."""
    row = dataclasses.asdict(record)
    certificate = row.pop("certificate") or {}
    row |= row.pop("measurement")
    return row | {CERTIFICATE_PREFIX + name: value for name, value in certificate.items()}


def from_row(row: dict[str, Any]) -> Record:
    """The inverse of `to_row`."""
    own = {field.name: row[field.name] for field in dataclasses.fields(Record) if field.name in row}
    # Earlier records lack later fields, or have nulls there after compaction with later records.
    measured = {
        field.name: row[field.name] for field in dataclasses.fields(Measurement) if row.get(field.name) is not None
    }
    if not measured.get("round_samples"):
        # The first version had no such column: every update used the arm's whole batch.
        measured["round_samples"] = [row["batch"]] * len(measured.get("round_step_times_s", ()))
    certified = {
        field.name: row[CERTIFICATE_PREFIX + field.name]
        for field in dataclasses.fields(WorkCertificate)
        if CERTIFICATE_PREFIX + field.name in row
    }
    return Record(
        **own | {"status": Status(row["status"])},
        measurement=Measurement(**measured),
        certificate=WorkCertificate(**certified) if certified["parameters"] is not None else None,
    )


def write(record: Record, folder: Path, *, machine: Machine, plan: Plan) -> Path:
    """Write one part below `folder`/records, atomically; it is never rewritten."""
    records = folder / "records"
    records.mkdir(parents=True, exist_ok=True)
    return write_file(_table([record], machine, plan), records, f"{part_name(record)}.")


def write_whole(found: Sequence[Record], folder: Path, *, machine: Machine, plan: Plan) -> Path:
    """Write records of a run that belong together into one file, atomically."""
    records = folder / "records"
    records.mkdir(parents=True, exist_ok=True)
    table = _table(found, machine, plan)
    parts = json.dumps(sorted(f"{part_name(record)}.parquet" for record in found))
    return write_file(table.replace_schema_metadata({**table.schema.metadata, PARTS: parts}), records, WHOLE)


def _table(records: Sequence[Record], machine: Machine, plan: Plan) -> pa.Table:
    metadata = {
        "trainpace.schema_version": str(SCHEMA_VERSION),
        "trainpace.version": __version__,
        "trainpace.git_commit": machine.git_commit or "",
        "trainpace.git_dirty": json.dumps(machine.git_dirty),
        "trainpace.plan": json.dumps(plan.to_json()),
        MACHINE: json.dumps(dataclasses.asdict(machine)),
    }
    return pa.Table.from_pylist([to_row(record) for record in records], schema=schema().with_metadata(metadata))


def write_file(table: pa.Table, records: Path, name: str) -> Path:
    """Write the table, atomically, to a file named `name` and the file's own checksum."""
    # If a killed run leaves this file behind, readers of the folder skip it because of the dot.
    temporary = records / f".{name}parquet"
    try:
        with open(temporary, "wb") as file:
            pq.write_table(table, file, compression="zstd", row_group_size=GROUP_ROWS)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        # Not every OSError names the file.
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(temporary)) from error
    target = records / f"{name}{checksum(temporary.read_bytes())[:DIGITS]}.parquet"
    os.replace(temporary, target)
    return target


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def is_what_it_says(name: str, content: bytes) -> bool:
    """Whether the checksum in a file's name is that of its content; True if the name has none."""
    named = _CHECKED.search(name)
    return named is None or checksum(content).startswith(named["digits"])


def part_name(record: Record) -> str:
    """A readable, unique name for an arm's part: characters unfit for file names are replaced, and a hash is added."""
    identity = f"{record.workload} {record.techniques}"
    readable = re.sub(r"[^A-Za-z0-9_+.]+", "_", identity)
    # A file name has at most 255 bytes; the hash keeps truncated names distinct.
    readable = readable[:READABLE]
    digest = hashlib.sha256(identity.encode()).hexdigest()[:6]
    copy = f"-copy{record.copy}" if record.copy else ""
    return f"{PART}{readable}-{digest}-{record.heat_part}-{record.repetition}{copy}"


def join(runs: Sequence[Sequence[Record]]) -> list[Record]:
    """The records of several runs as those of one: repetitions are renumbered consecutively, so that none collide."""
    joined: list[Record] = []
    for records in runs:
        offset = 1 + max((record.repetition for record in joined), default=-1)
        joined += [dataclasses.replace(record, repetition=record.repetition + offset) for record in records]
    return joined


def files(folder: Path, without: Collection[Path] = ()) -> list[Path]:
    """The files that together hold each finished record of a run once: compacted files first, then later parts, sorted
    by name. Files in `without` are ignored. Raises ValueError if the folder is not a run, and Damaged for a compacted
    file that cannot be read."""
    known, found = set[str](), list[Path]()
    whole = {file: _parts_of(file) for file in (folder / "records").glob(f"{WHOLE}*.parquet") if file not in without}
    for file in sorted(whole, key=lambda item: -len(whole[item])):
        # A process killed between writing one and removing the files it was made from leaves both.
        if not whole[file] <= known:
            known |= whole[file]
            found.append(file)
    parts = (part for part in (folder / "records").glob(f"{PART}*.parquet") if part not in without)
    found += sorted(part for part in parts if unchecked(part.name) not in known)
    if not found:
        raise ValueError(
            f"run {str(folder)!r} holds no records{' that can be read' if without else ''}: give a folder that "
            "`trainpace run` made"
        )
    return found


def unchecked(name: str) -> str:
    """The name of a part without its checksum; earlier parts have none."""
    return _CHECKED.sub(".parquet", name)


def _parts_of(whole: Path) -> set[str]:
    """The names of the parts that a compacted file was made from. Raises Damaged if it cannot be read."""
    try:
        return set(json.loads(pq.read_schema(whole).metadata[PARTS]))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise Damaged(whole, f"cannot be read: {error}") from error


def read(folder: Path) -> list[Record]:
    """All records of a run. Raises ValueError if there are none, or if a later schema version wrote them. Damaged files
    are set aside, each with a DamagedRecords warning."""
    return [from_row(row) for _, table in tables(folder) for row in table.to_pylist()]


def tables(folder: Path) -> list[tuple[Path, pa.Table]]:
    """The result of `files` with the content of each. Damaged files are handled as in `read`."""
    damaged: set[Path] = set()
    while True:
        try:
            found = files(folder, damaged)
            with ThreadPoolExecutor() as pool:
                return list(zip(found, pool.map(read_file, found), strict=True))
        except Damaged as error:
            damaged.add(error.file)
            _set_aside(error)


def sound(folder: Path) -> list[Path]:
    """The result of `files` once all damaged files are set aside."""
    return [file for file, _ in tables(folder)]


def _set_aside(damaged: Damaged) -> None:
    """Rename the file, if its folder permits, so that it is not taken for records, and warn."""
    aside = damaged.file.with_name(damaged.file.name + DAMAGED)
    with contextlib.suppress(OSError):
        damaged.file.rename(aside)
    done = f"it is set aside as {aside.name}" if aside.exists() else "it is left out"
    warnings.warn(f"{damaged}; {done}, and --resume measures again what was in it", DamagedRecords, stacklevel=3)


def read_file(file: Path) -> pa.Table:
    """The records in a part or a compacted file. Raises Damaged for a damaged file, and ValueError for a file that is
    not trainpace's or has a later schema version."""
    try:
        content = file.read_bytes()
        # Checked before the content is parsed.
        if not is_what_it_says(file.name, content):
            raise Damaged(file, "is damaged: its checksum is not the one in its name")
        return parse(content, f"record {str(file)!r}")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise Damaged(file, f"cannot be read: {error}") from error


def parse(content: bytes, what: str) -> pa.Table:
    """The records in the content of a file. Raises ValueError, which names the file by `what`, for one that is not
    trainpace's or has a later schema version, and pyarrow's own errors for what is not parquet."""
    try:
        opened = pq.ParquetFile(pa.BufferReader(content))
        version = (opened.schema_arrow.metadata or {}).get(b"trainpace.schema_version", b"none").decode()
        if version not in READABLE_VERSIONS:
            raise ValueError(
                f"{what} has schema version {version}, this trainpace reads up to {SCHEMA_VERSION}: use a later "
                "trainpace"
            )
        if strange := _what_is_strange(opened):
            raise ValueError(f"{what} is not one of trainpace's: {strange}; take it out of that folder")
        return opened.read()
    except MemoryError as error:
        raise ValueError(f"{what} takes more memory than there is") from error


def _what_is_strange(opened: pq.ParquetFile) -> str | None:
    """Why the file cannot be trainpace's, in words, checked before any of it is loaded; None if it can."""
    columns = {field.name: field.type for field in schema()}
    found = {field.name: field.type for field in opened.schema_arrow if field.name in columns}
    if missing := sorted(REQUIRED - set(found)):
        return f"it has no column {missing[0]}"
    if other := [name for name, kind in found.items() if kind != columns[name]]:
        return f"its column {other[0]} has type {found[other[0]]}, not {columns[other[0]]}"
    if opened.metadata.num_rows > MOST_ROWS:
        return f"it has {opened.metadata.num_rows:,} rows"
    sizes = [opened.metadata.row_group(index).total_byte_size for index in range(opened.num_row_groups)]
    if max(sizes, default=0) > MOST_BYTES:
        return f"{GROUP_ROWS} of its rows take {max(sizes):,} bytes"
    return None


def read_machine(folder: Path) -> Machine:
    """The machine that a run was measured on; if there are several, the one with most heats."""
    found = read_machines(folder)
    if len(found) == 1:
        return found[0]
    columns = ["machine_id", "workload", "repetition", "heat_part"]
    heats = {tuple(row.values()) for file in sound(folder) for row in pq.read_table(file, columns=columns).to_pylist()}
    counted = Counter(machine_id for machine_id, *_ in heats)
    return max(found, key=lambda machine: counted[machine.machine_id])


def read_machines(folder: Path) -> list[Machine]:
    """The machines that a run was measured on, from the metadata of its files."""
    try:
        found = [pq.read_schema(file).metadata for file in files(folder)]
    except (Damaged, pa.ArrowException, OSError):
        found = [pq.read_schema(file).metadata for file in sound(folder)]
    return _machines(found)


def machines_of(table: pa.Table) -> list[Machine]:
    """The machines that records were measured on, from the table's metadata."""
    return _machines([table.schema.metadata])


def _machines(metadata: Sequence[Mapping[bytes, bytes]]) -> list[Machine]:
    told = [
        item for each in metadata for item in json.loads(each.get(MACHINES, b"null")) or [json.loads(each[MACHINE])]
    ]
    found: dict[str, Machine] = {}
    for read in told:
        # JSON has no tuples.
        made = Machine(**read | {"capability": read["capability"] and tuple(read["capability"])})
        found.setdefault(made.machine_id, made)
    return list(found.values())


def read_plan(folder: Path) -> Plan:
    """The plan that a run carries out, from the metadata of its first file."""
    return Plan.from_json(plain.known(Plan, _metadata(folder, "trainpace.plan")))


def _metadata(folder: Path, key: str) -> dict[str, Any]:
    try:
        first = files(folder)[0]
    except Damaged:
        first = sound(folder)[0]
    value: dict[str, Any] = json.loads(pq.read_schema(first).metadata[key.encode()])
    return value
