"""One rank that holds the optimizer, and others that send it gradients and fetch parameters."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from multiprocessing.util import Finalize
from queue import Queue
from threading import Condition

import torch
from torch import Tensor, distributed, nn
from torch.distributed import rpc
from torch.optim import Optimizer

from bench.registry import ALL
from bench.setup import TrainingSetup
from bench.techniques._joint import as_groups, as_parameters
from bench.techniques._ranks import agreeing_on_overflow
from bench.techniques.distributed import distribute

Gradients = list[Tensor | None]
"""In the order of the parameters, on the host."""

SERVER = "rank0"

FOR_EVER = 0
"""As torch's RPC has it: how long a rank may take is the harness's to say."""


class _Server:
    """On rank 0: takes the other ranks' gradients and gives out the parameters of each update, when it is made."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pushed: Queue[Gradients] = Queue()
        self._changed = Condition()
        self._updates = 0
        self._parameters: list[Tensor] = []

    def push(self, gradients: Gradients) -> None:
        self._pushed.put(gradients)

    def pull(self, update: int) -> list[Tensor]:
        """The parameters after update number `update`, from 1; waits until it is made."""
        with self._changed:
            self._changed.wait_for(lambda: self._updates >= update)
            return self._parameters

    def average(self, parameters: Sequence[Tensor]) -> None:
        """Before an update: the mean of all ranks' gradients takes the place of this rank's own."""
        pushed = [self._pushed.get() for _ in range(self._workers)]
        for parameter, *others in zip(parameters, *pushed, strict=True):
            if parameter.grad is not None:
                for other in others:
                    parameter.grad += other.to(parameter.device)
                parameter.grad /= 1 + self._workers

    def publish(self, parameters: Sequence[Tensor]) -> None:
        """After an update: let the other ranks have its parameters."""
        with self._changed:
            self._parameters = [parameter.detach().cpu() for parameter in parameters]
            self._updates += 1
            self._changed.notify_all()


class _Pull(Optimizer):
    """On the other ranks: an update is to fetch the parameters that the server has after its own."""

    def __init__(self, parameters: Sequence[Tensor], rate: float) -> None:
        # Schedules set a rate, although it has no effect here.
        super().__init__(parameters, {"lr": rate})
        self._held, self._updates = parameters, 0

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self._updates += 1
        pulled = rpc.rpc_sync(SERVER, _pull, (self._updates,), timeout=FOR_EVER)
        for parameter, new in zip(self._held, pulled, strict=True):
            parameter.copy_(new)


_servers: list[_Server] = []
"""Of this process, one for each setup that it built: calls from other ranks reach the latest."""


def _push(gradients: Gradients) -> None:
    _servers[-1].push(gradients)


def _pull(update: int) -> list[Tensor]:
    return _servers[-1].pull(update)


def _send(parameters: Sequence[Tensor]) -> None:
    gradients = [None if item.grad is None else item.grad.cpu() for item in parameters]
    rpc.rpc_sync(SERVER, _push, (gradients,), timeout=FOR_EVER)


@functools.cache
def _start_rpc(rank: int, world_size: int) -> None:
    """Once a process; it ends with the process."""
    # All ranks are on this machine: the loopback interface needs no name resolution.
    os.environ.setdefault("TP_SOCKET_IFNAME", "lo")
    # Every other rank may be waiting in a call of its own. The shared-memory transport is not used, because it polls: a
    # parked arm that keeps a core busy slows down all others.
    options = rpc.TensorPipeRpcBackendOptions(num_worker_threads=2 * world_size, _transports=["uv"])
    rpc.init_rpc(f"rank{rank}", rank=rank, world_size=world_size, rpc_backend_options=options)
    Finalize(None, rpc.shutdown, kwargs={"graceful": False}, exitpriority=0)


@distribute(
    ranks=ALL,
    source="https://www.usenix.org/conference/osdi14/technical-sessions/presentation/li_mu",
)
def parameter_server(setup: TrainingSetup) -> TrainingSetup:
    """Ranks send gradients to the first rank, which alone holds the optimizer, and fetch its parameters by RPC."""
    _start_rpc(setup.rank, setup.world_size)
    server = _Server(workers=setup.world_size - 1)
    _servers.append(server)

    def served(parameters: Iterable[nn.Parameter]) -> Optimizer:
        groups = as_groups(parameters)
        # An optimizer may order parameters differently, and only the first rank has the optimizer.
        held = [item for group in groups for item in group["params"]]
        if setup.rank:
            optimizer: Optimizer = _Pull(held, setup.workload.learning_rate)
            optimizer.register_step_pre_hook(lambda *_: _send(held))
        else:
            optimizer = setup.optimizer(as_parameters(groups))
            optimizer.register_step_pre_hook(lambda *_: server.average(held))
            optimizer.register_step_post_hook(lambda *_: server.publish(held))
        return optimizer

    # No call may reach an earlier server.
    distributed.barrier()
    return agreeing_on_overflow(replace(setup, optimizer=served))
