"""A million records: how large they are, and how long commands on them take. docs/many.md.

    python -m tests.many            # make them, measure, and render; takes about 2 GB of a temporary folder
    python -m tests.many --render

A thousand runs of five workloads under twenty compositions, with ten repetitions each. The records are complete but
made up: those of one run, with paces that drift from run to run; that of one arm changes permanently.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import __version__
from harness.record import SCHEMA_VERSION, Measurement, Record
from reports.text import listing
from results import folders, store
from tests import ROOT
from tests.reports import synthetic

FILE = ROOT / "docs" / "many" / "many.json"
PAGE = ROOT / "docs" / "many.md"

WORKLOADS = ("gpt2/nano", "gpt2/tiny", "bert/mini", "llama/nano", "t5/nano")
REPETITIONS, RUNS = 10, 1000
FEW = 10
"""The number of runs that are timed when read for the first time; the others are assumed to be as slow."""

CHANGED, CHANGE = ("bert/mini", "amp_bf16"), 1.05
"""From the middle of the runs on, this arm takes longer by this factor."""

WIDE_WORKLOADS, WIDE_ARMS = 100, 100

STEPS = tuple(
    field.name
    for field in dataclasses.fields(Measurement)
    if field.name.startswith(("round_", "warmup_step", "sustained_step"))
)
"""The fields with the raw steps of a record."""

HEAD = """\
# A million records

{runs:,} runs of {each:,} complete, made-up records: {workloads} workloads under {arms} compositions, {repetitions}
repetitions each. Times and memory are of whole processes; *again* is when what the runs come to is in the user's cache.

```
python -m tests.many
```"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    what: str
    seconds: float | None = None
    memory_bytes: int | None = None
    bytes: float | None = None


def metadata(records: Sequence[Record]) -> dict[bytes, str]:
    """The metadata of a compacted file."""
    return {
        b"trainpace.schema_version": str(SCHEMA_VERSION),
        b"trainpace.version": __version__,
        b"trainpace.plan": json.dumps(synthetic.PLAN.to_json()),
        b"trainpace.machine": json.dumps(dataclasses.asdict(synthetic.machine())),
        store.PARTS: json.dumps([f"{store.part_name(item)}.parquet" for item in records]),
    }


def one_run() -> list[Record]:
    """The records that all runs are made of."""
    return [
        item
        for place, workload in enumerate(WORKLOADS)
        for item in synthetic.run(workload, REPETITIONS, step_s=0.01 * (1 + place))
    ]


class Maker:
    """Writes runs: copies of one run with different paces."""

    def __init__(self) -> None:
        self.records = sorted(one_run(), key=store.part_name)
        self._table = pa.Table.from_pylist([store.to_row(item) for item in self.records], schema=store.schema())
        self._metadata = metadata(self.records)
        self._is_changed = np.array([(item.workload, item.techniques) == CHANGED for item in self.records])

    def write(self, folder: Path, number: int, runs: int) -> Path:
        records = folder / f"run-{number:04}" / "records"
        records.mkdir(parents=True)
        day = datetime(2026, 1, 1) + timedelta(hours=number)
        draw = np.random.default_rng(number)
        change = np.where(self._is_changed & (number >= runs // 2), CHANGE, 1.0)
        factors = draw.uniform(0.8, 1.25) * change * draw.lognormal(0, 0.004, len(self.records))
        times = self._table.column("round_step_times_s").combine_chunks()
        slower = pa.array(times.flatten().to_numpy() * np.repeat(factors, times.value_lengths().to_numpy()))
        others = {
            "run_id": pa.array([f"run-{number:04}"] * len(self.records)),
            "started_at": pa.array([f"{day.isoformat()}+00:00"] * len(self.records)),
            "round_step_times_s": pa.ListArray.from_arrays(times.offsets, slower),
        }
        table = self._table
        for name, values in others.items():
            place = table.schema.get_field_index(name)
            table = table.set_column(place, table.schema.field(place), values)
        return store.write_file(table.replace_schema_metadata(self._metadata), records, folders.WHOLE)


def write_wide(folder: Path) -> Path:
    """Write one run with very many arms: workloads under compositions, two repetitions each."""
    draw = np.random.default_rng(1)
    shares = draw.lognormal(0, 0.2, WIDE_ARMS - 1)
    labels = {"fp32": 1.0} | {f"compile+technique_{index:02}": share for index, share in enumerate(shares)}
    records = [
        synthetic.record(label, repetition, workload=workload, step_s=0.01 * share * draw.lognormal(0, 0.01))
        for workload in (f"gpt2/size_{index:02}" for index in range(WIDE_WORKLOADS))
        for label, share in labels.items()
        for repetition in range(2)
    ]
    (folder / "records").mkdir(parents=True)
    rows = [store.to_row(item) for item in records]
    table = pa.Table.from_pylist(rows, schema=store.schema().with_metadata(metadata(records)))
    store.write_file(table, folder / "records", folders.WHOLE)
    return folder


def timed(what: str, *arguments: object, expect: str = "") -> Row:
    """Time a command in a process of its own."""
    began_s = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, what
    assert expect in said, f"{what}: {said[-2000:]}"
    return Row(what=what, seconds=time.perf_counter() - began_s, memory_bytes=1024 * used.ru_maxrss)


def sizes(file: Path) -> list[Row]:
    count = pq.read_metadata(file).num_rows
    without = store.read_file(file).drop_columns(list(STEPS))
    lean = store.write_file(without, file.parent.parent, "lean-")
    rows = [
        Row(what="a record", bytes=file.stat().st_size / count),
        Row(what="a record without its raw steps", bytes=lean.stat().st_size / count),
    ]
    lean.unlink()
    return rows


def measure(runs: int, folder: Path) -> list[Row]:
    """A row for each command."""
    maker, all_runs = Maker(), folder / "runs"
    began_s = time.perf_counter()
    files = [maker.write(all_runs, number, runs) for number in range(runs)]
    print(f"{runs} runs made in {time.perf_counter() - began_s:.0f} s", file=sys.stderr)
    page = ("--out", folder / "history.html")
    one, two = all_runs / "run-0000", all_runs / "run-0001"
    changed = f"{CHANGED[0]} {CHANGED[1]} may have become slower"
    few = [all_runs / f"run-{number:04}" for number in range(2, 2 + FEW)]
    rows = [
        *sizes(files[0]),
        timed("`compare` of a run, for the first time", "compare", one, expect="amp_bf16"),
        timed("`compare` of a run, again", "compare", one, expect="amp_bf16"),
        timed("`compare` of two runs", "compare", one, two, expect="amp_bf16"),
        timed(f"`history` of {FEW} runs, for the first time", "history", *few, *page),
        timed("`history` of all runs, for the first time", "history", all_runs, *page, expect=changed),
        timed("`history` of all runs, again", "history", all_runs, *page, expect=changed),
        timed("`report` of a run", "report", one, "--out", folder / "report.html"),
    ]
    wide, report = write_wide(folder / "wide"), folder / "wide.html"
    arms = f"{WIDE_WORKLOADS * WIDE_ARMS:,} arms"
    rows += [
        timed(f"`report` of {arms}, for the first time", "report", wide, "--out", report),
        timed(f"`report` of {arms}, again", "report", wide, "--out", report),
    ]
    return [*rows, Row(what=f"the report of {arms}", bytes=report.stat().st_size)]


def page() -> str:
    """The page with the results on file."""
    made = json.loads(FILE.read_text(encoding="utf-8"))
    kept, runs = [Row(**row) for row in made["rows"]], made["runs"]
    each = len(one_run())
    head = HEAD.format(
        runs=runs,
        each=each,
        workloads=len(WORKLOADS),
        arms=each // len(WORKLOADS) // REPETITIONS,
        repetitions=REPETITIONS,
    )
    large = [{"kept": row.what, "bytes": f"{row.bytes:,.0f}"} for row in kept if row.bytes]
    long = [
        {"command": row.what, "seconds": f"{row.seconds:.1f}", "memory, MiB": f"{row.memory_bytes / 2**20:,.0f}"}
        for row in kept
        if row.seconds is not None and row.memory_bytes is not None
    ]
    return "\n\n".join((head, listing.markdown(large), listing.markdown(long))).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--render", action="store_true", help="Render what is kept.")
    parser.add_argument("--runs", type=int, default=RUNS)
    asked = parser.parse_args()
    if not asked.render:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
            rows = measure(asked.runs, Path(folder))
        FILE.parent.mkdir(exist_ok=True)
        kept = {"runs": asked.runs, "rows": [dataclasses.asdict(row) for row in rows]}
        FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    print(f"rendered {PAGE}")


if __name__ == "__main__":
    main()
