"""The leading host: it lets others join, and has each of them fork a share of an arm's ranks.

Measuring works as on one host: an arm is commanded over one channel per rank, wherever the rank is.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.composition import hosts_for
from harness.hosts import wire
from harness.hosts.joined import about, interface, name_of
from harness.hosts.listener import Listener
from harness.hosts.spanning import ANSWER_S, JoinedHost, Spanning
from harness.message import Message
from harness.processes.channel import Channel
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer, Process
from harness.record import Status
from harness.telemetry.conditions import Reading

ANYWHERE = ("0.0.0.0", "::")
"""Addresses that mean listening on every network."""

SAME = ("trainpace", "python")
"""What has to be the same on all hosts, besides the version of torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How hosts may join: how many besides this one, at which address, with the token of which file. Each lends
    `ranks_each` ranks; if that is None, one for each GPU, or one on a CPU."""

    others: int
    address: tuple[str, int]
    token_file: Path
    ranks_each: int | None = None
    wait_s: float = 600.0


class Leader(ForkServer):
    """A fork server whose arms may span the hosts that have joined. Use as a context manager."""

    def __init__(
        self, listening: Listening, *, modules: Sequence[str] = (), say: Callable[[str], object] = lambda line: None
    ) -> None:
        """Start the fork server, and wait until all hosts have joined. Raises ValueError if they do not in time."""
        secret = wire.token(listening.token_file, make=True)
        self._listener = Listener(listening.address, secret)
        self.joined: list[JoinedHost] = []
        self._ranks_each: dict[str, int] = {}
        if listening.ranks_each:
            self._ranks_each = {"cpu": listening.ranks_each, "cuda": listening.ranks_each}
        super().__init__(modules=modules)
        try:
            self._wait(listening, modules, say)
            self.address = self._listener.address_for(self.joined[0].address)
            self._store = _store()
        except BaseException:
            self.close()
            raise

    @property
    def hosts(self) -> list[str]:
        return [self.name, *(host.name for host in self.joined)]

    def readings(self, names: Collection[str]) -> dict[str, Reading]:
        """The counters of the named hosts, except this one."""
        found = ((host.name, host.reading()) for host in self.joined if host.name in names and not host.is_lost)
        return {name: reading for name, reading in found if reading is not None}

    def ranks_each(self, device: str) -> int:
        """How many ranks every host lends: as given, else one for each GPU that all of them have, else one."""
        if device not in self._ranks_each:
            facts = self.on_all("harness.preparation.machine:probe_device", {"device": device}, ANSWER_S)
            self._ranks_each[device] = 1 if device == "cpu" else max(1, min(found["gpus"] for found in facts))
        return self._ranks_each[device]

    def _wait(self, listening: Listening, modules: Sequence[str], say: Callable[[str], object]) -> None:
        self.about = own = about()
        deadline = time.monotonic() + listening.wait_s
        self.name = name_of(own["host"], [])
        host, port = listening.address
        shown = wire.shown(own["host"] if host in ANYWHERE else host, port)
        say(
            f"waiting for {listening.others} more; run on each, in a folder like this one: "
            f"trainpace join {shown} --token-file {listening.token_file}"
        )
        while len(self.joined) < listening.others:
            found = self._listener.host(deadline - time.monotonic())
            if found is None:
                raise ValueError(
                    f"{len(self.joined)} of {listening.others} hosts have joined within {listening.wait_s:g} s: start "
                    f"`trainpace join {shown} --token-file {listening.token_file}` on the others"
                )
            channel, told, address = found
            if differs := _differs(own, told):
                channel.send({"refused": differs})
                channel.close()
                say(f"{address} was refused: {differs}")
                continue
            name = name_of(str(told["host"]), self.hosts)
            channel.send({"host": name, "modules": list(modules)})
            self.joined.append(JoinedHost(name, told, channel, address))
            say(f"{name} ({address}) has joined: {told['cores']} cores")

    def fork(self, request: Message, ranks: int = 1) -> Process:
        """Like ForkServer.fork, with the ranks spread over as few hosts as have enough of them. Raises ArmFailed if one
        of these is gone."""
        count = hosts_for(ranks, len(self.hosts), self.ranks_each(request["device"]))
        if count is None:
            raise ArmFailed(Status.UNSUPPORTED, f"needs {ranks} ranks, which these hosts do not have")
        return super().fork(request, ranks) if count == 1 else self.span(request, count, ranks // count)

    def span(self, request: Message, count: int, each: int) -> Spanning:
        """Start `each` ranks on each of the first `count` hosts. Raises ArmFailed."""
        self.wait_ready()
        asked_s = time.perf_counter()
        arm = secrets.token_hex(8)
        span: Message = {
            "hosts": count,
            "id": arm,
            "endpoint": wire.shown(self.address, self._store.port),
            "serves": False,
            "address": self.address,
            "interface": interface(self.address),
        }
        request = request | {"span": span}
        parts: list[tuple[JoinedHost, int]] = []
        channels: list[Channel] = []
        names: list[str] = []
        try:
            for host in self.joined[: count - 1]:
                forked = host.ask({"do": "fork", "request": request, "ranks": each})
                parts.append((host, forked["pid"]))
                channels += self._listener.ranks(arm, each)
                names += [host.name] * each
        except ArmFailed:
            for host, pid in parts:
                with contextlib.suppress(ArmFailed):
                    host.ask({"do": "reap", "pid": pid, "grace_s": 0.0})
            raise
        pid, own = self._fork(request, each)
        process = Spanning(self, pid, [*own, *channels], parts)
        process.asked_s = asked_s
        process.meet(self.name, [self.name] * each + names)
        return process

    def on_all(self, task: str, arguments: Message, timeout_s: float) -> list[Any]:
        """A task's answers from all hosts, run one after the other, this host first."""
        here = self.run(task, arguments, timeout_s)
        return [here, *(host.run(task, arguments, timeout_s) for host in self.joined)]

    def together(self, task: str, arguments: Message, timeout_s: float) -> tuple[Sequence[str], list[Any]]:
        """Run a task on all hosts at once, with one rank on each, and let the ranks find each other. Returns the hosts
        in rank order, and the answers."""
        process = self.span({"task": task, "arguments": arguments, "device": "cpu"}, len(self.hosts), 1)
        try:
            return process.hosts, process.results(timeout_s)
        finally:
            process.kill()

    def close(self) -> None:
        for host in self.joined:
            host.close()
        self._listener.close()
        super().close()


def _differs(own: Message, told: Message) -> str | None:
    """What differs although it has to be the same."""
    for name in SAME:
        if told.get(name) != own[name]:
            return f"{name} {told.get(name)} is there and {own[name]} here: install the same"
    theirs, ours = (item.get("packages", {}).get("torch") for item in (told, own))
    return f"torch {theirs} is there and {ours} here: install the same" if theirs != ours else None


def _store() -> Any:
    """The store through which the launchers of an arm find each other. It lives here, not in a launcher: a thread of
    the store resolves the name of each client, and a rank forked meanwhile would wait for ever for the lock that it
    holds."""
    import torch.distributed

    return torch.distributed.TCPStore(  # type: ignore[attr-defined]  # its documentation has it
        "localhost", 0, is_master=True, wait_for_workers=False
    )
