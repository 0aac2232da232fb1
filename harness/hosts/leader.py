"""The host that leads: it lets others join, and has a share of an arm's ranks forked on each.

Measuring is unchanged by it: an arm is commanded over one channel a rank, wherever that is.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.composition import hosts_for
from harness.hosts import wire
from harness.hosts.joined import about, interface, name_of
from harness.message import Message
from harness.processes.channel import Channel, Closed, arriving
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer, Process, failure, how_it_ended
from harness.processes.worker import JOIN_S
from harness.record import Status

ANSWER_S = 20.0
"""In which a host forks, ends or says what time it is."""

ALIVE_S = 3.0
"""In which a host answers that is there."""

ANYWHERE = ("0.0.0.0", "::")
"""To listen there is to listen on every network."""

HANDSHAKES = 64
"""Strangers that are listened to at once."""

SAME = ("trainpace", "python")
"""What has to be alike on all hosts, with the version of torch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """How hosts may join: so many of them besides this one, at this address, with the token of a file. Each lends
    `ranks_each`: on GPUs one for each, else one, if that is None."""

    others: int
    address: tuple[str, int]
    token_file: Path
    ranks_each: int | None = None
    wait_s: float = 600.0


class JoinedHost:
    """A host that has joined, seen from the one that leads."""

    def __init__(self, name: str, about: Message, channel: Channel, address: str) -> None:
        self.name, self.about, self.address = name, about, address
        self._channel = channel
        self._asking = threading.Lock()
        self.is_lost = False

    def ask(self, message: Message, timeout_s: float = ANSWER_S) -> Message:
        """Its answer. Raises ArmFailed with what it says has failed, or that it is gone."""
        with self._asking:
            if self.is_lost:
                raise self.loss()
            try:
                self._channel.send(message)
                answer = self._channel.receive(timeout_s)
            except (Closed, TimeoutError):
                # What it still answers would be taken for the answer to something else.
                self.is_lost = True
                self._channel.close()
                raise self.loss() from None
        if "failed" in answer:
            raise ArmFailed(Status(answer["failed"]), f"on {self.name}: {answer['reason']}")
        return answer

    def loss(self) -> ArmFailed:
        return ArmFailed(Status.CRASHED, f"host {self.name} ({self.address}) answers no more")

    def is_there(self) -> bool:
        """Whether it still answers."""
        with contextlib.suppress(ArmFailed):
            self.ask({"do": "clock"}, ALIVE_S)
        return not self.is_lost

    def run(self, task: str, arguments: Message, timeout_s: float) -> Any:
        """As ForkServer.run, there."""
        message = {"do": "run", "task": task, "arguments": arguments, "timeout_s": timeout_s}
        return self.ask(message, timeout_s + ANSWER_S)["answer"]

    def close(self) -> None:
        self._channel.close()


class Spanning(Process):
    """An arm whose ranks are on several hosts: `parts` are its processes on the joined ones."""

    def __init__(
        self, fork_server: ForkServer, pid: int, channels: list[Channel], parts: Sequence[tuple[JoinedHost, int]]
    ) -> None:
        super().__init__(fork_server, pid, channels)
        self._parts = parts

    def meet(self, here: str, of_channel: Sequence[str]) -> None:
        """Wait until all ranks have found each other, and put their channels in the order of the ranks. `of_channel`
        says on which host the rank of each channel is. Raises ArmFailed."""
        hellos: dict[int, Message] = {}
        try:
            for index, hello in arriving(self._channels, 2 * JOIN_S):
                hellos[index] = hello
        except Closed:
            raise self._death(list(hellos.values())) from None
        except TimeoutError:
            missing = sorted({of_channel[index] for index in range(len(self._channels)) if index not in hellos})
            raise self._silence(f"the ranks on {', '.join(missing)} have not found the others") from None
        if any("failed" in hello for hello in hellos.values()):
            raise self._failed(list(hellos.values()))
        order = sorted(hellos, key=lambda index: hellos[index]["rank"])
        self._channels = [self._channels[index] for index in order]
        self.hosts = [of_channel[index] for index in order]

    def results(self, timeout_s: float) -> list[Any]:
        """What each rank of a task has to say. Raises ArmFailed."""
        told: dict[int, Message] = {}
        try:
            for index, message in arriving(self._channels, timeout_s):
                told[index] = message
        except Closed:
            raise self._death(list(told.values())) from None
        except TimeoutError:
            raise self._silence(f"no answer within {timeout_s:g} s") from None
        failed = [message for message in told.values() if "failed" in message]
        failed += [
            {"failed": Status.CRASHED, "reason": message["invalid"]}
            for message in told.values()
            if "invalid" in message
        ]
        if failed:
            raise self._failed(failed)
        return [told[index]["answer"] for index in range(len(self._channels))]

    def kill(self) -> None:
        self._reap_parts()
        super().kill()

    def _reap_parts(self, *, stacks: bool = False) -> None:
        for host, pid in self._parts:
            with contextlib.suppress(ArmFailed):
                host.ask({"do": "reap", "pid": pid, "grace_s": 0.0, "stacks": stacks})

    def _failed(self, answers: Sequence[Message]) -> ArmFailed:
        """A rank that hears no more of another may only tell of a host that is gone."""
        lost = self._lost()
        self.kill()
        return lost or failure(answers)

    def _ended(self) -> ArmFailed:
        if lost := self._lost():
            self.kill()
            return lost
        for host, pid in self._parts:
            with contextlib.suppress(ArmFailed):
                ended = host.ask({"do": "reap", "pid": pid, "grace_s": 2.0})
                if ended.get("out_of_memory") or ended["status"]:
                    self.kill()
                    found = how_it_ended(ended)
                    return ArmFailed(found.status, f"on {host.name}: {found.reason}")
        return super()._ended()

    def _silence(self, what: str) -> ArmFailed:
        lost = self._lost()
        self._reap_parts(stacks=True)
        return super()._silence(f"{what}; {lost.reason}" if lost else what)

    def _lost(self) -> ArmFailed | None:
        """That a host of this arm is gone, if one is."""
        gone = [host for host, _ in self._parts if not host.is_there()]
        return gone[0].loss() if gone else None


class Leader(ForkServer):
    """A fork server whose arms may span the hosts that have joined. Use as a context manager."""

    def __init__(
        self, listening: Listening, *, modules: Sequence[str] = (), say: Callable[[str], object] = lambda line: None
    ) -> None:
        """Start the fork server, and wait until all hosts have joined. Raises ValueError where they do not in time."""
        secret = wire.token(listening.token_file, make=True)
        self._listener = _Listener(listening.address, secret)
        self.joined: list[JoinedHost] = []
        self._ranks_each: dict[str, int] = {}
        if listening.ranks_each:
            self._ranks_each = {"cpu": listening.ranks_each, "cuda": listening.ranks_each}
        super().__init__(modules=modules)
        try:
            self._wait(listening, modules, say)
            self.address = self._listener.address_for(self.joined[0])
            self._store = _store()
        except BaseException:
            self.close()
            raise

    @property
    def hosts(self) -> list[str]:
        return [self.name, *(host.name for host in self.joined)]

    def ranks_each(self, device: str) -> int:
        """What every host lends: a rank for each GPU that all of them have, or one."""
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
            f"waiting for {listening.others} more: on each, in a folder like this one: "
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
        """As ForkServer.fork; the ranks are spread over as few hosts as have room for them. Raises ArmFailed where one
        of these is gone."""
        count = hosts_for(ranks, len(self.hosts), self.ranks_each(request["device"]))
        if count is None:
            raise ArmFailed(Status.UNSUPPORTED, f"needs {ranks} ranks, which these hosts do not have")
        return super().fork(request, ranks) if count == 1 else self.span(request, count, ranks // count)

    def span(self, request: Message, count: int, each: int) -> Spanning:
        """So many ranks on each of the first `count` hosts. Raises ArmFailed."""
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
        """What a task answers on each host, one after the other, this one first."""
        here = self.run(task, arguments, timeout_s)
        return [here, *(host.run(task, arguments, timeout_s) for host in self.joined)]

    def together(self, task: str, arguments: Message, timeout_s: float) -> tuple[Sequence[str], list[Any]]:
        """What a task answers that runs on all hosts at once, one rank on each, which have found each other; and the
        hosts in the order of their ranks."""
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
    """What has to be alike and is not."""
    for name in SAME:
        if told.get(name) != own[name]:
            return f"{name} {told.get(name)} is there and {own[name]} here: install the same"
    theirs, ours = (item.get("packages", {}).get("torch") for item in (told, own))
    return f"torch {theirs} is there and {ours} here: install the same" if theirs != ours else None


def _store() -> Any:
    """Where the launchers of an arm find each other. It lives here, not in a launcher: a thread of the store's looks up
    the name of whoever connects, and ranks that are forked meanwhile would wait for ever for the lock of that."""
    import torch.distributed

    return torch.distributed.TCPStore(  # type: ignore[attr-defined]  # its documentation has it
        "localhost", 0, is_master=True, wait_for_workers=False
    )


class _Listener:
    """Lets in whoever shows the token: hosts, and the ranks of arms."""

    def __init__(self, address: tuple[str, int], secret: bytes) -> None:
        """Raises ValueError where it cannot listen."""
        self._secret = secret
        try:
            family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
            self._socket = socket.create_server(address, family=family, backlog=256)
        except OSError as error:
            raise ValueError(
                f"{address[0]}:{address[1]} cannot be listened on ({error.strerror or error}): give an address of this "
                "machine with --listen, and a port that is free"
            ) from None
        self._hosts: list[tuple[Channel, Message, str]] = []
        self._ranks: dict[str, list[Channel]] = defaultdict(list)
        self._own: dict[str, str] = {}
        self._arrived = threading.Condition()
        self._handshakes = threading.BoundedSemaphore(HANDSHAKES)
        threading.Thread(target=self._accept, daemon=True).start()

    def host(self, timeout_s: float) -> tuple[Channel, Message, str] | None:
        """One that wants to join: its channel, what it says of itself, and its address. None where none came."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._hosts, max(0.0, timeout_s))
            return self._hosts.pop(0) if self._hosts else None

    def ranks(self, arm: str, count: int) -> list[Channel]:
        """The channels of an arm's ranks on a host. Raises ArmFailed where they have not come."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._ranks[arm]) >= count, ANSWER_S):
                raise ArmFailed(Status.CRASHED, "the ranks of a joined host could not reach this one")
            return self._ranks.pop(arm)

    def address_for(self, host: JoinedHost) -> str:
        """What this machine is called by the network that the host is on."""
        return self._own[host.address]

    def _accept(self) -> None:
        while True:
            try:
                connection, (address, *_) = self._socket.accept()
            except OSError:
                return  # It was closed.
            if self._handshakes.acquire(blocking=False):
                threading.Thread(target=self._heard, args=(connection, address), daemon=True).start()
            else:
                connection.close()

    def _heard(self, connection: socket.socket, address: str) -> None:
        with contextlib.suppress(OSError):
            self._admit(connection, address)
        self._handshakes.release()

    def _admit(self, connection: socket.socket, address: str) -> None:
        try:
            wire.keep_alive(connection)
            channel, told = wire.admit(connection, self._secret)
            if told.get("role") == "rank":
                # What it says first is of the rank.
                channel.send({"welcome": True})
        except (wire.Refused, Closed, OSError):
            connection.close()
            return
        with self._arrived:
            if told.get("role") == "rank":
                self._ranks[str(told.get("arm"))].append(channel)
            elif told.get("role") == "host":
                self._own[address] = connection.getsockname()[0]
                self._hosts.append((channel, told, address))
            self._arrived.notify_all()

    def close(self) -> None:
        # A thread that waits in accept is woken by this, and by close alone is not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
