"""What an arm may do to itself: its record says so, nothing of it remains, and its neighbours are not affected."""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench.corpus import cache_folder
from bench.spec import Plan, Protocol, WorkloadSpec
from harness.heats.sweep import Sweep
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from results import store
from results.pace import step_time_s
from tests import ROOT
from tests.faults import PLANTED, Ground, Impossible, fault
from tests.faults.planted import LEFT_BEHIND, LOUD_BYTES

NEIGHBOUR = "adamw_foreach"
PROTOCOL = Protocol(
    warmup_s=0.5, warmup_min_steps=6, rounds=20, rounds_s=1.0, turn_s=0.05, timeout_s=10.0, certify_steps=2
)
GONE_S = 5.0
"""Seconds after which nothing of an arm is left."""

ALIKE = 1.25
"""The neighbour's paces with and without the fault, in one repetition each, differ by less than this factor."""

LIMIT_BYTES = 3 << 30
"""The memory limit of the control group: its fork server and a few arms fit."""


def swept(ground: Ground, *labels: str, fork_server: ForkServer | None = None) -> list[Record]:
    """The records of one repetition, as stored."""
    chosen = fork_server or ground.fork_server
    plan = Plan(
        name="faults",
        workloads=(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=str(ground.text)),),
        compositions=tuple((label,) for label in labels),
        repetitions=1,
        protocol=PROTOCOL,
    )
    prepared = prepare(plan, chosen)
    Sweep(
        prepared,
        run_id="faults",
        keep=lambda record: store.write(record, ground.folder, machine=prepared.machine, plan=plan),
        choose=lambda records: [],
        shared_cache=cache_folder() / "compiled",
        log=ground.folder / "arms.log",
    ).run(chosen)
    return store.read(ground.folder)


def relatives() -> list[psutil.Process]:
    """All processes that descend from this one."""
    return psutil.Process().children(recursive=True)


def ended(ground: Ground, label: str, status: Status, words: str) -> str:
    """Run the arm next to a neighbour. Assert the status and words of its record, that nothing of it is left, and that
    the neighbour's pace is that of a run without it. Return in words what was seen."""
    before = set(relatives())
    found = {record.techniques: record for record in swept(ground, label, NEIGHBOUR)}
    record = found[label]
    assert record.status is status, f"{record.status}: {record.reason}"
    assert re.search(words, record.reason or ""), record.reason
    assert all(found[name].status is Status.OK for name in ("fp32", NEIGHBOUR)), found
    left = [process for process in relatives() if process not in before]
    assert not psutil.wait_procs(left, timeout=GONE_S)[1], left
    seen = f"{record.status}: {record.reason}" if record.reason else f"{record.status}"
    if not ground.quiet:
        return f"{seen}; nothing left"
    beside, alone = pace(list(found.values())), undisturbed_pace(ground.fork_server, ground.text)
    assert abs(math.log(beside / alone)) < math.log(ALIKE), f"the neighbour ran at {beside / alone:.2f} of its pace"
    return f"{seen}; nothing left; neighbour at {beside / alone:.2f} of its pace without the fault"


def pace(records: Sequence[Record]) -> float:
    """The pace of the neighbour over the baseline's."""
    times_s = {record.techniques: step_time_s(record) for record in records}
    own_s, baseline_s = times_s[NEIGHBOUR], times_s["fp32"]
    assert own_s and baseline_s
    return baseline_s / own_s


@functools.cache
def undisturbed_pace(fork_server: ForkServer, text: Path) -> float:
    """The pace of the neighbour when no other arm fails."""
    with tempfile.TemporaryDirectory(prefix="trainpace-faults-") as folder:
        return pace(swept(Ground(folder=Path(folder), text=text, fork_server=fork_server, moments=0), NEIGHBOUR))


def stacks(ground: Ground, processes: int) -> str:
    """Assert that the log has the stacks of so many processes, including the place where they hang."""
    log = (ground.folder / "arms.log").read_text(errors="replace")
    assert log.count("(most recent call first)") >= processes, log[-2000:]
    assert "in wait" in log, log[-2000:]
    return "stacks in the log"


@fault("arms", "segmentation fault", quick=True)
def segfault(ground: Ground) -> str:
    return ended(ground, "fault_segfault", Status.CRASHED, "killed by SIGSEGV")


@fault("arms", "abort")
def abort(ground: Ground) -> str:
    return ended(ground, "fault_abort", Status.CRASHED, "killed by SIGABRT")


@fault("arms", "exit 0 in the middle")
def exits_early(ground: Ground) -> str:
    return ended(ground, "fault_exits_early", Status.CRASHED, "exit code 0")


@fault("arms", "SIGKILL from outside")
def killed(ground: Ground) -> str:
    return ended(ground, "fault_killed", Status.CRASHED, "killed by SIGKILL")


@fault("arms", "no more address space")
def address_space(ground: Ground) -> str:
    return ended(ground, "fault_address_space", Status.OOM, "allocate")


@fault("arms", "out of memory in a control group")
def control_group(ground: Ground) -> str:
    """Run out of memory in a separate process that is in the control group with all its children."""
    memory = Path("/sys/fs/cgroup/memory")
    group = memory / f"trainpace-faults-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT_BYTES))
    except OSError as error:
        raise Impossible(f"no memory group of version 1 can be made here: {error}") from error
    told = ground.folder / "told.json"
    code = (
        "import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()));"
        "from tests.faults.arms import in_control_group; in_control_group(*sys.argv[2:])"
    )
    try:
        subprocess.run(
            [sys.executable, "-c", code, str(group), str(ground.folder), str(ground.text), str(told)],
            cwd=ROOT,
            check=True,
            timeout=300,
        )
    finally:
        group.rmdir()
    found = json.loads(told.read_text(encoding="utf-8"))
    assert found["fault_takes_memory"] == ["oom", "killed by the kernel: out of memory"], found
    assert found["fp32"][0] == found[NEIGHBOUR][0] == "ok", found
    return "oom: killed by the kernel: out of memory; the neighbours and the run lived on"


def in_control_group(folder: str, text: str, told: str) -> None:
    """Run the arm, and write how all arms ended."""
    with ForkServer(modules=[PLANTED]) as fork_server:
        ground = Ground(folder=Path(folder), text=Path(text), fork_server=fork_server, moments=0)
        records = swept(ground, "fault_takes_memory", NEIGHBOUR)
    found = {record.techniques: (record.status, record.reason) for record in records}
    Path(told).write_text(json.dumps(found), encoding="utf-8")


@fault("arms", "hangs while it is built")
def hangs_in_build(ground: Ground) -> str:
    seen = ended(ground, "fault_hangs_in_build", Status.TIMEOUT, "no answer to 'build' within 10 s")
    return f"{seen}; {stacks(ground, 1)}"


@fault("arms", "hangs in warm-up")
def hangs_in_warmup(ground: Ground) -> str:
    seen = ended(ground, "fault_hangs_in_warmup", Status.TIMEOUT, "no answer to 'steps' within 10 s")
    return f"{seen}; {stacks(ground, 1)}"


@fault("arms", "hangs in a later step")
def hangs_in_a_turn(ground: Ground) -> str:
    seen = ended(ground, "fault_hangs_in_a_turn", Status.TIMEOUT, "no answer to 'steps' within 10 s")
    return f"{seen}; {stacks(ground, 1)}"


@fault("arms", "hangs in a collective", quick=True)
def hangs_in_a_collective(ground: Ground) -> str:
    seen = ended(ground, "fault_hangs_in_a_collective", Status.TIMEOUT, "no answer to 'steps' within 10 s")
    # The stacks of the launcher and both ranks.
    return f"{seen}; {stacks(ground, 3)}"


@fault("arms", "100 MB on its output")
def loud(ground: Ground) -> str:
    seen = ended(ground, "fault_loud", Status.OK, "")
    size = (ground.folder / "arms.log").stat().st_size
    assert size >= LOUD_BYTES, size
    return f"{seen}; {size / 1e6:.0f} MB in the log"


@fault("arms", "garbage on the channel", quick=True)
def garbage(ground: Ground) -> str:
    return ended(ground, "fault_garbage", Status.CRASHED, "is not a message")


@fault("arms", "grandchildren left behind", quick=True)
def grandchildren(ground: Ground) -> str:
    seen = ended(ground, "fault_leaves_grandchildren", Status.OK, "")
    left = [
        process.pid for process in psutil.process_iter(["cmdline"]) if LEFT_BEHIND in (process.info["cmdline"] or ())
    ]
    assert not left, left
    return seen
