"""Any composition of up to four techniques either trains with a valid certificate or is refused before it runs."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from bench.composition import compose, ranks, unmet
from bench.host import Host
from bench.registry import techniques
from harness.heats import conformance
from harness.heats.conformance import Finding
from harness.processes.fork_server import ForkServer
from harness.record import Status
from tests.few_shapes import MODEL as FEW_SHAPES

HERE = Host(device="cpu")
REFUSED = ("sdpa_flash",)
"""Techniques that the model itself refuses when it is built: see tests/harness/heats/test_conformance.py."""

COMPILING = ("compile", "flex_attention", "adamw_4bit", "adamw_8bit", "adamw_fp8")
"""Families and names whose arms each wait half a minute for a compiler: they have their own compositions below."""

DRAWN = [
    name
    for name, item in techniques().items()
    if item.family not in ("planted", *COMPILING)
    and name not in (*COMPILING, *REFUSED)
    and not unmet(compose([name]), HERE)
]


def drawn(count: int) -> list[tuple[str, ...]]:
    """Random compositions of two to four techniques, the same ones each time."""
    chance = random.Random(0)
    return [tuple(chance.sample(DRAWN, chance.randint(2, 4))) for _ in range(count)]


def refused(names: tuple[str, ...]) -> set[str | None]:
    """The reasons for refusing the names, over all their orders."""
    return {conformance.conflict(order) for order in itertools.permutations(names)}


DRAWS = drawn(25)
TRAINED = [names for names in DRAWS if refused(names) == {None}]


@pytest.mark.parametrize("names", DRAWS, ids="+".join)
def test_a_composition_is_one_whatever_the_order(names: tuple[str, ...]) -> None:
    refusals = refused(names)
    if None not in refusals:
        assert all(sum(repr(name) in str(refusal) for name in names) == 2 for refusal in refusals)
        return
    assert refusals == {None}
    assert len({tuple(item.name for item in compose(order)) for order in itertools.permutations(names)}) == 1


@pytest.fixture(scope="module")
def findings(fork_server: ForkServer, text_folder: Path) -> dict[str, Finding]:
    found = conformance.run(TRAINED, fork_server, models=["gpt2/nano"], batch=64, corpus=str(text_folder))
    return {finding.techniques: finding for finding in found}


def told_when_built(names: tuple[str, ...]) -> str | None:
    """The refusal of a composition that depends on the number of ranks or on a part of the model, if any."""
    if "batch_per_rank" in names and ranks(compose(names), HERE).replicas == 1:
        return "grows the batch with the ranks"
    if "train_last_layers" in names and any(name.startswith("pipeline") for name in names):
        return "needs something to train on every rank"
    if "share_layers" in names and any(name.startswith("pipeline") for name in names):
        return "needs layers of their own"
    return None


@pytest.mark.long
@pytest.mark.parametrize("names", TRAINED, ids="+".join)
def test_a_composition_trains(findings: dict[str, Finding], names: tuple[str, ...]) -> None:
    finding = findings["+".join(names)]
    reason = told_when_built(names)
    if reason is None:
        assert finding.status is Status.OK, finding
    else:
        assert finding.status is Status.UNSUPPORTED and reason in str(finding.reason), finding


@pytest.mark.long
def test_compiled_compositions_train(fork_server: ForkServer, text_folder: Path) -> None:
    """In one process and in two."""
    chosen = {
        FEW_SHAPES: ("compile", "amp_bf16", "accumulate_2", "adamw_fused"),
        "gpt2/nano": ("compile_blocks", "checkpoint_activations", "ddp_2"),
    }
    for model, names in chosen.items():
        (finding,) = conformance.run([names], fork_server, models=[model], corpus=str(text_folder))
        assert finding.status is Status.OK, finding
