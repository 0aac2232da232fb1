"""The process under test: build, take steps on command, certify.

It decides nothing: every block of steps is commanded. Between commands it blocks on its channel and uses no CPU.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.causes import killed_by, one_line, root_cause
from bench.composition import compose
from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.held_out import at_rate, with_held_out
from bench.resolve import resolve
from bench.seeds import seed_all
from bench.setup import TrainingSetup, Unsupported, baseline
from bench.spec import Phase, WorkloadSpec
from bench.workload import Workload
from harness.evidence import communication
from harness.evidence.allocation import UPDATES, allocated_peak_bytes
from harness.evidence.compiling import compile_seconds
from harness.evidence.held_out import HeldOut
from harness.evidence.kernels import attention_kernels, cuda_graph_launches
from harness.evidence.kinds import Kind
from harness.evidence.provenance import provenance
from harness.evidence.replay import Observer
from harness.evidence.score import continued, is_continued, score
from harness.evidence.step_shares import Work, step_shares
from harness.evidence.witness import Witness
from harness.evidence.work import Tally
from harness.message import Message
from harness.processes import saved
from harness.processes.channel import Channel, Closed
from harness.record import Status
from harness.timing.largest import largest_batch, ran_out_of_memory
from harness.timing.trainer import Trainer

COMMANDS = (
    *("steps", "evaluate", "peaks", "account", "certify"),
    *("save", "restore", "export", "write"),
)
"""The commands that a built arm accepts, by the names of the methods that answer."""


SOCKET_NAMES = ("GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The variables that tell gloo, torch's RPC and NCCL which network interface to use."""

CERTIFIED = ("accuracy", "f1", "scored_samples")
"""Those of a classifier's scores that every run reports."""


class Worker:
    """Answers the commands for one rank."""

    def __init__(self, request: Message, rank: int, world_size: int) -> None:
        self._request, self._rank, self._world_size = request, rank, world_size
        self._device = torch.device(request["device"])
        if self._device.type == "cuda":
            self._device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)))
            torch.cuda.set_device(self._device)
        self._techniques = compose(request["techniques"])
        self._batch: int | None = request.get("found_batch")
        self._held_out: HeldOut | None = None
        if "threads" in request:
            torch.set_num_threads(request["threads"])
        self._rss_start_bytes = status_bytes("VmRSS")
        self._file_start_bytes = status_bytes("RssFile")
        started = time.perf_counter()
        self._trainer = Trainer(self._build(), request["seed"], request.get("slowdown", 0.0))
        self._witness = Witness(self._trainer.setup, self._trainer.optimizer)
        self._build_s = time.perf_counter() - started

    def _build(self, prepare: Callable[[TrainingSetup], object] = lambda setup: None) -> TrainingSetup:
        setup = self._setup(prepare)
        if not setup.find_largest_batch:
            return setup
        batch = setup.workload.batch
        del setup
        # The replay and later repetitions use the batch that was found first.
        if self._batch is None:
            self._batch = largest_batch(
                lambda size: self._setup(prepare, size),
                batch,
                self._request["seed"],
                dict(self._request.get("foretold_bytes", ())),
            )
        return self._setup(prepare, self._batch)

    def _setup(self, prepare: Callable[[TrainingSetup], object], batch: int | None = None) -> TrainingSetup:
        seed_all(self._request["seed"])
        workload = self.workload()
        setup = baseline(
            workload if batch is None else replace(workload, batch=batch),
            self._device,
            rank=self._rank,
            world_size=self._world_size,
            replicas=self._request["replicas"],
        )
        prepare(setup)
        if workload.held_out is not None and "rate" in self._request:
            self._held_out = HeldOut(workload.held_out(), setup)
        for technique in self._techniques:
            setup = technique.apply(setup)
        # Some techniques look at what is prepared in the model, others change it.
        prepare(setup)
        if self._held_out is not None:
            self._held_out.watch(setup.model)
        return setup

    def workload(self) -> Workload:
        workload = requested_workload(self._request)
        return at_rate(workload, self._request["rate"]) if "rate" in self._request else workload

    def built(self) -> Message:
        setup = self._trainer.setup
        told = {"compute": setup.compute, "batch": setup.workload.batch, "patience": setup.patience}
        return {"build_s": self._build_s, **told}

    def steps(self, count: int, rates: Sequence[float] = ()) -> Message:
        return self._trainer.steps(count, rates)

    def save(self, file: str) -> Message:
        saved.save(self._trainer, Path(file))
        return {}

    def restore(self, file: str) -> Message:
        saved.restore(self._trainer, Path(file))
        return {"steps_done": self._trainer.steps_done}

    def export(self, folder: str) -> Message:
        saved.export(self._trainer, Path(folder))
        return {}

    def write(self, count: int, length: int, prompt: str) -> Message:
        return {"texts": saved.written(self._trainer, count, length, prompt)}

    def evaluate(self, scores: bool = False) -> Message:
        """The held-out loss so far, for an arm that was requested with a `rate`; with `scores`, the scores of its model
        instead, if the task has any."""
        assert self._held_out is not None
        setup = self._trainer.setup
        if not scores:
            return self._held_out.evaluate(setup.model, self._trainer.optimizer)
        if setup.workload.phase is Phase.FINETUNE:
            return {"scores": score(setup)}
        if self._world_size > 1 or not is_continued(setup.workload):
            return {"scores": {}}
        try:
            model = saved.exported(self._trainer).to(self._device)
        except Unsupported:  # It is not the workload's plain model, and only that can be asked to write.
            return {"scores": {}}
        return {"scores": continued(model, setup.workload, self._device)}

    def peaks(self) -> Message:
        """Peaks in bytes since the process started: of the device's allocator, and of the resident set."""
        peaks: Message = {
            "rss_start_bytes": self._rss_start_bytes,
            "rss_peak_bytes": status_bytes("VmHWM"),
            "rss_file_growth_bytes": status_bytes("RssFile") - self._file_start_bytes,
        }
        if self._device.type != "cpu":
            peaks["allocated_peak_bytes"] = torch.accelerator.max_memory_allocated()
            peaks["reserved_peak_bytes"] = torch.accelerator.max_memory_reserved()
            peaks["device"] = self._device.index
            # From the device itself: it knows of every process, and for a slice reports the slice's memory.
            peaks["device_free_bytes"] = torch.cuda.mem_get_info(self._device)[0]
        peaks["compile_s"] = compile_seconds()
        return peaks

    def account(self, **whereabouts: Any) -> Message:
        """Where the code that ran came from, and by what share a brake lengthened the steps."""
        brake = self._trainer.brake
        return provenance(**whereabouts) | {"held_share": brake.held_share if brake else 0.0}

    def certify(self, replay_steps: int, at_once: int = 1) -> Message:
        """The work certificate's fields. With `replay_steps`, the timed trainer is freed and a replay follows.

        `at_once` arms do so at the same time: if each used every core, their threads would wait for one another.
        Compiled code is compiled for a number of threads, and would be compiled again for another.
        """
        if at_once > 1 and compile_seconds() is None:
            torch.set_num_threads(max(1, torch.get_num_threads() // at_once))
        facts = self._witness.facts(self._trainer.steps_done)
        return facts | (self._replay(replay_steps) if replay_steps else {})

    def _allocated_peak_bytes(self) -> int | None:
        """The most that tensors take at once in the arm as it trains, with its dropout. Unknown if its batches have yet
        to grow, and for compiled arms, which would have to be compiled again for it."""
        if compile_seconds() is not None:
            return None
        samples: list[int] = []

        def train() -> None:
            trainer = Trainer(self._build(), self._request["seed"])
            samples.append(trainer.setup.share)
            samples.extend(trainer.steps(UPDATES)["samples"])

        peak_bytes = allocated_peak_bytes(train)
        gc.collect()
        return peak_bytes if min(samples) == samples[0] else None

    def _replayed(self) -> Trainer:
        return Trainer(
            self._build(lambda setup: set_dropout(setup.model, 0.0)),
            self._request["seed"],
            each_sample_seeded=True,
        )

    def _replay(self, count: int) -> Message:
        del self._witness, self._trainer
        gc.collect()
        allocated: Message = (
            {} if self._device.type != "cpu" else {"allocated_peak_bytes": self._allocated_peak_bytes()}
        )
        if compile_seconds() is not None:
            # The replayed model is another object: without this its compilation would count as a recompilation.
            torch._dynamo.reset()
        trainer = self._replayed()
        observer = Observer(trainer.setup, trainer.optimizer, watch_draws=not self._techniques)
        losses, work = self._before_the_last(trainer, count - 1)
        # Only Kineto sees kernels, including those of a replayed CUDA graph, and it takes most of a second to start:
        # not worth it on a CPU, which has none.
        kernels = self._device.type == "cuda"
        if kernels:
            # Like torch.profiler: graphs replayed later would not survive the teardown of CUPTI.
            os.environ.setdefault("TEARDOWN_CUPTI", "0")
        with torch.autograd.profiler.profile(use_kineto=kernels, use_device="cuda" if kernels else None) as profile:
            losses += trainer.steps(1)["losses"]
        events = profile.function_events or []
        compiled = compile_seconds() is not None
        seen = observer.facts(count)
        scored = {name: value for name, value in score(trainer.setup).items() if name in CERTIFIED}
        del trainer, observer
        return {
            **seen,
            **allocated,
            **scored,
            **({} if kernels else step_shares(events, work)),
            "first_losses": losses,
            # Arms are compared only with the baseline; repeating its replay shows how exactly that can be done.
            "repeated_losses": None if self._techniques else self._replayed().steps(count)["losses"],
            "attention_kernels": attention_kernels(events, compiled=compiled),
            "cuda_graph_launches": cuda_graph_launches(events),
            "communication": communication.shares(events) if self._world_size > 1 else None,
        }

    def _before_the_last(self, trainer: Trainer, count: int) -> tuple[list[float], Mapping[Kind, Work] | None]:
        """Take the updates. Returns their losses, and the last one's work by kind of operator, if that can be seen:
        compiled code does not show it, and several ranks would each have their own."""
        if not count or self._device.type != "cpu" or self._world_size > 1 or compile_seconds() is not None:
            return (trainer.steps(count)["losses"] if count else []), None
        losses = trainer.steps(count - 1)["losses"] if count > 1 else []
        with Tally() as tally:
            losses += trainer.steps(1)["losses"]
        return losses, tally.by_kind


def requested_workload(request: Message) -> Workload:
    """The workload of a request, as `harness.preparation.prepared.Entry` makes it; missing fields get their
    defaults."""
    spec, corpus = WorkloadSpec.from_json(request["workload"]), Corpus(**request["corpus"])
    workload = with_held_out(spec, corpus) if request.get("holds_out") else resolve(spec, corpus)
    return replace(workload, calls_model=request.get("calls_model", True))


def status_bytes(field: str) -> int:
    """A kernel figure on this process in bytes: a field of /proc/self/status, which has it in kB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}: trainpace needs Linux")


def serve(handler: Callable[[Message], Message], channel: Channel) -> None:
    """Answer commands until the channel closes. A failure is answered with its status and ends the process."""
    while True:
        try:
            command = channel.receive()
        except Closed:
            return
        try:
            answer = handler(command)
        except BaseException as error:  # An arm's failure becomes a record, whatever it is.
            status, reason = describe(error)
            channel.send({"failed": status, "reason": reason})
            raise
        channel.send(answer)


def describe(error: BaseException) -> tuple[Status, str]:
    """The status and the one-line reason to record for an exception in an arm."""
    reason = root_cause(error)
    if isinstance(error, Unsupported):
        return Status.UNSUPPORTED, one_line(str(error))
    if ran_out_of_memory(error):
        return Status.OOM, reason
    return Status.CRASHED, reason


def run_rank(request: Message, connection: socket.socket, rank: int, world_size: int) -> None:
    """Serve one rank of an arm until its channel closes."""
    worker: Worker | None = None

    def handle(command: Message) -> Message:
        nonlocal worker
        match command["do"]:
            case "build":
                worker = Worker(request, rank, world_size)
                return worker.built()
            case name if worker is not None and name in COMMANDS:
                answer: Message = getattr(worker, name)(**command.get("with", {}))
                return answer
        raise ValueError(f"command {command!r} is not one of build, {', '.join(COMMANDS)}, build first")

    serve(handle, Channel(connection))


HERE: Message = {
    "hosts": 1,
    "endpoint": "localhost:0",
    "serves": True,
    "address": "localhost",
    # The loopback interface needs no name resolution.
    "interface": "lo",
    "id": "",
}
"""The `span` of an arm whose ranks are all on this machine, as a leading host otherwise sends it to each host: how many
hosts there are, where they meet, this host's address and the interface that has it."""

JOIN_S = 60
"""Seconds for the launchers of all hosts of an arm to find each other."""


def run_ranks(request: Message, connections: list[socket.socket]) -> None:
    """Serve the arm's ranks on this host, started and watched by torch.distributed's elastic launcher."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    span: Message = request.get("span", HERE)
    # Otherwise the libraries between ranks resolve the host's own name, which may lead to another network or nowhere.
    for name in SOCKET_NAMES[:1] if span is HERE else SOCKET_NAMES:
        os.environ.setdefault(name, span["interface"])
    # The first rank has the store, not this process: a thread of the store resolves the name of each client, and a rank
    # forked meanwhile would inherit a lock that is never released.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    config = LaunchConfig(
        min_nodes=span["hosts"],
        max_nodes=span["hosts"],
        nproc_per_node=len(connections),
        run_id=span["id"],
        rdzv_backend="c10d",
        rdzv_endpoint=span["endpoint"],
        rdzv_configs={"is_host": span["serves"], "join_timeout": JOIN_S},
        local_addr=span["address"],
        start_method="fork",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=os.devnull),
    )
    try:
        elastic_launch(config, _elastic_rank)(request, connections)
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        if first.exitcode < 0:  # It could not report its own end, which is why the launcher ended the others.
            reason = f"rank {rank} was {killed_by(-first.exitcode)}"
            Channel(connections[first.local_rank]).send({"failed": Status.CRASHED, "reason": reason})
        raise


def _elastic_rank(request: Message, connections: list[socket.socket]) -> None:
    rank, world_size, own = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    die_with_parent()
    # The launcher's own handler would raise an exception for this signal, which would look like a failure here.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for other, connection in enumerate(connections):
        if other != own:
            connection.close()
    if request["device"] == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // len(connections)))
    backend = "gloo" if request["device"] == "cpu" else "nccl"
    if "span" not in request:
        torch.distributed.init_process_group(backend)
    else:
        _meet(backend, rank, Channel(connections[own]))
    body(request, connections[own], rank, world_size)


def _meet(backend: str, rank: int, channel: Channel) -> None:
    """Meet the ranks of other hosts, and report this one's number: the launchers agree on it among themselves."""
    try:
        torch.distributed.init_process_group(backend)
    except Exception as error:  # Whatever it is, the run must hear of it.
        status, reason = describe(error)
        channel.send({"failed": status, "reason": reason})
        raise
    channel.send({"rank": rank})


def body(request: Message, connection: socket.socket, rank: int, world_size: int) -> None:
    """The work of a rank: it answers commands, or carries out a task."""
    if "task" in request:
        answer_task(request["task"], connection, request["arguments"])
    else:
        run_rank(request, connection, rank, world_size)


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG in linux/prctl.h
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def main(request: Message, connections: list[socket.socket]) -> None:
    """The body of a forked arm or task."""
    if len(connections) == 1 and "span" not in request:
        body(request, connections[0], 0, 1)
    else:
        run_ranks(request, connections)


def answer_task(name: str, connection: socket.socket, arguments: Message) -> None:
    """The body of a forked one-shot task, `module:function`: answer with its result, or with how it failed."""
    channel = Channel(connection)
    try:
        module, _, function = name.partition(":")
        channel.send({"answer": getattr(importlib.import_module(module), function)(**arguments)})
    except ValueError as error:
        channel.send({"invalid": str(error)})
    except Exception as error:  # Whatever it is, the run must hear of it.
        status, reason = describe(error)
        channel.send({"failed": status, "reason": reason})
        raise
