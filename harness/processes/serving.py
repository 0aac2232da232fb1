"""The fork server's own process: it has imported everything, and forks arms in milliseconds.

It runs no tensor operation and touches no GPU, because neither survives a fork. When the run that owns it dies, however
it dies, the control socket closes and this process ends all its descendants.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import psutil

from bench import plugins
from harness.message import Message
from harness.processes.fork_server import MESSAGE_BYTES
from harness.processes.hidden_gpus import check_forkable, without_gpus
from harness.processes.quiet import quieten
from harness.telemetry import cgroups

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
    "harness.processes.worker",
    "harness.preparation.machine",
    "harness.preparation.probing",
)
STACKS_SIGNAL, STACKS_S = signal.SIGUSR1, 2.0
"""The signal that makes a process write its stacks, and the seconds that it has to do so."""

# Without torchao.prototype.quantized_training: its import depends on whether there is a GPU, which only arms may see.
OPTIONAL_PRELOAD = ("torchao.quantization.qat", "torch_pruning")


class _Children:
    """The fork server's side: what it has forked, and how to end that."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._alive: set[int] = set()
        self._oom_kills = cgroups.oom_kills()
        self._out_of_memory: set[int] = set()

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

    def reap(self, pid: int, grace_s: float, stacks: bool = False) -> Message:
        """How a child ended; after `grace_s` it is killed. With `stacks`, each of its processes is first asked to write
        the stacks of its threads to the log."""
        if pid not in self._alive:
            return {"status": 0}
        process = psutil.Process(pid)
        if stacks:
            for asked in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    asked.send_signal(STACKS_SIGNAL)
            grace_s = STACKS_S
        _wait_for_exit(pid, grace_s)
        self._look_for_kills()
        for victim in (*process.children(recursive=True), process):
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        _, status = os.waitpid(pid, 0)
        self._alive.discard(pid)
        self._end_strays()
        return {"status": status, "out_of_memory": pid in self._out_of_memory}

    def _look_for_kills(self) -> None:
        """If the kernel has killed for lack of memory since the last look, all arms that have ended since count as its
        victims. If it killed only a part of an arm, the whole arm ends too."""
        before, self._oom_kills = self._oom_kills, cgroups.oom_kills()
        ended = {pid for pid in self._alive if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE}
        if self._oom_kills > before:
            self._out_of_memory |= ended

    def _end_strays(self) -> None:
        """Kill what a dead arm left behind: as subreaper, this process has become its parent."""
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


def _child_main(request: Message, connections: list[socket.socket]) -> None:
    """Never returns: a forked arm must not fall back into the fork server's loop."""
    from harness.processes import worker

    code = 1
    try:
        os.setsid()
        worker.die_with_parent()
        # If memory runs out, the kernel should kill the arm, not the run that records it.
        Path("/proc/self/oom_score_adj").write_text("1000")
        os.environ.update(request.get("environment", {}))
        if "log" in request:
            _write_output_to(request["log"])
        # The signal's C handler writes the stacks itself, whatever the interpreter is doing.
        faulthandler.register(STACKS_SIGNAL, file=2)
        worker.main(request, connections)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # No interpreter teardown: it takes time and could wait for threads that a technique left behind.
        os._exit(code)


def _write_output_to(path: str) -> None:
    """Append the output of this process and its descendants to a file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)


def _preload(modules: Sequence[str]) -> None:
    """Import what arms need. Raises RuntimeError if that started a GPU, which no forked arm could then use."""
    # Imports create no garbage, and looking for it takes a fifth of the time.
    gc.disable()
    with without_gpus():
        for name in PRELOAD:
            importlib.import_module(name)
        for name in OPTIONAL_PRELOAD:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    check_forkable("what trainpace imports")
    # What plugins conclude at import must hold for the arms: they may look for a GPU, but not start it.
    for name in modules:
        plugins.load_file(name) if name.endswith(".py") else importlib.import_module(name)
    from bench.registry import techniques
    from bench.workload import families

    techniques()
    families()
    check_forkable(f"a plugin ({', '.join(modules)})" if modules else "an installed plugin")
    # Imported objects stay: without this, every garbage collection in an arm would copy all of their pages.
    gc.freeze()
    gc.enable()


def main(descriptor: int, modules: Sequence[str]) -> None:
    """Serve fork and reap requests on the control socket until the owner closes it."""
    control = socket.socket(fileno=descriptor)
    set_child_subreaper, set_parent_death_signal = 36, 1  # PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG in linux/prctl.h
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)
    # While it imports it has no arms, and would notice only afterwards that the owner was killed.
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    # The owner's Ctrl-C is the owner's to handle; it ends the fork server by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    quieten()
    try:
        _preload(modules)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        raise
    # From here on it ends what it has forked before it ends itself.
    ctypes.CDLL(None).prctl(set_parent_death_signal, 0)
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
                answer = children.reap(message["reap"], message["grace_s"], message.get("stacks", False))
            control.send(json.dumps(answer).encode())
    except OSError:
        # The owner died in the middle of an answer.
        return
    finally:
        children.end_all()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
    # No interpreter teardown: with so much imported it takes a quarter of a second, during which the owner waits.
    os._exit(0)
