"""Inject all faults and render the results: `python -m tests.faults [--group arms] [--moments 100]`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.processes.fork_server import ForkServer
from reports.text import listing
from tests import ROOT, texts
from tests.faults import PLANTED, Fault, Ground, Impossible, every_fault

FILE, PAGE = ROOT / "docs" / "faults" / "faults.json", ROOT / "docs" / "faults.md"

HEAD = """\
# Faults, and what survives them

Each is injected for real on a machine with two cores: processes are killed, disks filled, networks cut. The quick ones
run with the tests.

```
python -m tests.faults        # all of them; `nox -s faults` is the same
```"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--group", action="append", help="Only these; the others stay as they were seen last.")
    parser.add_argument("--moments", type=int, default=34, help="Of each signal: three make a hundred.")
    asked = parser.parse_args()
    faults = [item for item in every_fault() if not asked.group or item.group in asked.group]
    if not faults:
        parser.error(f"group {asked.group} has no faults: give {', '.join(sorted({f.group for f in every_fault()}))}")
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    with ForkServer(modules=[PLANTED]) as fork_server:
        for item in faults:
            kept[f"{item.group}: {item.what}"] = row = _row(item, fork_server, asked.moments)
            print(f"{row['survived']:>10}  {item.group}: {item.what}: {row['seen']} ({row['seconds']} s)", flush=True)
            FILE.parent.mkdir(exist_ok=True)
            FILE.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    rows = [kept[name] for item in every_fault() if (name := f"{item.group}: {item.what}") in kept]
    PAGE.write_text(page(rows), encoding="utf-8")
    print(f"rendered {PAGE}")
    sys.exit(any(row["survived"] == "no" for row in rows))


def _row(item: Fault, fork_server: ForkServer, moments: int) -> dict[str, Any]:
    """Inject the fault and return its result."""
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trainpace-faults-") as folder:
        ground = Ground(
            folder=Path(folder), text=texts.write(Path(folder) / "text"), fork_server=fork_server, moments=moments
        )
        try:
            survived, seen = "yes", item.inject(ground)
        except Impossible as error:
            survived, seen = "not here", str(error)
        except (AssertionError, subprocess.SubprocessError) as error:
            traceback.print_exc()
            survived, seen = "no", " ".join(str(error).split())[:300]
    seconds = round(time.monotonic() - begun_s)
    return {"group": item.group, "fault": item.what, "survived": survived, "seen": seen, "seconds": seconds}


def page(rows: Sequence[dict[str, Any]]) -> str:
    """The page with the table, group by group."""
    parts = [HEAD]
    for group in dict.fromkeys(row["group"] for row in rows):
        parts.append(f"## {group.capitalize()}")
        of_group = [row for row in rows if row["group"] == group]
        parts.append(
            listing.markdown([{name: row[name] for name in ("fault", "survived", "seen")} for row in of_group])
        )
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
