"""The nursery: a process that has imported everything and forks arms in milliseconds.

It runs no tensor operation and touches no GPU, because neither survives a fork. When the run that owns it dies, however
it dies, the nursery's control socket closes and the nursery ends every process below it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from harness.channel import Channel, Closed, Message
from harness.record import Status

PRELOAD = (
    "torch",
    "torch.utils.data",
    "torch._dynamo",
    "torch._inductor.compile_fx",
    "torch.distributed.launcher.api",
    "torch.nn.parallel",
    "torch.nn.utils.prune",
    "torch.optim",
    "transformers.models.gpt2.modeling_gpt2",
    "transformers.models.bert.modeling_bert",
    "harness.arm",
    "harness.machine",
)
# Not torchao.prototype.quantized_training: its import asks for a GPU and would initialise CUDA.
OPTIONAL_PRELOAD = ("torchao.quantization.qat", "torch_pruning")
MESSAGE_BYTES = 1 << 16


class ArmFailed(Exception):
    """An arm could not go on; the status and the reason go into its record."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Process:
    """A forked arm, seen from the run that asked for it: one channel a rank."""

    def __init__(self, nursery: Nursery, pid: int, channels: list[Channel]) -> None:
        self.pid = pid
        self.asked_s = time.perf_counter()
        self._nursery, self._channels = nursery, channels

    def call(
        self,
        command: Message,
        timeout_s: float,
        *,
        tick_s: float | None = None,
        on_tick: Callable[[], object] | None = None,
    ) -> list[Message]:
        """Send one command to every rank and return each rank's answer.

        Raises ArmFailed, and ends the arm, if a rank reports a failure, dies or does not answer in `timeout_s`.
        """
        deadline = time.monotonic() + timeout_s
        try:
            for channel in self._channels:
                channel.send(command)
            answers = [
                channel.receive(deadline - time.monotonic(), tick_s=tick_s, on_tick=on_tick)
                for channel in self._channels
            ]
        except Closed:
            raise self._death() from None
        except TimeoutError:
            self.kill()
            raise ArmFailed(Status.TIMEOUT, f"no answer to {command['do']!r} within {timeout_s:g} s") from None
        for answer in answers:
            if "failed" in answer:
                self.kill()
                raise ArmFailed(Status(answer["failed"]), answer["reason"])
        return answers

    def _death(self) -> ArmFailed:
        """Why the arm is gone: a rank's last words if it left any, else how the process ended."""
        for channel in self._channels:
            with contextlib.suppress(Closed, TimeoutError):
                last = channel.receive(0.1)
                if "failed" in last:
                    self.kill()
                    return ArmFailed(Status(last["failed"]), last["reason"])
        ended = self._nursery.reap(self.pid, grace_s=2.0)
        self.close()
        if ended.get("out_of_memory"):
            return ArmFailed(Status.OOM, "killed by the kernel: out of memory")
        code = ended["status"]
        if os.WIFSIGNALED(code):
            return ArmFailed(Status.CRASHED, f"the process was killed by {signal.Signals(os.WTERMSIG(code)).name}")
        return ArmFailed(Status.CRASHED, f"the process ended on its own with exit code {os.WEXITSTATUS(code)}")

    def kill(self) -> None:
        """End the arm and everything it started, and wait until it is gone."""
        self._nursery.reap(self.pid, grace_s=0.0)
        self.close()

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


class Nursery:
    """The owner's side: starts the nursery process and asks it for arms. Use as a context manager."""

    def __init__(self, *, python: str = sys.executable, modules: Sequence[str] = ()) -> None:
        """Start `python -m harness.nursery` and return at once; the first fork waits until everything is imported.

        `modules` are imported too: they may register techniques of their own.
        """
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # One thread each: the arms' arithmetic is torch's, and a library's idle pool would survive into every fork.
        # And torch must ask NVML, not CUDA, whether there is a GPU: a process that has asked CUDA cannot fork arms.
        environment = {
            "OPENBLAS_NUM_THREADS": "1",
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "TRANSFORMERS_VERBOSITY": "error",
        }
        self._process = subprocess.Popen(
            [python, "-m", "harness.nursery", str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
        )
        theirs.close()
        self._ready = False

    def wait_ready(self) -> None:
        """Block until everything is imported. Raises RuntimeError if it could not be."""
        if self._ready:
            return
        answer = self._receive()
        if "error" in answer:
            raise RuntimeError(f"the nursery could not start: {answer['error']}")
        self._ready = True

    def fork(self, request: Message, ranks: int = 1) -> Process:
        """Fork an arm of `ranks` processes. The request is that of `harness.arm`, and where it has them `environment`
        (variables) and `log` (a file to append output to)."""
        self.wait_ready()
        asked_s = time.perf_counter()
        pid, channels = self._fork(request, ranks)
        process = Process(self, pid, channels)
        process.asked_s = asked_s
        return process

    def run(self, task: str, arguments: Message, timeout_s: float) -> Any:
        """Call the function `task` (as `module:function`) with keyword arguments in a forked process.

        Returns what it returns, as JSON carries it. Raises ValueError where it did, ArmFailed for any other failure.
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

    def reap(self, pid: int, grace_s: float) -> Message:
        """Wait until the arm has ended, at most `grace_s` on its own, then by force. Ended arms answer status 0."""
        return self._ask({"reap": pid, "grace_s": grace_s}, [])

    def _fork(self, request: Message, ranks: int) -> tuple[int, list[Channel]]:
        pairs = [socket.socketpair() for _ in range(ranks)]
        answer = self._ask({"fork": request}, [theirs.fileno() for _, theirs in pairs])
        for _, theirs in pairs:
            theirs.close()
        return answer["pid"], [Channel(ours) for ours, _ in pairs]

    def _ask(self, message: Message, descriptors: list[int]) -> Message:
        socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
        return self._receive()

    def _receive(self) -> Message:
        data = self._control.recv(MESSAGE_BYTES)
        if not data:
            raise RuntimeError(f"the nursery died with exit code {self._process.wait()}")
        message: Message = json.loads(data)
        return message

    def close(self) -> None:
        """End the nursery and all arms."""
        self._control.close()
        self._process.wait()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Children:
    """The nursery's side: what it has forked, and how it is ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._alive: set[int] = set()

    def fork(self, request: Message, descriptors: list[int]) -> Message:
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._control.close()
            _child_main(request, [socket.socket(fileno=descriptor) for descriptor in descriptors])
        for descriptor in descriptors:
            os.close(descriptor)
        self._alive.add(pid)
        return {"pid": pid}

    def reap(self, pid: int, grace_s: float) -> Message:
        if pid not in self._alive:
            return {"status": 0}
        kills_before = _oom_kills()
        process = psutil.Process(pid)
        _wait_for_exit(pid, grace_s)
        # An exited child is a zombie until it is waited for; what it had started is this process's by then.
        ended_alone = process.status() == psutil.STATUS_ZOMBIE
        for victim in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        _, status = os.waitpid(pid, 0)
        self._alive.discard(pid)
        self._end_strays()
        return {"status": status, "out_of_memory": ended_alone and _oom_kills() > kills_before}

    def _end_strays(self) -> None:
        """Kill what a dead arm left behind: as subreaper this process has become its parent."""
        for child in psutil.Process().children():
            if child.pid not in self._alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for stray in (*child.children(recursive=True), child):
                        stray.kill()
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.pid, 0)

    def end_all(self) -> None:
        self._alive.clear()
        self._end_strays()


def _wait_for_exit(pid: int, timeout_s: float) -> None:
    """Block until a child has exited, without reaping it."""
    descriptor = os.pidfd_open(pid)
    try:
        select.select([descriptor], [], [], timeout_s)
    finally:
        os.close(descriptor)


def _oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started."""
    for line in Path("/proc/vmstat").read_text().splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return 0


def _child_main(request: Message, connections: list[socket.socket]) -> None:
    """Never returns: a forked arm must not fall back into the nursery's loop."""
    from harness import arm

    code = 1
    try:
        os.setsid()
        arm.die_with_parent()
        # If memory runs out the kernel should take the arm, not the run that records it.
        Path("/proc/self/oom_score_adj").write_text("1000")
        os.environ.update(request.get("environment", {}))
        if "log" in request:
            _write_output_to(request["log"])
        if "task" in request:
            arm.answer_task(request["task"], connections[0], request["arguments"])
        else:
            arm.main(request, connections)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # No interpreter teardown: it takes time and could wait for threads that a technique left behind.
        os._exit(code)


def _write_output_to(path: str) -> None:
    """Append this process's output, and that of all it starts, to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _preload(modules: Sequence[str]) -> None:
    """Import what arms need. Raises RuntimeError if that started a GPU or left work in other threads."""
    for name in (*PRELOAD, *modules):
        importlib.import_module(name)
    for name in OPTIONAL_PRELOAD:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch

    from bench.registry import techniques
    from bench.workload import families

    techniques()
    families()
    if torch.cuda.is_initialized():
        raise RuntimeError("an import has initialised CUDA, which no forked arm could use")


def main(descriptor: int, modules: Sequence[str]) -> None:
    """Serve fork and reap requests on the control socket until the owner closes it."""
    control = socket.socket(fileno=descriptor)
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER in linux/prctl.h
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)
    # The owner's Ctrl-C is the owner's to handle; it ends the nursery by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _preload(modules)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        raise
    control.send(json.dumps({"ready": True}).encode())
    children = _Children(control)
    try:
        while True:
            data, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 64)
            if not data:
                return
            message = json.loads(data)
            if "fork" in message:
                answer = children.fork(message["fork"], descriptors)
            else:
                answer = children.reap(message["reap"], message["grace_s"])
            control.send(json.dumps(answer).encode())
    except OSError:
        # The owner is gone in the middle of an answer.
        return
    finally:
        children.end_all()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
