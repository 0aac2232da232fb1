"""The owner's side of the fork server: asks for arms, calls them, and learns how they ended.

The fork server itself is a separate process: harness.processes.serving.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from bench.causes import is_echo, killed_by
from harness.message import Message
from harness.processes.channel import Channel, Closed, Garbled, arriving
from harness.processes.failures import ArmFailed, ForkServerFailed
from harness.record import Status
from harness.telemetry.conditions import Reading

MESSAGE_BYTES = 1 << 16
"""The largest request or answer on the control socket."""


def failure(answers: Sequence[Message]) -> ArmFailed:
    """The original failure: that of the rank that let the others down."""
    failed = sorted((answer for answer in answers if "failed" in answer), key=lambda item: is_echo(item["reason"]))
    return ArmFailed(Status(failed[0]["failed"]), failed[0]["reason"])


def how_it_ended(ended: Message) -> ArmFailed:
    """In words, how a process ended, from what the fork server knows."""
    if ended.get("out_of_memory"):
        return ArmFailed(Status.OOM, "killed by the kernel: out of memory")
    code = ended["status"]
    if os.WIFSIGNALED(code):
        return ArmFailed(Status.CRASHED, f"the process was {killed_by(os.WTERMSIG(code))}")
    return ArmFailed(Status.CRASHED, f"the process ended on its own with exit code {os.WEXITSTATUS(code)}")


class Process:
    """A forked arm, as seen by the run that asked for it: one channel per rank. `hosts` names the host of each rank,
    unless all are here."""

    hosts: Sequence[str] = ()

    def __init__(self, fork_server: ForkServer, pid: int, channels: list[Channel]) -> None:
        self.pid = pid
        self.asked_s = time.perf_counter()
        self._fork_server, self._channels = fork_server, channels

    def call(
        self,
        command: Message,
        timeout_s: float,
        *,
        tick_s: float | None = None,
        on_tick: Callable[[], object] | None = None,
    ) -> list[Message]:
        """Send one command to every rank and return each rank's answer.

        Raises ArmFailed, and ends the arm, if a rank reports a failure, dies or does not answer within `timeout_s`.
        """
        answers: dict[int, Message] = {}
        try:
            for channel in self._channels:
                channel.send(command)
            for index, answer in arriving(self._channels, timeout_s, tick_s=tick_s, on_tick=on_tick):
                answers[index] = answer
        except Garbled:
            self.kill()
            raise ArmFailed(Status.CRASHED, f"the answer to {command['do']!r} is not a message") from None
        except Closed:
            raise self._death(list(answers.values())) from None
        except TimeoutError:
            raise self._silence(f"no answer to {command['do']!r} within {timeout_s:g} s") from None
        if any("failed" in answer for answer in answers.values()):
            raise self._failed(list(answers.values()))
        return [answers[index] for index in range(len(self._channels))]

    def _death(self, heard: Sequence[Message] = ()) -> ArmFailed:
        """Why the arm is gone: a rank's last words, `heard` before or still unread, else how the process ended."""
        last = list(heard)
        for channel in self._channels:
            with contextlib.suppress(Closed, TimeoutError):
                last.append(channel.receive(0.1))
        if any("failed" in words for words in last):
            return self._failed(last)
        return self._ended()

    def _failed(self, answers: Sequence[Message]) -> ArmFailed:
        """End the arm after a rank has reported how it failed."""
        self.kill()
        return failure(answers)

    def _ended(self) -> ArmFailed:
        """How an arm ended if no rank reported anything."""
        ended = self._fork_server.reap(self.pid, grace_s=2.0)
        self.close()
        return how_it_ended(ended)

    def _silence(self, what: str) -> ArmFailed:
        """End an arm that did not answer in time, after its processes have written their stacks to the log."""
        self._fork_server.reap(self.pid, grace_s=0.0, stacks=True)
        self.close()
        return ArmFailed(Status.TIMEOUT, what)

    def kill(self) -> None:
        """End the arm and everything it started, and wait until it is gone."""
        self._fork_server.reap(self.pid, grace_s=0.0)
        self.close()

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


class ForkServer:
    """The owner's side: starts the fork server process and asks it for arms. Use as a context manager."""

    def __init__(
        self,
        *,
        python: str = sys.executable,
        modules: Sequence[str] = (),
        environment: Mapping[str, str] = MappingProxyType({}),
        folder: Path | None = None,
    ) -> None:
        """Start the fork server and return at once; the first fork waits until everything is imported.

        `modules`, names or paths of files, are imported too: they may register techniques of their own. `environment`
        is added to this process's, and `folder` is the working directory of the fork server and its arms (None: the
        current one).
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # One thread each: arms compute with torch, and a library's idle thread pool would survive into every fork. And
        # torch must ask NVML, not CUDA, whether there is a GPU: a process that has asked CUDA cannot fork arms.
        own_environment = {
            "OPENBLAS_NUM_THREADS": "1",
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        self._last_words = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the fork server
        self._process = subprocess.Popen(
            [python, "-m", "harness.processes.serving", str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._last_words,
            env={**os.environ, **own_environment, **environment},
            cwd=folder,
        )
        theirs.close()
        self._ready = False
        self._asking = threading.Lock()

    @property
    def pid(self) -> int:
        """The pid of the fork server's own process."""
        return self._process.pid

    def wait_ready(self) -> None:
        """Block until everything is imported. Raises ForkServerFailed if an import failed."""
        if self._ready:
            return
        answer = self._receive()
        if "error" in answer:
            raise ForkServerFailed(f"the fork server could not start: {answer['error']}")
        self._ready = True

    @property
    def hosts(self) -> list[str]:
        """The names of the hosts where arms are forked, unless that is only here."""
        return []

    def readings(self, names: Collection[str]) -> Mapping[str, Reading]:
        """The current counters of other hosts, by the names under which arms are forked there."""
        return {}

    def ranks_each(self, device: str) -> int:
        """How many ranks an arm may have on each of these hosts."""
        return 0

    def fork(self, request: Message, ranks: int = 1) -> Process:
        """Fork an arm of `ranks` processes. The request is that of `harness.processes.worker`, and optionally has
        `environment` (variables) and `log` (a file to append output to)."""
        self.wait_ready()
        asked_s = time.perf_counter()
        pid, channels = self._fork(request, ranks)
        process = Process(self, pid, channels)
        process.asked_s = asked_s
        return process

    def run(self, task: str, arguments: Message, timeout_s: float) -> Any:
        """Call the function `task` (as `module:function`) with keyword arguments in a forked process.

        Returns its result, passed as JSON. Raises ValueError if the function does, ArmFailed for any other failure.
        """
        self.wait_ready()
        pid, (channel,) = self._fork({"task": task, "arguments": arguments}, 1)
        process = Process(self, pid, [channel])
        try:
            answer = channel.receive(timeout_s)
        except Closed:
            raise process._death() from None
        except TimeoutError:
            raise ArmFailed(Status.TIMEOUT, f"no answer from {task} within {timeout_s:g} s") from None
        finally:
            process.kill()
        if "invalid" in answer:
            raise ValueError(answer["invalid"])
        if "failed" in answer:
            raise ArmFailed(Status(answer["failed"]), answer["reason"])
        return answer["answer"]

    def reap(self, pid: int, grace_s: float, *, stacks: bool = False) -> Message:
        """Wait up to `grace_s` for the arm to end on its own, then end it by force. Arms that ended before answer
        status 0. With `stacks`, its processes write the stacks of their threads to the log before they are ended."""
        return self._ask({"reap": pid, "grace_s": grace_s, "stacks": stacks}, [])

    def _fork(self, request: Message, ranks: int) -> tuple[int, list[Channel]]:
        pairs = [socket.socketpair() for _ in range(ranks)]
        pid = self.fork_with(request, [theirs for _, theirs in pairs])
        return pid, [Channel(ours) for ours, _ in pairs]

    def fork_with(self, request: Message, connections: Sequence[socket.socket]) -> int:
        """Fork an arm that gets these connections, one per rank; they are closed here. Returns its pid."""
        self.wait_ready()
        answer = self._ask({"fork": request}, [connection.fileno() for connection in connections])
        for connection in connections:
            connection.close()
        pid: int = answer["pid"]
        return pid

    def _ask(self, message: Message, descriptors: list[int]) -> Message:
        # Arms that are certified at the same time are ended from threads.
        with self._asking:
            socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
            return self._receive()

    def _receive(self) -> Message:
        data = self._control.recv(MESSAGE_BYTES)
        if not data:
            raise ForkServerFailed(f"the fork server died with exit code {self._process.wait()}{self._why()}")
        message: Message = json.loads(data)
        return message

    def _why(self) -> str:
        """The last line that a dead fork server wrote: for a Python process, the error that ended it."""
        self._last_words.seek(0)
        lines = self._last_words.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        """End the fork server and all arms."""
        self._control.close()
        if not self._ready:
            # While it is still importing it has no arms, and would notice the closed socket only afterwards.
            self._process.kill()
        self._process.wait()
        self._last_words.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
