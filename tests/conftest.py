"""Shared by all tests: a cache of their own, one nursery, and short protocols."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.corpus import Corpus, cache_folder, open_corpus
from bench.spec import Phase, Plan, Protocol, WorkloadSpec
from harness import conditions, conformance
from harness.nursery import Nursery
from harness.prepare import Prepared, prepare
from harness.record import Record
from harness.sweep import Sweep
from results import store
from results.compare import most_telling
from tests import nvml

LEAST = dataclasses.replace(conformance.PROTOCOL, certify_steps=3)
"""For tests of what is trained, not of how long it takes."""

SHORT = Protocol(
    warmup_s=0.2, sustained_s=0.1, rounds=3, rounds_s=0.1, turn_s=0.02, sample_interval_s=0.05, timeout_s=180
)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tokens and tokenizers of the tests stay out of the user's cache. Set before the nursery inherits it."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small corpus of real text: this project's own test sources."""
    folder = tmp_path_factory.mktemp("text")
    for source in Path(__file__).parent.glob("*.py"):
        (folder / source.name).write_bytes(source.read_bytes())
    return folder


@pytest.fixture(scope="session")
def corpus(own_cache: None, text_folder: Path) -> Corpus:
    return open_corpus(str(text_folder))


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an NVML that has every function, for tests.nvml.ask."""
    return nvml.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def nursery(own_cache: None) -> Iterator[Nursery]:
    """One nursery for all tests, which knows the planted techniques too."""
    with Nursery(modules=["tests.planted"]) as started:
        started.wait_ready()
        yield started


@pytest.fixture
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may use the machine of a test, or its hypervisor give it to others: that is no disturbance here."""
    monkeypatch.setattr(conditions, "FOREIGN_SHARE", 1.0)
    monkeypatch.setattr(conditions, "STEAL_SHARE", 1.0)


@pytest.fixture
def sweep(
    undisturbed: None, nursery: Nursery, text_folder: Path, tmp_path: Path
) -> Callable[..., tuple[Prepared, list[Record]]]:
    """Run a small plan to the end and return its records, as they were kept on disk."""

    def run(*compositions: tuple[str, ...], **options: Any) -> tuple[Prepared, list[Record]]:
        models = options.pop("models", ("gpt2/nano",))
        shape: dict[str, Any] = options.pop("shape", {"batch": 8, "sequence": 32})
        chosen = options.pop("corpus", text_folder)
        shape = shape | {"corpus": None if chosen is None else str(chosen)}
        phase = options.pop("phase", Phase.PRETRAIN)
        specs = tuple(WorkloadSpec(model=model, phase=phase, **shape) for model in models)
        settings: dict[str, Any] = {"name": "test", "repetitions": 1, "protocol": SHORT} | options
        plan = Plan(workloads=specs, compositions=compositions, **settings)
        prepared = prepare(plan, nursery)
        made = Sweep(
            prepared,
            run_id="test",
            keep=lambda record: store.write(record, tmp_path, machine=prepared.machine, plan=plan),
            choose=lambda records: most_telling(records, prepared.machine),
            shared_cache=cache_folder() / "compiled",
            log=tmp_path / "arms.log",
        )
        made.run(nursery)
        return prepared, store.read(tmp_path)

    return run


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Steps this small gain nothing from more threads, which spin for a long time where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
