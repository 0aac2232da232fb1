"""Hosts with separate networks: what happens to a run if one is killed, hangs, or has its link cut or slowed."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.hosts import wire
from harness.record import Record, Status
from results import store
from tests import ROOT, networks
from tests.networks import TOLD, Network

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(networks.why_not() is not None, reason=str(networks.why_not())),
]

PORT = 29500
ALL_S = 300.0

Broken = Callable[[Network, list[int]], object]
"""What is done to the second host, whose process ids are given, in the middle of an arm's steps."""


@pytest.fixture
def network() -> Iterator[Network]:
    with Network(2) as made:
        yield made


def processes(network: Network, host: int) -> list[int]:
    listed = subprocess.run(["ip", "netns", "pids", network.name(host)], capture_output=True, text=True, check=True)
    return [int(word) for word in listed.stdout.split()]


def measured(network: Network, folder: Path, text: Path, broken: Broken) -> dict[str, Record]:
    """The records of a run over two hosts, by label. The run succeeds whatever happens to one of the hosts."""
    token_file, fifo = folder / "token", folder / "told"
    wire.token(token_file, make=True)
    os.mkfifo(fifo)
    environment = {"OMP_NUM_THREADS": "1", TOLD: str(fifo)}
    command = [sys.executable, "-m", "bench"]
    leader = network.start(
        1,
        [*command, "run", "brief", "--plugin", str(ROOT / "tests" / "telling.py"), "--data", str(text), "--hosts", "2",
         "--listen", f"{network.address(1)}:{PORT}", "--token-file", str(token_file), "--out", "runs"],
        folder=folder,
        environment=environment,
    )  # fmt: skip
    joined = network.start(
        2,
        [*command, "join", f"{network.address(1)}:{PORT}", "--token-file", str(token_file)],
        folder=folder,
        environment=environment,
    )
    try:
        # The FIFO opens when the arm is in the middle of its steps; the arm waits until it is closed.
        with open(fifo, encoding="ascii") as told:
            assert told.readline() == "here\n"
            broken(network, processes(network, 2))
        assert leader.wait(ALL_S) == 0, (folder / "host-1.log").read_text()
    finally:
        for process in (leader, joined):
            # They are session leaders.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    (run,) = (folder / "runs").iterdir()
    return {record.techniques: record for record in store.read(run)}


def kill(network: Network, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def hang(network: Network, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)


def cut(network: Network, pids: list[int]) -> None:
    network.cut(2)


@pytest.mark.parametrize("broken", [kill, cut])
def test_a_host_that_is_lost_is_a_record_with_its_name(
    network: Network, tmp_path: Path, text_folder: Path, broken: Broken
) -> None:
    """A hanging host is among the faults instead (tests/faults/networks.py), because it takes until the timeout."""
    found = measured(network, tmp_path, text_folder, broken)
    for label in ("ddp_2+telling", "ddp_2"):
        assert found[label].status in (Status.CRASHED, Status.TIMEOUT)
        assert f"host host2 ({network.address(2)}) no longer answers" in str(found[label].reason)
    for label in ("fp32", "adamw_foreach"):
        assert found[label].status is Status.OK


def test_a_link_that_is_slowed_shows_in_the_steps(network: Network, tmp_path: Path, text_folder: Path) -> None:
    found = measured(network, tmp_path, text_folder, lambda network, pids: network.shape(2, 20))
    own = found["ddp_2+telling"]
    assert own.status is Status.OK
    assert own.measurement.rank_hosts in (["host1", "host2"], ["host2", "host1"])
    # 0.7 MB of gradients travel each way at 2.5 MB/s.
    before, after = own.measurement.warmup_step_times_s[1:4], own.measurement.round_step_times_s
    assert statistics.median(after) > 3 * statistics.median(before)
    assert found["fp32"].status is Status.OK
