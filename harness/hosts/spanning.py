"""Arms on several hosts, and the joined hosts themselves, as the leading host sees them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from typing import Any

from harness.message import Message
from harness.processes.channel import Channel, Closed, arriving
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer, Process, failure, how_it_ended
from harness.processes.worker import JOIN_S
from harness.record import Status
from harness.telemetry.conditions import Reading

ANSWER_S = 20.0
"""How long a host may take to fork, to end a process or to tell the time."""

ALIVE_S = 3.0
"""How long a host may take to show that it is alive."""


class JoinedHost:
    """A host that has joined, as the leading host sees it."""

    def __init__(self, name: str, about: Message, channel: Channel, address: str) -> None:
        self.name, self.about, self.address = name, about, address
        self._channel = channel
        self._asking = threading.Lock()
        self.is_lost = False

    def ask(self, message: Message, timeout_s: float = ANSWER_S) -> Message:
        """Its answer. Raises ArmFailed with the failure that it reports, or if it is gone."""
        with self._asking:
            if self.is_lost:
                raise self.loss()
            try:
                self._channel.send(message)
                answer = self._channel.receive(timeout_s)
            except (Closed, TimeoutError):
                # A late answer would be taken for the answer to something else.
                self.is_lost = True
                self._channel.close()
                raise self.loss() from None
        if "failed" in answer:
            raise ArmFailed(Status(answer["failed"]), f"on {self.name}: {answer['reason']}")
        return answer

    def loss(self) -> ArmFailed:
        return ArmFailed(Status.CRASHED, f"host {self.name} ({self.address}) no longer answers")

    def is_there(self) -> bool:
        """Whether it still answers."""
        with contextlib.suppress(ArmFailed):
            self.ask({"do": "clock"}, ALIVE_S)
        return not self.is_lost

    def reading(self) -> Reading | None:
        """Its counters now; None if it is gone, which its arms will report."""
        with contextlib.suppress(ArmFailed):
            return Reading(**self.ask({"do": "reading"})["reading"])
        return None

    def run(self, task: str, arguments: Message, timeout_s: float) -> Any:
        """Like ForkServer.run, on that host."""
        message = {"do": "run", "task": task, "arguments": arguments, "timeout_s": timeout_s}
        return self.ask(message, timeout_s + ANSWER_S)["answer"]

    def close(self) -> None:
        self._channel.close()


class Spanning(Process):
    """An arm whose ranks are on several hosts: `parts` are its processes on the joined hosts."""

    def __init__(
        self, fork_server: ForkServer, pid: int, channels: list[Channel], parts: Sequence[tuple[JoinedHost, int]]
    ) -> None:
        super().__init__(fork_server, pid, channels)
        self._parts = parts

    def meet(self, here: str, of_channel: Sequence[str]) -> None:
        """Wait until all ranks have found each other, and sort their channels by rank. `of_channel` names the host of
        the rank at each channel. Raises ArmFailed."""
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
        """The answer of each rank of a task. Raises ArmFailed."""
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
        """If a host is gone, the remaining ranks may only report lost contact, so the host is named first."""
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
        """The failure of a host of this arm that is gone, if there is one."""
        gone = [host for host, _ in self._parts if not host.is_there()]
        return gone[0].loss() if gone else None
