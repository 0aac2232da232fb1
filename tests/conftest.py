"""Shared by all tests: a separate cache, one fork server, and short protocols."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from bench.corpus import Corpus, cache_folder, open_corpus
from bench.spec import Phase, Plan, Protocol, WorkloadSpec
from harness.ab import comparison
from harness.ab.sides import Home, Side, open_home
from harness.heats import conformance
from harness.heats.sweep import Sweep
from harness.message import Message
from harness.preparation.machine import describe_machine
from harness.preparation.prepared import Prepared, prepare
from harness.processes.fork_server import ForkServer
from harness.record import Machine, Record
from harness.telemetry import conditions
from results import store
from results.compare import most_telling
from tests import ROOT, nvml, texts

SLOW_FILES = (
    "harness/heats/test_conformance.py",
    "harness/ab/test_mutations.py",
    "bench/test_composition.py",
    "harness/heats/test_sweep.py",
    "bench/cli/test_cli.py",
    "bench/test_kinds.py",
    "harness/prediction/test_memory.py",
    "bench/cli/test_startup.py",
    "bench/test_brought.py",
    "bench/techniques/test_transfer.py",
    "bench/techniques/test_compile.py",
    "test_gpu_acceptance.py",
    "harness/processes/test_preload.py",
    "harness/telemetry/test_driver.py",
)
"""The slowest files start first: each file runs in one worker, and the others would wait for it at the end."""

LEAST = dataclasses.replace(conformance.PROTOCOL, certify_steps=3)
"""The protocol for tests of what is trained, not of how long it takes."""

SHORT = Protocol(
    warmup_s=0.2, sustained_s=0.1, rounds=3, rounds_s=0.1, turn_s=0.02, sample_interval_s=0.05, timeout_s=180
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / "tests" / name: place for place, name in enumerate(SLOW_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep tokens, checkpoints and compiled code out of the user's cache, in one that all test processes share. It is
    set before the fork server inherits it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    shared.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(shared)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache_folder() / "compiled")


@pytest.fixture(scope="session", autouse=True)
def known_machine() -> Iterator[None]:
    """Examine the machine only once: it does not change, and timing its matrix products takes a second."""
    known: dict[str, Machine] = {}

    def once(fork_server: ForkServer, device: str, facts: Message) -> Machine:
        return known.get(device) or known.setdefault(device, describe_machine(fork_server, device, facts))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.preparation.prepared.describe_machine", once)
        yield


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of real text that does not depend on the project."""
    return texts.write(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def corpus(own_cache: None, text_folder: Path) -> Corpus:
    return open_corpus(str(text_folder))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an NVML that has every function, for tests.nvml.ask."""
    return nvml.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def fork_server(own_cache: None) -> Iterator[ForkServer]:
    """One fork server for all tests, which also knows the planted techniques."""
    with ForkServer(modules=["tests.planted"]) as started:
        started.wait_ready()
        yield started


def lend(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commands and functions in this process use the tests' fork server: starting another one takes seconds."""

    @contextlib.contextmanager
    def borrowed(*, modules: Sequence[str] = ()) -> Iterator[ForkServer]:
        if modules:
            with ForkServer(modules=modules) as own:
                yield own
        else:
            yield fork_server

    monkeypatch.setattr("bench.api.runs.ForkServer", borrowed)


@pytest.fixture
def lent(fork_server: ForkServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lend(fork_server, monkeypatch)


def let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore other programs and the hypervisor: during tests, their use of the machine is not a disturbance."""
    monkeypatch.setattr(conditions, "FOREIGN_SHARE", 1.0)
    monkeypatch.setattr(conditions, "STEAL_SHARE", 1.0)


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    let_be(monkeypatch)


@pytest.fixture
def sweep(
    undisturbed: None, fork_server: ForkServer, text_folder: Path, tmp_path: Path
) -> Callable[..., tuple[Prepared, list[Record]]]:
    """Run a small plan to the end and return its records, as stored on disk."""

    def run(*compositions: tuple[str, ...], **options: Any) -> tuple[Prepared, list[Record]]:
        models = options.pop("models", ("gpt2/nano",))
        shape: dict[str, Any] = options.pop("shape", {"batch": 8, "sequence": 32})
        chosen = options.pop("corpus", text_folder)
        shape = shape | {"corpus": None if chosen is None else str(chosen)}
        phase = options.pop("phase", Phase.PRETRAIN)
        specs = tuple(WorkloadSpec(model=model, phase=phase, **shape) for model in models)
        settings: dict[str, Any] = {"name": "test", "repetitions": 1, "protocol": SHORT} | options
        plan = Plan(workloads=specs, compositions=compositions, **settings)
        prepared = prepare(plan, fork_server)
        made = Sweep(
            prepared,
            run_id="test",
            keep=lambda record: store.write(record, tmp_path, machine=prepared.machine, plan=plan),
            choose=lambda records: most_telling(records, prepared.machine),
            shared_cache=cache_folder() / "compiled",
            log=tmp_path / "arms.log",
        )
        made.run(fork_server)
        return prepared, store.read(tmp_path)

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread: steps this small gain nothing from more, which spin for a long time if cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def kept_fork_servers() -> Iterator[None]:
    """Let a side keep its fork server over repetitions and gates, because starting one takes seconds. Unmodified gates
    are tested in tests/harness/ab/test_mutations.py."""
    kept: dict[Any, Home] = {}
    with contextlib.ExitStack() as stack:

        @contextlib.contextmanager
        def once(side: Side, *others: Any) -> Iterator[Home]:
            key = (side.name, side.python, side.checkout)
            if key not in kept:
                kept[key] = stack.enter_context(open_home(side, *others))
            yield dataclasses.replace(kept[key], side=side)

        with mock.patch.object(comparison, "open_home", once):
            yield
