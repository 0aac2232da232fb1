"""What all parts of the acceptance share: the device, what is known of it, the time that is left, and a fork server."""

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
"""How long after the end of its time a part that still goes on is interrupted once more."""


class OutOfTime(BaseException):
    """The part's share of the time is over. Not an Exception: nobody on the way may take it for a failure of theirs."""


class Stand:
    """Lent to each part in turn. `tell` receives every row; `names` are the techniques to try, all if there are none.

    On a CPU everything is small: what is then tried is this program, not the machine.
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
        """What step times are taken of: a batch and a sequence that every card of the last years holds."""
        if self.is_small:
            return WorkloadSpec(model="gpt2/nano", batch=8, sequence=64)
        return WorkloadSpec(model="gpt2/small", batch=8, sequence=512)

    @property
    def folder(self) -> Path:
        return Path(self._folder.name)

    @property
    def log(self) -> Path:
        """Where arms' output goes."""
        return self.folder / "arms.log"

    @cached_property
    def facts(self) -> Message:
        """What torch sees of the device, with what was free of its memory before there were arms. Raises ValueError if
        it is not there."""
        return device_facts(self.fork_server(), self.device)

    @property
    def host(self) -> Host:
        return host(self.device, self.facts, need_bytes(self.fork_server(), self.device))

    @cached_property
    def machine(self) -> Machine:
        """What a reader of the figures needs, without rates of matrix products: one part is about those."""
        return describe_machine(self.fork_server(), self.device, self.facts, peaks=False)

    @cached_property
    def gpus(self) -> Gpus:
        """NVML's view of the GPU that an arm uses."""
        return Gpus(self.device, self.facts["gpu_uuids"]).first(1)

    @property
    def modules(self) -> tuple[str, ...]:
        """Files of plugins."""
        return self._modules

    @property
    def left_s(self) -> float:
        """Of the share of the part at hand."""
        return self._deadline_s - time.monotonic()

    def repetitions(self, most: int) -> Iterator[int]:
        """Numbers from 0 on, as long as another repetition as long as the longest so far fits into the time. One of
        them shows on a CPU what there is to show."""
        longest_s = 0.0
        for index in range(1 if self.is_small else most):
            begun = time.monotonic()
            if index and self.left_s < 1.2 * longest_s:
                return
            yield index
            longest_s = max(longest_s, time.monotonic() - begun)

    @contextmanager
    def limited(self, seconds: float) -> Iterator[None]:
        """Raise OutOfTime in what runs below once its time is over, whatever it waits for."""

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
        """One for all parts, until one of them ends in its middle."""
        if self._fork_server is None:
            self._fork_server = ForkServer(modules=self._modules)
        return self._fork_server

    def end_fork_server(self) -> None:
        """End it with all arms: what a part leaves behind that was broken off would disturb the next."""
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None

    def close(self) -> None:
        self.end_fork_server()
        self._folder.cleanup()
