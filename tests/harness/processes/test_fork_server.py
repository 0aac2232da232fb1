"""The fork server forks arms, reports how they ended, and leaves nothing behind."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import psutil
import pytest
import torch

from bench.corpus import Corpus
from bench.spec import WorkloadSpec
from harness.message import Message
from harness.processes.failures import ArmFailed, ForkServerFailed
from harness.processes.fork_server import ForkServer
from harness.record import Status
from tests import ROOT

TIMEOUT_S = 60.0


@pytest.fixture
def request_(corpus: Corpus) -> Message:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32)
    return {
        "workload": dataclasses.asdict(spec),
        "corpus": dataclasses.asdict(corpus),
        "device": "cpu",
        "techniques": [],
        "replicas": 1,
        "seed": 0,
    }


def test_an_arm_steps_on_command(fork_server: ForkServer, request_: Message) -> None:
    arm = fork_server.fork(request_)
    (built,) = arm.call({"do": "build"}, TIMEOUT_S)
    (steps,) = arm.call({"do": "steps", "with": {"count": 3}}, TIMEOUT_S)
    arm.kill()
    assert built["build_s"] > 0
    assert len(steps["step_times_s"]) == len(steps["losses"]) == 3
    assert sum(steps["step_times_s"]) == pytest.approx(steps["host_s"])
    assert not psutil.pid_exists(arm.pid)


def test_peak_memory_is_the_arms_own(fork_server: ForkServer, request_: Message) -> None:
    arm = fork_server.fork(request_)
    arm.call({"do": "build"}, TIMEOUT_S)
    arm.call({"do": "steps", "with": {"count": 1}}, TIMEOUT_S)
    (peaks,) = arm.call({"do": "peaks"}, TIMEOUT_S)
    smaps = psutil.Process(arm.pid).memory_full_info()
    arm.kill()
    growth = peaks["rss_peak_bytes"] - peaks["rss_start_bytes"] - peaks["rss_file_growth_bytes"]
    # At least weights, gradients and two moments of 0.18 M parameters; at most all memory that is private to the arm.
    assert 4 * 4 * 180_000 < growth <= smaps.uss + peaks["rss_file_growth_bytes"]


def test_arms_of_one_seed_train_alike(fork_server: ForkServer, request_: Message) -> None:
    losses = []
    for _ in range(2):
        arm = fork_server.fork(request_)
        arm.call({"do": "build"}, TIMEOUT_S)
        losses.append(arm.call({"do": "steps", "with": {"count": 2}}, TIMEOUT_S)[0]["losses"])
        arm.kill()
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def test_a_parked_arm_uses_no_cpu(fork_server: ForkServer, request_: Message) -> None:
    parked, active = fork_server.fork(request_), fork_server.fork(request_)
    for arm in (parked, active):
        arm.call({"do": "build"}, TIMEOUT_S)
        arm.call({"do": "steps", "with": {"count": 1}}, TIMEOUT_S)
    before = psutil.Process(parked.pid).cpu_times()
    active.call({"do": "steps", "with": {"count": 20}}, TIMEOUT_S)
    after = psutil.Process(parked.pid).cpu_times()
    worked = psutil.Process(active.pid).cpu_times()
    for arm in (parked, active):
        arm.kill()
    spent = after.user + after.system - before.user - before.system
    # A worker thread spins for some milliseconds after its last step; apart from that, a parked arm does nothing.
    assert spent < 0.2 * (worked.user + worked.system)


@pytest.mark.parametrize(
    ("technique", "status", "reason"),
    [
        ("planted_raises", Status.CRASHED, "RuntimeError: planted failure"),
        ("planted_unsupported", Status.UNSUPPORTED, "needs another model"),
        ("planted_out_of_memory", Status.OOM, "allocate"),
    ],
)
def test_failures_come_back_in_words(
    fork_server: ForkServer, request_: Message, technique: str, status: Status, reason: str
) -> None:
    arm = fork_server.fork(request_ | {"techniques": [technique]})
    with pytest.raises(ArmFailed, match=reason) as failure:
        arm.call({"do": "build"}, TIMEOUT_S)
    assert failure.value.status is status
    assert not psutil.pid_exists(arm.pid)


def test_a_killed_arm_names_its_signal(fork_server: ForkServer, request_: Message) -> None:
    arm = fork_server.fork(request_ | {"techniques": ["planted_kills_itself"]})
    arm.call({"do": "build"}, TIMEOUT_S)
    with pytest.raises(ArmFailed, match="killed by SIGKILL") as failure:
        arm.call({"do": "steps", "with": {"count": 1}}, TIMEOUT_S)
    assert failure.value.status is Status.CRASHED


@pytest.mark.parametrize(
    ("technique", "status", "reason"),
    [
        ("planted_first_rank_refuses", Status.UNSUPPORTED, "planted: the first rank refuses"),
        ("planted_second_rank_refuses", Status.UNSUPPORTED, "planted: the second rank refuses"),
        ("planted_second_rank_is_killed", Status.CRASHED, "rank 1 was killed by SIGKILL"),
    ],
)
def test_of_ranks_the_one_that_failed_is_heard(
    fork_server: ForkServer, request_: Message, technique: str, status: Status, reason: str
) -> None:
    arm = fork_server.fork(request_ | {"techniques": [technique]}, ranks=2)
    with pytest.raises(ArmFailed, match=reason) as failure:
        arm.call({"do": "build"}, TIMEOUT_S)
    assert failure.value.status is status


def test_a_hanging_arm_is_ended(fork_server: ForkServer, request_: Message) -> None:
    arm = fork_server.fork(request_ | {"techniques": ["planted_hangs"]})
    with pytest.raises(ArmFailed, match="no answer to 'build' within 2 s") as failure:
        arm.call({"do": "build"}, 2)
    assert failure.value.status is Status.TIMEOUT
    assert not psutil.pid_exists(arm.pid)


def test_two_ranks_train_on_the_whole_batch(fork_server: ForkServer, request_: Message) -> None:
    single, double = fork_server.fork(request_), fork_server.fork(request_ | {"techniques": ["ddp_2"]}, ranks=2)
    first_losses = []
    for arm in (single, double):
        arm.call({"do": "build"}, TIMEOUT_S)
        answers = arm.call({"do": "certify", "with": {"replay_steps": 3}}, TIMEOUT_S)
        first_losses.append(
            [sum(ranks) / len(ranks) for ranks in zip(*(a["first_losses"] for a in answers), strict=True)]
        )
        assert answers[0]["samples_per_update"] == 8
        arm.kill()
    assert first_losses[0] == pytest.approx(first_losses[1], abs=1e-3)


def test_tasks_answer_or_say_why_not(fork_server: ForkServer) -> None:
    assert fork_server.run("harness.preparation.machine:probe_device", {"device": "cpu"}, TIMEOUT_S)["gpus"] == 0
    with pytest.raises(ArmFailed, match="no_such"):
        fork_server.run("harness.preparation.machine:no_such", {}, TIMEOUT_S)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_bad_input(fork_server: ForkServer) -> None:
    with pytest.raises(ValueError, match="device 'cuda' is not available"):
        fork_server.run("harness.preparation.machine:probe_device", {"device": "cuda"}, TIMEOUT_S)


@pytest.mark.long
def test_a_broken_preload_is_reported() -> None:
    with (
        ForkServer(modules=["tests.no_such_module"]) as broken,
        pytest.raises(ForkServerFailed, match="no_such_module"),
    ):
        broken.wait_ready()


OWNER = """
import sys
from harness.processes.fork_server import ForkServer
fork_server = ForkServer(modules=["tests.planted"])
fork_server.wait_ready()
request = {"workload": {"model": "gpt2/nano", "batch": 8, "sequence": 32}, "device": "cpu", "techniques":
    ["planted_hangs"], "seed": 0, "corpus": {"path": sys.argv[1], "sha256": sys.argv[2]}}
arm = fork_server.fork(request)
arm._channels[0].send({"do": "build"})
print(arm.pid, fork_server._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.long
def test_nothing_outlives_a_killed_owner(corpus: Corpus) -> None:
    command = [sys.executable, "-c", OWNER, str(corpus.path), corpus.sha256]
    owner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert owner.stdout is not None
    processes = [psutil.Process(int(word)) for word in owner.stdout.readline().split()]
    owner.kill()
    owner.communicate()
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert alive == []
