"""What each host and each link between them can do, before anything is measured, as tasks of their fork servers."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from harness.hosts.leader import Leader
from harness.preparation.machine import UNCACHED_BYTES, matmul_peak, memory_rate

Key = TypeVar("Key", bound=Hashable)

SAMPLES = 5
"""Samples of each figure: a host counts as slow if its best one is worse than the worst of every other host."""

SIZES_BYTES = (1 << 10, 1 << 16, 1 << 20, 1 << 23)
"""Sizes of the messages that are reduced over a link."""

LINK_S = 0.2
"""About how long messages of one size are reduced."""

EVERY_PAIR = 8
"""With up to this many hosts every pair is tried, with more only neighbours by rank."""

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """One host. `flops_per_s` are of float32 matrix products, `bytes_per_s` of additions that read and write memory,
    one entry per sample. Its clock is `clock_offset_s` ahead of the leader's, give or take `clock_within_s`."""

    host: str
    address: str | None
    cores: int
    memory_bytes: int
    flops_per_s: list[float]
    bytes_per_s: list[float]
    clock_offset_s: float = 0.0
    clock_within_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Two hosts, and how long an all-reduce of `message_bytes` between one rank on each takes, one entry per sample."""

    hosts: tuple[str, str]
    message_bytes: int
    reduce_s: list[float]

    @property
    def bytes_per_s(self) -> float:
        """Each of two ranks sends half of the message and then the other half's result: the message goes once each
        way."""
        return self.message_bytes / statistics.median(self.reduce_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sniffed:
    """Everything found out about the hosts and their links, and in words what is `slow`."""

    hosts: list[HostFacts]
    links: list[Link]
    slow: list[str] = field(default_factory=list)


def sniff(leader: Leader, device: str) -> Sniffed:
    """Test each host by itself, one after the other, and then the links. Raises ArmFailed if a host fails."""
    flops = leader.on_all("harness.preparation.sniffing:products", {"device": device}, TIMEOUT_S)
    copied = leader.on_all("harness.preparation.sniffing:copies", {"device": device}, TIMEOUT_S)
    clocks = [(0.0, 0.0), *(_clock(host.ask) for host in leader.joined)]
    told = [(leader.name, None, leader.about), *((host.name, host.address, host.about) for host in leader.joined)]
    hosts = [
        HostFacts(
            host=name,
            address=address,
            cores=facts["cores"],
            memory_bytes=facts["memory_bytes"],
            flops_per_s=own_flops,
            bytes_per_s=own_bytes,
            clock_offset_s=offset_s,
            clock_within_s=within_s,
        )
        for (name, address, facts), own_flops, own_bytes, (offset_s, within_s) in zip(
            told, flops, copied, clocks, strict=True
        )
    ]
    names, told_by_ranks = leader.together("harness.preparation.sniffing:reductions", {}, TIMEOUT_S)
    links = [
        Link(hosts=(names[row["ranks"][0]], names[row["ranks"][1]]), message_bytes=row["bytes"], reduce_s=row["s"])
        for row in itertools.chain.from_iterable(told_by_ranks)
    ]
    return Sniffed(hosts=hosts, links=links, slow=[*slow_hosts(hosts), *slow_links(links)])


def slow_hosts(hosts: Sequence[HostFacts]) -> list[str]:
    """In words, hosts that are slower than their peers by more than the samples of one host differ."""
    found = []
    for words, rates in (
        ("multiplies matrices", {item.host: item.flops_per_s for item in hosts}),
        ("moves memory", {item.host: item.bytes_per_s for item in hosts}),
    ):
        found += [f"host {name} {words} at {share:.2f} of its peers' pace" for name, share in _slow(rates).items()]
    return found


def slow_links(links: Sequence[Link]) -> list[str]:
    """The same for links, with their largest message."""
    most = max((link.message_bytes for link in links), default=0)
    rates = {link.hosts: [most / each for each in link.reduce_s] for link in links if link.message_bytes == most}
    return [
        f"the link between {one} and {other} carries {share:.2f} of what the others do"
        for (one, other), share in _slow(rates).items()
    ]


def _slow(rates: Mapping[Key, Sequence[float]]) -> dict[Key, float]:
    """Those whose best sample is worse than the worst of every other, and their share of the others' median."""
    found = {}
    for key, own in rates.items():
        others = [samples for other, samples in rates.items() if other != key]
        if others and max(own) < min(map(min, others)):
            found[key] = statistics.median(own) / statistics.median(map(statistics.median, others))
    return found


def _clock(ask: Any) -> tuple[float, float]:
    """By how much a host's clock is ahead, and how exactly that is known. Of several answers the fastest counts: its
    sender read the clock at some time between question and answer."""
    best = (0.0, float("inf"))
    for _ in range(SAMPLES):
        asked_s = time.time()
        theirs_s = ask({"do": "clock"})["time_s"]
        heard_s = time.time()
        if (heard_s - asked_s) / 2 < best[1]:
            best = (theirs_s - (asked_s + heard_s) / 2, (heard_s - asked_s) / 2)
    return best


def products(device: str) -> list[float]:
    """Task: FLOP/s of float32 matrix products, the best of each sample."""
    return [matmul_peak(torch.device(device), torch.float32) for _ in range(SAMPLES)]


def copies(device: str) -> list[float]:
    """Task: bytes/s of additions that read and write memory, the best of each sample."""
    return [memory_rate(torch.device(device), UNCACHED_BYTES) for _ in range(SAMPLES)]


def reductions() -> list[dict[str, Any]]:
    """Task for one rank on each host, which have found each other: how long all-reduces between pairs take, reported by
    the first rank of each pair."""
    rank, world = dist.get_rank(), dist.get_world_size()
    every = itertools.combinations(range(world), 2)
    pairs = list(every) if world <= EVERY_PAIR else [(one, one + 1) for one in range(world - 1)]
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        # Every rank takes part in making a group, and waits while others measure.
        group = dist.new_group(list(pair))
        for size in SIZES_BYTES if rank in pair else ():
            rows.append({"ranks": pair, "bytes": size, "s": _reduced_s(size, group)})
        dist.barrier()
    return [row for row in rows if row["ranks"][0] == rank]


def _reduced_s(size: int, group: dist.ProcessGroup) -> list[float]:
    """Seconds that an all-reduce of so many bytes takes, the mean of each sample."""
    message = torch.ones(size // 4)
    dist.all_reduce(message, group=group)
    begun_s = time.perf_counter()
    dist.all_reduce(message, group=group)
    # Both ranks must make the same number.
    took = torch.tensor([time.perf_counter() - begun_s])
    dist.all_reduce(took, dist.ReduceOp.MAX, group=group)
    count = max(1, min(1000, int(LINK_S / SAMPLES / took.item())))
    samples = []
    for _ in range(SAMPLES):
        message.fill_(1.0)
        begun_s = time.perf_counter()
        for _ in range(count):
            dist.all_reduce(message, group=group)
        samples.append((time.perf_counter() - begun_s) / count)
    return samples
