"""Compiled models compute the same as the model, in as few graphs as each way of compiling promises."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.composition import compose
from bench.corpus import Corpus
from bench.dropout import set_dropout
from bench.setup import Unsupported
from bench.spec import Plan, WorkloadSpec
from harness.evidence.compiling import compile_facts
from harness.evidence.replay import Observer
from harness.preparation import toolchain
from harness.preparation.prepared import prepare
from harness.processes.fork_server import ForkServer
from harness.timing.trainer import Trainer
from tests.training import apply, build, own

pytestmark = pytest.mark.usefixtures("one_thread")


def compilations() -> int:
    """How many pieces of code were captured; a backward pass compiled at its first run counts as its forward's."""
    return len({str(item.compile_id) for item in torch._dynamo.utils.get_compilation_metrics()})


def losses(corpus: Corpus, *names: str) -> list[float]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch._dynamo.utils.clear_compilation_metrics()
    setup = build(corpus, "gpt2/nano")
    set_dropout(setup.model, 0.0)
    parameters = list(setup.model.parameters())
    setup = apply(setup, *names)
    assert all(new is old for new, old in zip(setup.model.parameters(), parameters, strict=True))
    trainer = Trainer(setup, seed=0)
    observer = Observer(trainer.setup, trainer.optimizer)
    found: list[float] = trainer.steps(3)["losses"]
    assert observer.facts(3)["tokens_per_update"] == 8 * 32
    return found


@pytest.mark.long
def test_the_whole_model_is_one_graph(corpus: Corpus) -> None:
    plain = losses(corpus)
    assert losses(corpus, "compile_max_autotune") == pytest.approx(plain, rel=1e-4)
    assert compilations() == 1
    facts = compile_facts()
    # It requests CUDA graphs. There are none on a CPU, and the compiler counts that it skipped them.
    assert facts.pop("cudagraph_skips")
    assert facts == {"graph_breaks": 0, "recompiles": 0}


@pytest.mark.long
def test_alike_blocks_share_one_compilation_and_can_be_checkpointed(corpus: Corpus) -> None:
    plain = losses(corpus)
    assert losses(corpus, "compile_blocks", "checkpoint_activations") == pytest.approx(plain, rel=1e-4)
    assert compilations() == 1
    assert compile_facts() == {"graph_breaks": 0, "recompiles": 0, "cudagraph_skips": 0}


def test_blocks_are_the_outermost_layers_of_each_stack(corpus: Corpus) -> None:
    for model, names in (
        ("t5/nano", ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]),
        ("albert/nano", ["albert.encoder.albert_layer_groups.0"]),
        ("moe/nano", ["model.layers.0", "model.layers.1"]),
    ):
        setup = build(corpus, model, "compile_blocks")
        compiled = [name for name, item in setup.model.named_modules() if item._compiled_call_impl is not None]
        assert compiled == names
    with pytest.raises(Unsupported, match=r"compile_blocks needs a model whose layers are alike in an nn\.ModuleList"):
        apply(own(lambda: torch.nn.Linear(2, 2)), "compile_blocks")


def test_nothing_compiled_is_not_nothing_given_up() -> None:
    torch._dynamo.utils.clear_compilation_metrics()
    assert compile_facts() == {"graph_breaks": None, "recompiles": None, "cudagraph_skips": None}


def test_graphs_of_a_gpu_exclude_what_writes_over_their_memory() -> None:
    for name in ("compile_reduce_overhead", "compile_max_autotune", "cuda_graphs"):
        with pytest.raises(ValueError, match="exclude each other"):
            compose([name, "accumulate_2"])
    compose(["compile", "accumulate_2"])


@pytest.mark.long
def test_what_is_the_machines_is_found_out_once(
    fork_server: ForkServer, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=str(text_folder))
    prepared = prepare(Plan(name="p", workloads=(spec,), compositions=(("compile",),)), fork_server)
    found = toolchain.learn(prepared, fork_server)
    assert found is not None and list(found.rglob("*.so"))
    stamps = {file: file.stat().st_mtime_ns for file in found.rglob("*")}
    assert toolchain.learn(prepared, fork_server) == found
    assert {file: file.stat().st_mtime_ns for file in found.rglob("*")} == stamps
    assert [folder.name for folder in found.parent.iterdir() if folder.name.startswith("toolchain")] == [found.name]
