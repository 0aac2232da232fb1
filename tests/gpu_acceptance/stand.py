"""Shared by all parts of the acceptance: the device, what is known about it, the time left, and a fork server."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from bench.host import Host
from bench.spec import WorkloadSpec
from harness.message import Message
from harness.preparation.machine import describe_machine, host
from harness.preparation.prepared import device_facts, need_bytes
from harness.processes.fork_server import ForkServer
from harness.record import Machine
from harness.telemetry.gpus import Gpus
from tests.gpu_acceptance.rows import Row

AGAIN_S = 10.0
"""How many seconds after the end of its time a part that still runs is interrupted again."""


class OutOfTime(BaseException):
    """The part's share of the time is over. Not an Exception, so that no handler in between takes it for an error."""


class Stand:
    """Passed to each part in turn. `tell` receives every row; `names` are the techniques to try, all if empty.

    On a CPU everything is small: it is then a test of this program, not of the machine.
    """

    def __init__(
        self, *, device: str, tell: Callable[[Row], object], modules: Sequence[str] = (), names: Sequence[str] = ()
    ) -> None:
        self.device, self.tell, self.names = device, tell, tuple(names)
        self._modules = tuple(modules)
        self._fork_server: ForkServer | None = None
        self._deadline_s = time.monotonic()
        self._folder = tempfile.TemporaryDirectory(prefix="trainpace-acceptance-")

    @property
    def is_small(self) -> bool:
        return self.device == "cpu"

    @property
    def spec(self) -> WorkloadSpec:
        """The workload for step times: its batch and sequence fit on every recent card."""
        if self.is_small:
            return WorkloadSpec(model="gpt2/nano", batch=8, sequence=64)
        return WorkloadSpec(model="gpt2/small", batch=8, sequence=512)

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    @property
    def log(self) -> Path:
        """The file for the output of arms."""
        return self.folder / "arms.log"

    @cached_property
    def facts(self) -> Message:
        """What torch reports about the device, with its free memory before there were arms. Raises ValueError if there
        is no such device."""
        return device_facts(self.fork_server(), self.device)

    @property
    def host(self) -> Host:
        return host(self.device, self.facts, need_bytes(self.fork_server(), self.device))

    @cached_property
    def machine(self) -> Machine:
        """The machine as readers of the figures need it, without the rates of matrix products."""
        return describe_machine(self.fork_server(), self.device, self.facts, peaks=False)

    @cached_property
    def gpus(self) -> Gpus:
        """The GPU that an arm uses, as seen by NVML."""
        return Gpus(self.device, self.facts["gpu_uuids"]).first(1)

    @property
    def modules(self) -> tuple[str, ...]:
        """The files of plugins."""
        return self._modules

    @property
    def left_s(self) -> float:
        """The seconds left of the current part's share."""
        return self._deadline_s - time.monotonic()

    def repetitions(self, most: int) -> Iterator[int]:
        """Numbers from 0 on, while another repetition as long as the longest so far fits into the time. On a CPU there
        is only one."""
        longest_s = 0.0
        for index in range(1 if self.is_small else most):
            begun = time.monotonic()
            if index and self.left_s < 1.2 * longest_s:
                return
            yield index
            longest_s = max(longest_s, time.monotonic() - begun)

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Raise OutOfTime within the block once its time is over, whatever it waits for."""

        def out_of_time(*_: object) -> None:
            raise OutOfTime

        self._deadline_s = time.monotonic() + seconds
        before = signal.signal(signal.SIGALRM, out_of_time)
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def fork_server(self) -> ForkServer:
        """The fork server for all parts; a new one after a part was interrupted."""
        if self._fork_server is None:
            self._fork_server = ForkServer(modules=self._modules)
        return self._fork_server

    def end_fork_server(self) -> None:
        """End the fork server with all arms: what an interrupted part leaves behind would disturb the next."""
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    def close(self) -> None:
        self.end_fork_server()
        self._folder.cleanup()
