"""Where the records of a run go: its folder, and also object storage if asked for; and what is said when that fails."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.api.finished import Run, Where
from bench.causes import Unfinished, unwritten
from bench.spec import Plan
from harness.record import Machine, Record
from results import store
from results.compaction import compact
from results.folders import has_records, is_url
from results.remote import Remote

PLAN = "plan.json"


def place(out: Where, name: str, resume: Where | None = None) -> tuple[Path, Remote | None]:
    """The folder of a new or resumed run, and its copy in object storage if a URL was given. Raises ValueError if
    another run was started there in the same second."""
    if resume is not None:
        there = Remote(str(resume)) if is_url(str(resume)) else None
        return (there.folder if there else Path(resume)), there
    if not is_url(str(out)):
        return new_folder(Path(out), name), None
    there = Remote(f"{str(out).rstrip('/')}/{_stamped(name)}")
    return _fresh(there.folder), there


def new_folder(out: Path, name: str) -> Path:
    """The folder of a new run. Raises ValueError if another run was started there in the same second."""
    return _fresh(out / _stamped(name))


def _stamped(name: str) -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{name}"


def _fresh(folder: Path) -> Path:
    if folder.exists():
        raise ValueError(f"run {str(folder)!r} was started in the same second: try again, or use another --out")
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """The `folder` of a run. If `there` is given, everything is copied to it too. `on` is the cluster that measures the
    run, if any."""

    folder: Path
    plan: Plan
    machine: Machine
    there: Remote | None = None
    on: str | None = None

    @property
    def go_on(self) -> str:
        """How to continue the run."""
        where = f" --on {self.on}" if self.on else ""
        return f"continue with: trainpace run --resume {self.there.url if self.there else self.folder}{where}"

    def begin(self, **facts: Mapping[str, Any]) -> None:
        """Create the folder, with the plan and a JSON file for each of the `facts` in it. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, value in {"plan": self.plan.to_json(), **facts}.items():
            file = self.folder / f"{name}.json"
            file.write_text(json.dumps(value, indent=2), encoding="utf-8")
            if self.there:
                # Resuming elsewhere needs it.
                self.there.push(file)

    def keep(self, record: Record) -> None:
        """Store a record. Raises OSError if that fails."""
        if not (self.folder / PLAN).exists():
            # Somebody has removed the folder with everything in it.
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
        part = store.write(record, self.folder, machine=self.machine, plan=self.plan)
        if self.there:
            self.there.push(part)

    def render(self) -> Path:
        """Write the report of what there is, so that one exists however the run ends, by Ctrl-C or worse."""
        page = Run(self.folder).render()
        if self.there:
            self.there.sync()
        return page

    def end(self) -> Run:
        """Return the finished run, in one file and with its report."""
        made = Run(self.folder)
        made.render()
        # If there is no room for one file, the separate parts are as good.
        with contextlib.suppress(OSError):
            compact(self.folder)
        if self.there:
            self.there.sync()
        return made

    @contextmanager
    def unfinished(self) -> Iterator[None]:
        """Turn what ends a run early into an Unfinished that says what was kept and how to continue."""
        try:
            yield
        except OSError as error:
            kept = f"finished arms are kept in {self.folder}: free some space or make it writable, and {self.go_on}"
            gone = f"{self.folder} is gone, with everything in it: start again"
            told = f"{unwritten(error)}; {kept if self.folder.exists() else gone}"
            raise Unfinished(told, self.folder, interrupted=False) from error
        except KeyboardInterrupt:
            shown = f"; their report: {Run(self.folder).render()}" if has_records(self.folder) else ""
            with contextlib.suppress(OSError):
                if self.there:
                    self.there.sync()
            told = f"interrupted; finished arms are kept{shown}; {self.go_on}"
            raise Unfinished(told, self.folder, interrupted=True) from None
