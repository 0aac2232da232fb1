"""A leading host and one that has joined, both on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.composition import hosts_for
from bench.corpus import Corpus
from bench.spec import WorkloadSpec
from harness.heats import rounds
from harness.hosts import wire
from harness.hosts.leader import Leader, Listening
from harness.message import Message
from harness.preparation.sniffing import HostFacts, Link, slow_hosts, slow_links, sniff
from harness.processes.failures import ArmFailed
from harness.record import Status
from tests import ROOT

TIMEOUT_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


def joining(port: int, token_file: Path, *more: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "bench", "join", f"127.0.0.1:{port}", "--token-file", str(token_file), *more]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextlib.contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Leader, subprocess.Popen[str]]]:
    token_file, port = folder / "token", free_port()
    wire.token(token_file, make=True)
    other = joining(port, token_file, "--log", str(folder / "join.log"))
    try:
        with Leader(Listening(others=1, address=("127.0.0.1", port), token_file=token_file)) as leader:
            yield leader, other
        # The host that joined ends with the run.
        other.communicate(timeout=TIMEOUT_S)
    finally:
        other.kill()
        other.wait()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, own_cache: None) -> Iterator[Leader]:
    with two_hosts(tmp_path_factory.mktemp("hosts")) as (leader, _):
        yield leader


@pytest.fixture
def request_(corpus: Corpus) -> Message:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=corpus.path)
    return {
        "workload": dataclasses.asdict(spec),
        "corpus": corpus.as_message(),
        "device": "cpu",
        "techniques": ["ddp_2"],
        "replicas": 2,
        "seed": 0,
    }


def test_an_arm_spans_both_and_trains_as_on_one(hosts: Leader, request_: Message) -> None:
    arm = hosts.fork(request_, 2)
    assert set(arm.hosts) == set(hosts.hosts) and len(arm.hosts) == len(hosts.hosts) == 2
    arm.call({"do": "build"}, TIMEOUT_S)
    spanning = arm.call({"do": "steps", "with": {"count": 3}}, TIMEOUT_S)
    arm.kill()
    alone = super(Leader, hosts).fork(request_, 2)
    alone.call({"do": "build"}, TIMEOUT_S)
    here = alone.call({"do": "steps", "with": {"count": 3}}, TIMEOUT_S)
    alone.kill()
    for one, other in zip(spanning, here, strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-5)
    # Each rank has its own half of the batch.
    assert spanning[0]["losses"] != spanning[1]["losses"]


def test_one_rank_stays_with_the_leader(hosts: Leader, request_: Message) -> None:
    arm = hosts.fork(request_ | {"techniques": [], "replicas": 1}, 1)
    assert not arm.hosts
    arm.kill()


def test_a_failure_on_the_other_host_is_told(hosts: Leader, request_: Message) -> None:
    wrong = request_ | {"corpus": request_["corpus"] | {"sha256": "0" * 64}}
    with pytest.raises(ArmFailed, match=r"the text on .* differs from") as failed:
        hosts.fork(wrong, 2)
    assert failed.value.reason.startswith(f"on {hosts.joined[0].name}")
    # The next arm is not affected.
    hosts.fork(request_, 2).kill()


def test_more_ranks_than_there_is_room_for_are_refused(hosts: Leader, request_: Message) -> None:
    with pytest.raises(ArmFailed) as failed:
        hosts.fork(request_, 4)
    assert failed.value.status is Status.UNSUPPORTED


def test_a_joined_host_does_nothing_else(hosts: Leader) -> None:
    for message in (
        {"do": "run", "task": "os:getcwd", "arguments": {}, "timeout_s": 5.0},
        {"do": "fork", "request": {"task": "os:getcwd", "arguments": {}, "device": "cpu", "span": {}}, "ranks": 1},
        {"do": "shell"},
    ):
        with pytest.raises(ArmFailed, match="cannot do"):
            hosts.joined[0].ask(message)
    assert hosts.joined[0].is_there()


def test_what_goes_on_on_another_host_is_seen_there(hosts: Leader) -> None:
    name = hosts.joined[0].name
    assert hosts.readings([]) == {}
    before = hosts.readings(hosts.hosts)[name]
    calm = replace(before, raw_s=before.raw_s + 1.0, monotonic_s=before.monotonic_s + 1.0)
    busy = replace(calm, busy_s=calm.busy_s + 0.5 * calm.cores)
    calm = replace(calm, boot_s=calm.boot_s + 1.0, calendar_s=calm.calendar_s + 1.0)
    busy = replace(busy, boot_s=calm.boot_s, calendar_s=calm.calendar_s)
    assert rounds.elsewhere({name: before}, {name: calm}) == []
    assert rounds.elsewhere({name: before}, {name: busy}) == [f"on {name}: other processes took 50% of the cores"]
    assert rounds.elsewhere({}, {name: busy}) == rounds.elsewhere({name: before}, {}) == []
    later = hosts.readings([name])[name]
    assert later.monotonic_s > before.monotonic_s and later.cores == before.cores


@pytest.mark.long
def test_every_host_and_link_is_sniffed(hosts: Leader) -> None:
    found = sniff(hosts, "cpu")
    assert [item.host for item in found.hosts] == hosts.hosts
    assert all(min(item.flops_per_s) > 1e8 and min(item.bytes_per_s) > 1e7 for item in found.hosts)
    # Both read the same clock.
    assert all(abs(item.clock_offset_s) <= item.clock_within_s for item in found.hosts[1:])
    assert [link.message_bytes for link in found.links] == sorted(link.message_bytes for link in found.links)
    assert {frozenset(link.hosts) for link in found.links} == {frozenset(hosts.hosts)}


def test_who_is_slower_than_its_peers_is_named() -> None:
    def host(name: str, *flops: float) -> HostFacts:
        return HostFacts(
            host=name, address=None, cores=2, memory_bytes=1, flops_per_s=list(flops), bytes_per_s=[1.0, 1.1]
        )

    alike = [host("a", 10, 11, 12), host("b", 9, 10, 12), host("c", 10, 10, 13)]
    assert slow_hosts(alike) == []
    slow = [*alike[:2], host("c", 5, 5.5, 6)]
    assert slow_hosts(slow) == ["host c multiplies matrices at 0.52 of its peers' pace"]
    links = [
        Link(hosts=pair, message_bytes=size, reduce_s=[took, 1.1 * took])
        for pair, took in ((("a", "b"), 1.0), (("a", "c"), 1.05), (("b", "c"), 3.0))
        for size in (10, 1000)
    ]
    assert slow_links(links) == ["the link between b and c carries 0.34 of what the others do"]


@pytest.mark.parametrize(
    ("ranks", "hosts", "each", "spread"),
    [
        (1, 4, 1, 1),
        (2, 4, 1, 2),
        (4, 4, 1, 4),
        (4, 4, 2, 2),
        (8, 2, 8, 1),
        (8, 4, 3, 4),
        (3, 2, 2, None),
        (8, 2, 2, None),
    ],
)
def test_ranks_are_spread_over_as_few_hosts_as_share_them_equally(
    ranks: int, hosts: int, each: int, spread: int | None
) -> None:
    assert hosts_for(ranks, hosts, each) == spread


@pytest.mark.long
def test_a_killed_host_is_named_and_leaves_nothing(tmp_path: Path, request_: Message, own_cache: None) -> None:
    with two_hosts(tmp_path) as (leader, other):
        name = leader.joined[0].name
        arm = leader.fork(request_, 2)
        arm.call({"do": "build"}, TIMEOUT_S)
        theirs = psutil.Process(other.pid).children(recursive=True)
        other.kill()
        with pytest.raises(ArmFailed) as failed:
            arm.call({"do": "steps", "with": {"count": 1000}}, TIMEOUT_S)
        assert failed.value.status is Status.CRASHED
        assert failed.value.reason == f"host {name} (127.0.0.1) no longer answers"
        assert theirs and not psutil.wait_procs(theirs, timeout=10)[1]
        assert not psutil.pid_exists(arm.pid)
        # What needs the host fails at once; everything else continues.
        with pytest.raises(ArmFailed, match="no longer answers"):
            leader.fork(request_, 2)
        leader.fork(request_ | {"techniques": [], "replicas": 1}, 1).kill()


def test_a_host_with_another_token_is_not_let_in(tmp_path: Path, own_cache: None) -> None:
    token_file, other_file, port = tmp_path / "token", tmp_path / "other", free_port()
    for file in (token_file, other_file):
        wire.token(file, make=True)
    stranger = joining(port, other_file)
    with pytest.raises(ValueError, match="0 of 1 hosts have joined"):
        Leader(Listening(others=1, address=("127.0.0.1", port), token_file=token_file, wait_s=10.0))
    said, _ = stranger.communicate(timeout=TIMEOUT_S)
    assert stranger.returncode == 2
    assert said.count("\n") == 1 and "does not know this token" in said


def test_who_leads_nowhere_is_told_in_one_line(tmp_path: Path) -> None:
    wire.token(tmp_path / "token", make=True)
    lonely = joining(free_port(), tmp_path / "token", "--wait", "0")
    said, _ = lonely.communicate(timeout=TIMEOUT_S)
    assert lonely.returncode == 2 and said.count("\n") == 1 and "nobody answers at 127.0.0.1" in said
