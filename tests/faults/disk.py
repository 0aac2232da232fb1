"""A disk that is full, read-only or gone in the middle of a run: one line of error, and the run can be resumed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow.parquet as pq

from bench import api
from bench.causes import Unfinished
from results import store
from tests.faults import Ground, Impossible, fault
from tests.faults.runs import LABELS, REPETITIONS, command, finished, last_line, started, until, whole

ROOM_KB, MORE_KB = 260, 64_000
"""The size of a disk with room for some parts, and its size after it has been enlarged."""

FAILS_AT = 3
"""The number of the call that fails: two parts exist by then."""


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A disk in memory (tmpfs), mounted below the folder."""
    disk = folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "trainpace", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        raise Impossible(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(disk)], check=True)


def only_run(out: Path) -> Path:
    (folder,) = (item.parent for item in out.glob("*/plan.json"))
    return folder


def parts(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (folder / "records").glob("part-*.parquet")}


def resumed(folder: Path, before: dict[str, bytes]) -> None:
    """Resume, and assert that the finished run contains what was there before."""
    known = {store.part_name(record) for record in store.read(folder)} if before else set()
    again = finished("run", "--resume", folder)
    assert again.returncode == 0, again.stderr[-1000:]
    assert known <= {store.part_name(record) for record in whole(folder)}


@fault("disk", "full in the middle of a run")
def full(ground: Ground) -> str:
    with small_disk(ground.folder, ROOM_KB) as disk:
        failed = finished(*command(ground, disk))
        assert failed.returncode == 1, (failed.returncode, failed.stderr[-500:])
        said, folder = last_line(failed.stderr), only_run(disk)
        assert "No space left on device" in said, said
        before = parts(folder)
        assert before and all(store.checksum(content)[: store.DIGITS] in name for name, content in before.items())
        remount(disk, f"size={MORE_KB}k")
        assert parts(folder) == before
        resumed(folder, before)
        return f"exit 1: {shown(said, disk)}; {len(before)} parts as they were, and the rest on resumption"


@fault("disk", "read-only in the middle of a run")
def read_only(ground: Ground) -> str:
    with small_disk(ground.folder, MORE_KB) as disk:
        with started(*command(ground, disk)) as run:
            until(run, "repetition 2")
            remount(disk, "ro")
            _, said = run.communicate(timeout=120)
        assert run.returncode == 1, said[-500:]
        folder, line = only_run(disk), last_line(said)
        assert "Read-only file system" in line, line
        before = parts(folder)
        remount(disk, "rw")
        resumed(folder, before)
        return f"exit 1: {shown(line, disk)}; {len(before)} parts as they were, and the rest on resumption"


@fault("disk", "the run's folder vanishes")
def vanishes(ground: Ground) -> str:
    out = ground.folder / "out"
    with started(*command(ground, out)) as run:
        until(run, "repetition 2")
        shutil.rmtree(only_run(out))
        _, said = run.communicate(timeout=120)
    assert run.returncode == 1, said[-500:]
    line = last_line(said)
    assert "is gone, with everything in it: start again" in line, line
    assert not list(out.iterdir())
    return f"exit 1: {shown(line, out)}"


@fault("disk", "the folder is a symlink")
def symlink(ground: Ground) -> str:
    there, link = ground.folder / "there", ground.folder / "link"
    there.mkdir()
    link.symlink_to(there)
    done = finished(*command(ground, link))
    assert done.returncode == 0, done.stderr[-500:]
    whole(only_run(there))
    return "exit 0: the run lies where it points"


def shown(line: str, folder: Path) -> str:
    """The line without this machine's paths."""
    return line.removeprefix("trainpace: ").replace(str(folder), "DISK").partition("; finished")[0]


def failing(ground: Ground, name: str, own: Callable[..., Any], code: int) -> str:
    """A run in this process in which one of the store's calls of a function fails, and its resumption."""
    calls = 0

    def fails(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += sys._getframe(1).f_globals["__name__"] == "results.store"
        if calls == FAILS_AT:
            calls += 1
            raise OSError(code, os.strerror(code))
        return own(*arguments, **options)

    asked: dict[str, Any] = {
        "models": ["gpt2/nano"],
        "techniques": list(LABELS[1:]),
        "batch": 8,
        "sequence": 32,
        "repetitions": REPETITIONS,
        "data": str(ground.text),
        "device": "cpu",
        "out": ground.folder,
    }
    with mock.patch(f"results.store.{name}", fails):
        try:
            api.run(**asked)
        except Unfinished as error:
            reason, folder = str(error), error.folder
        else:
            raise AssertionError(f"{name} was called {calls} times")
    before = parts(folder)
    assert len(before) == FAILS_AT - 1, before.keys()
    assert all(store.checksum(content)[: store.DIGITS] in file for file, content in before.items())
    made = api.run(resume=folder)
    assert made.folder == folder
    whole(folder)
    return f"{shown(reason, ground.folder)}; {len(before)} parts as they were, and the rest on resumption"


@fault("disk", "a write fails", quick=True)
def write_fails(ground: Ground) -> str:
    return failing(ground, "pq.write_table", pq.write_table, errno.EIO)


@fault("disk", "fsync fails")
def fsync_fails(ground: Ground) -> str:
    return failing(ground, "os.fsync", os.fsync, errno.EIO)


@fault("disk", "rename fails")
def rename_fails(ground: Ground) -> str:
    return failing(ground, "os.replace", os.replace, errno.EDQUOT)
