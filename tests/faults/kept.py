"""Records that are damaged, from another version, from someone else, or written by many processes at once."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.causes import DamagedRecords
from bench.spec import Plan, WorkloadSpec
from harness.record import SCHEMA_VERSION, Record
from results import store
from results.compaction import compact
from results.compare import compare
from results.query import query
from tests import ROOT
from tests.faults import Ground, fault
from tests.samples import MACHINE, record

PLAN = Plan(name="p", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))
VERSIONS = ROOT / "tests" / "faults" / "versions"
WRITERS, EACH = 16, 200
KILLS = 40
BOUND_BYTES = 6 << 30
"""The limit of address space for reading files that someone else has made."""


def write(folder: Path, *repetitions: int) -> list[Record]:
    made = [record(label, repetition, [0.1, 0.2]) for repetition in repetitions for label in ("fp32", "adam")]
    for item in made:
        store.write(item, folder, machine=MACHINE, plan=PLAN)
    return made


def damaged(folder: Path, file: Path, spoil: Callable[[bytes, int], bytes]) -> int:
    """Damage the file at every hundredth of its bytes, and return how often. Assert each time that the damage is
    detected, the file set aside by name, and everything else read."""
    content, aside = file.read_bytes(), file.with_name(file.name + store.DAMAGED)
    others = len(store.read(folder)) - pq.read_metadata(file).num_rows
    places = range(0, len(content), max(1, len(content) // 100))
    for place in places:
        file.write_bytes(spoil(content, place))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            assert len(store.read(folder)) == others
        assert [warning.category for warning in said] == [DamagedRecords]
        assert aside.name in str(said[0].message) and aside.exists() and not file.exists()
        aside.rename(file)
    file.write_bytes(content)
    return len(places)


@fault("records", "parts and whole runs, cut at every hundredth byte", quick=True)
def cut(ground: Ground) -> str:
    return _everywhere(ground, lambda content, place: content[:place])


@fault("records", "parts and whole runs, a bit flipped in every hundredth byte", quick=True)
def flipped(ground: Ground) -> str:
    def flip(content: bytes, place: int) -> bytes:
        return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]

    return _everywhere(ground, flip)


def _everywhere(ground: Ground, spoil: Callable[[bytes, int], bytes]) -> str:
    write(ground.folder, 0, 1)
    part = damaged(ground.folder, store.files(ground.folder)[0], spoil)
    compact(ground.folder)
    write(ground.folder, 2)
    whole = damaged(ground.folder, store.files(ground.folder)[0], spoil)
    return f"{part} + {whole} times found by checksum, set aside by name and told of; all else read"


@fault("records", "every earlier version of the schema, and a later one", quick=True)
def versions(ground: Ground) -> str:
    kept = sorted(VERSIONS.glob("*/records"))
    assert [folder.parent.name for folder in kept] == [str(number) for number in range(1, SCHEMA_VERSION + 1)]
    for folder in kept:
        records = store.read(folder.parent)
        assert {item.techniques for item in records} == {"fp32", "adamw_fused"}, folder
        assert all(item.measurement.round_step_times_s for item in records)
        compared = compare(records, store.read_machine(folder.parent))
        assert [row.techniques for row in compared] == ["fp32", "adamw_fused"] and compared[1].speedup
        assert store.read_plan(folder.parent).workloads
        answer = query("SELECT count(*) FROM steps", [folder.parent])
        assert answer.rows[0][0] == sum(len(item.measurement.round_step_times_s) for item in records)
    write(ground.folder, 0)
    file = store.files(ground.folder)[0]
    later = pq.read_table(file).replace_schema_metadata({"trainpace.schema_version": str(SCHEMA_VERSION + 1)})
    store.write_file(later, file.parent, "part-later.")
    try:
        store.read(ground.folder)
    except ValueError as error:
        said = str(error)
    assert f"schema version {SCHEMA_VERSION + 1}" in said and "use a later trainpace" in said
    return f"versions 1 to {SCHEMA_VERSION} are read; {SCHEMA_VERSION + 1} is refused: use a later trainpace"


@fault("records", f"{WRITERS} processes write {EACH} records each into one run, with random kills")
def many_writers(ground: Ground) -> str:
    def start(number: int) -> subprocess.Popen[bytes]:
        code = "import sys; from tests.faults.kept import writer; writer(sys.argv[1], int(sys.argv[2]))"
        return subprocess.Popen([sys.executable, "-c", code, str(ground.folder), str(number)], cwd=ROOT)

    draw = random.Random(0)
    running = {number: start(number) for number in range(WRITERS)}
    kills = 0
    while running:
        number = draw.choice(sorted(running))
        try:
            code = running[number].wait(draw.uniform(0.05, 0.5))
            assert code == 0, code
            del running[number]
        except subprocess.TimeoutExpired:
            if kills < KILLS:
                running[number].send_signal(signal.SIGKILL)
                running[number].wait()
                running[number], kills = start(number), kills + 1
    found = store.read(ground.folder)
    assert len(found) == len({store.part_name(item) for item in found}) == WRITERS * EACH, len(found)
    compact(ground.folder)
    assert len(store.read(ground.folder)) == WRITERS * EACH
    return f"{kills} of them killed and started again: {len(found)} rows, each once, also in one file"


def writer(folder: str, number: int) -> None:
    """The task of one writer: write those of its records that are not there yet."""
    records = Path(folder) / "records"
    for repetition in range(EACH):
        item = record(f"writer_{number}", repetition, [0.1, 0.2])
        if not any(records.glob(f"{store.part_name(item)}.*")):
            store.write(item, Path(folder), machine=MACHINE, plan=PLAN)


def _strangers(folder: Path) -> dict[str, pa.Table]:
    """Tables that someone else may have named like a part, by what is wrong with them."""
    write(folder, 0)
    file = store.files(folder)[0]
    own = pq.read_table(file)
    file.unlink()
    losses = own.schema.get_field_index("losses")
    reason = own.schema.get_field_index("reason")
    big = pa.array(["x" * (1 << 30)], pa.large_string())
    many = pa.table({name: pa.nulls(3_000_000, own.schema.field(name).type) for name in own.schema.names})
    return {
        "text for numbers": own.set_column(losses, "losses", pa.array(["1, 2, 3"])),
        "a list for a word": own.set_column(reason, "reason", pa.array([[1.0, 2.0]])),
        "no workload": own.drop_columns(["workload"]),
        "a gigabyte of text": own.set_column(reason, "reason", big),
        "three million rows of nothing": many.replace_schema_metadata(own.schema.metadata),
    }


@fault("records", "a stranger's parquet: wrong types, huge counts, a gigabyte of text")
def strangers(ground: Ground) -> str:
    seen = []
    for number, (what, table) in enumerate(_strangers(ground.folder / "made").items()):
        folder = ground.folder / str(number)
        (folder / "records").mkdir(parents=True)
        metadata = {**(table.schema.metadata or {}), b"trainpace.schema_version": str(SCHEMA_VERSION).encode()}
        store.write_file(table.replace_schema_metadata(metadata), folder / "records", "part-stranger.")
        code = "import sys; from tests.faults.kept import bounded; bounded(*sys.argv[1:])"
        told = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert told.returncode == 2, (what, told.stdout[-500:], told.stderr[-1500:])
        said = told.stderr.splitlines()
        assert len(said) == 1 and said[0].startswith("trainpace: "), told.stderr[-1500:]
        assert "is not one of trainpace's" in said[0], said
        seen.append(what)
    return f"{'; '.join(seen)}: refused in a line, within {BOUND_BYTES >> 30} GiB of address space"


def bounded(folder: str) -> None:
    """Run `trainpace compare` on the folder with at most BOUND_BYTES of address space."""
    resource.setrlimit(resource.RLIMIT_AS, (BOUND_BYTES, BOUND_BYTES))
    sys.argv = ["trainpace", "compare", folder]
    from bench.cli.app import main

    main()
