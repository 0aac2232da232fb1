"""Limits of control groups, nested ones included, in both versions: from files as kernels write them, and from a real
group if one can be created on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.corpus import Corpus
from bench.spec import WorkloadSpec
from harness.telemetry import cgroups
from tests import ROOT

V2 = "0::/user.slice/job.scope\n"
V1 = "4:memory:/job/step\n3:cpu,cpuacct:/job\n0::/\n"


def proc(folder: Path, cgroup: str, mounts: str) -> Path:
    made = folder / "proc"
    made.mkdir()
    (made / "cgroup").write_text(cgroup)
    (made / "mountinfo").write_text(mounts)
    return made


def test_groups_of_version_2_are_found_up_to_the_root(tmp_path: Path) -> None:
    mounts = f"30 23 0:26 / {tmp_path}/fs rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    found = cgroups.groups("memory", proc(tmp_path, V2, mounts))
    root = tmp_path / "fs"
    assert found == [root / "user.slice" / "job.scope", root / "user.slice", root]


def test_version_1_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    mounts = (
        f"32 31 0:29 / {tmp_path}/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
        f"35 31 0:32 / {tmp_path}/memory rw,relatime - cgroup cgroup rw,memory\n"
        f"41 31 0:38 / {tmp_path}/unified rw,relatime - cgroup2 cgroup2 rw\n"
    )
    made = proc(tmp_path, V1, mounts)
    assert cgroups.groups("memory", made)[0] == tmp_path / "memory" / "job" / "step"
    assert cgroups.groups("cpu", made) == [tmp_path / "cpu" / "job", tmp_path / "cpu"]


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    mounts = f"30 23 0:26 /docker/abc {tmp_path}/fs ro - cgroup2 cgroup rw\n"
    assert cgroups.groups("cpu", proc(tmp_path, "0::/docker/abc\n", mounts)) == [tmp_path / "fs"]


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_the_tightest_limit_of_all_groups_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = write(
        tmp_path / "a" / "b",
        cpu__max="max 100000\n",
        cpu__stat="usage_usec 5\nthrottled_usec 250000\n",
        memory__max=f"{8 << 20}\n",
        memory__current=f"{2 << 20}\n",
        memory__stat=f"anon 1\ninactive_file {1 << 20}\n",
        memory__events="oom 4\noom_kill 3\n",
    )
    outer = write(
        tmp_path / "a",
        cpu__max="150000 100000\n",
        cpu__stat="usage_usec 5\nthrottled_usec 1000000\n",
        memory__max="max\n",
        memory__current=f"{9 << 20}\n",
    )
    monkeypatch.setattr(cgroups, "groups", lambda controller: [inner, outer])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert cgroups.cores() == 1
    assert cgroups.throttled_s() == pytest.approx(1.25)
    assert (cgroups.memory_bytes(), cgroups.available_memory_bytes()) == (8 << 20, 7 << 20)
    assert cgroups.oom_kills() == 3


def test_version_1_says_no_limit_by_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(
        tmp_path / "a",
        cpu__cfs_quota_us="-1\n",
        cpu__cfs_period_us="100000\n",
        memory__limit_in_bytes="9223372036854771712\n",
        memory__usage_in_bytes="1000\n",
        memory__oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    )
    monkeypatch.setattr(cgroups, "groups", lambda controller: [folder])
    assert cgroups.cores() == len(os.sched_getaffinity(0))
    assert cgroups.memory_bytes() > 1 << 30 and cgroups.throttled_s() is None and cgroups.oom_kills() == 2


LIMIT_BYTES = 3 << 30


@contextlib.contextmanager
def made(controller: str) -> Iterator[Path]:
    """A control group of this controller below our own, which processes join by themselves."""
    own = cgroups.groups(controller)
    if not own or not os.access(own[0], os.W_OK):
        pytest.skip(f"no {controller} group can be made here: it takes a root's rights and a mounted controller")
    folder = own[0] / f"trainpace-test-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    yield folder
    folder.rmdir()


@pytest.fixture
def limited() -> Iterator[Path]:
    """A group with a memory limit."""
    with made("memory") as folder:
        limit = "memory.limit_in_bytes" if (folder / "memory.limit_in_bytes").exists() else "memory.max"
        (folder / limit).write_text(str(LIMIT_BYTES))
        yield folder


@pytest.fixture
def nested() -> Iterator[Path]:
    """A group without a limit of its own, within one that may use a tenth of a core."""
    with made("cpu") as outer:
        if (outer / "cpu.cfs_quota_us").exists():
            (outer / "cpu.cfs_quota_us").write_text("10000")
        else:
            (outer / "cpu.max").write_text("10000 100000")
        inner = outer / "inner"
        inner.mkdir()
        yield inner
        inner.rmdir()


def inside(group: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code to its end as a process in the group."""
    joined = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n{code}"
    command = [sys.executable, "-c", joined, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)


def test_a_real_group_limits_what_is_inside_it(limited: Path) -> None:
    done = inside(
        limited,
        "from harness.telemetry import cgroups; print(cgroups.memory_bytes(), cgroups.available_memory_bytes())",
    )
    total, available = map(int, done.stdout.split())
    assert total == LIMIT_BYTES and 0 < available < LIMIT_BYTES


THROTTLED = """
import time
from harness.telemetry import cgroups
before_s, begun_s = cgroups.throttled_s(), time.process_time()
while time.process_time() - begun_s < 0.2:
    pass
print(cgroups.cores(), cgroups.throttled_s() - before_s)
"""


def test_the_quota_of_a_real_group_above_is_seen(nested: Path) -> None:
    cores, throttled_s = inside(nested, THROTTLED).stdout.split()
    assert int(cores) == 1 and float(throttled_s) > 0


KILLED = """
import json, os, select, sys
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer

def end(arm):
    try:
        arm.call({"do": "steps", "with": {"count": 1}}, 60)
    except ArmFailed as failure:
        return f"{failure.status}: {failure.reason}"

with ForkServer(modules=["tests.planted"]) as fork_server:
    fork_server.wait_ready()
    request = json.loads(sys.argv[1])
    arms = [fork_server.fork(request | {"techniques": [name]}) for name in ("planted_takes_memory",) * 2 + ("adam",)]
    for arm in arms:
        arm.call({"do": "build"}, 60)
    for arm in arms[:2]:
        arm._channels[0].send({"do": "steps", "with": {"count": 1}})
    for arm in arms[:2]:
        select.select([os.pidfd_open(arm.pid)], [], [])
    print(json.dumps([end(arm) for arm in arms]))
"""


@pytest.mark.long
def test_every_arm_that_a_full_group_takes_has_run_out_of_memory(limited: Path, corpus: Corpus) -> None:
    """Two are killed before anyone looks, and the one next to them continues."""
    request = {
        "workload": dataclasses.asdict(WorkloadSpec(model="gpt2/nano", batch=8, sequence=32)),
        "corpus": dataclasses.asdict(corpus),
        "device": "cpu",
        "replicas": 1,
        "seed": 0,
    }
    said = json.loads(inside(limited, KILLED, json.dumps(request)).stdout)
    assert said == ["oom: killed by the kernel: out of memory"] * 2 + [None]


def test_a_process_bound_to_one_core_has_one() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); from harness.telemetry import cgroups; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code} print(cgroups.cores())"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"
