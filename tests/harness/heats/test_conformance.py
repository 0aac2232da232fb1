"""Every technique does the work that it claims, on both families: the checks of `trainpace check-technique`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import tests.planted  # noqa: F401  the check composes a planted technique in this process too
from bench.composition import compose, unmet
from bench.host import Host
from bench.registry import techniques
from harness.heats import conformance
from harness.heats.conformance import Finding
from harness.processes.fork_server import ForkServer
from harness.record import Status
from tests.conftest import LEAST
from tests.few_shapes import MODEL as FEW_SHAPES
from tests.findings import composition, hold

HERE = Host(device="cpu")
OWN = [name for name, item in techniques().items() if item.family != "planted"]
RUNNABLE = [name for name in OWN if not unmet(compose([name]), HERE)]

ANY_MODEL = {
    *("optimizers", "low_bit_optimizers", "schedules", "accumulation", "batch_size"),
    *("data", "local_sgd", "parameter_server", "distributed"),
}
"""Families that see only parameters, gradients and batches: one model shows as much about them as another."""

ON_BOTH_BY_THEMSELVES = {"sharding", "pipeline"}
"""Families that tests/bench/techniques/test_distributed.py tries on both text models."""

ANY_GRAPH = {"compile_dynamic", "compile_max_autotune", "compile_reduce_overhead"}
"""Ways of compiling that differ only in how a graph is handled. A small model compiles quickly."""

ANOTHER_VALUE = {"dropout_10", "dropout_20"}
"""Techniques that are another one with a different number."""

ONE_MODEL = {
    *(name for name in RUNNABLE if techniques()[name].family in ANY_MODEL),
    *ANOTHER_VALUE,
}
"""Techniques that are tried only on the first model."""

EACH_SHAPE = {name for name in RUNNABLE if techniques()[name].family == "low_bit_optimizers"}
"""They compile their update for each parameter shape, of which other models have a dozen, and see nothing else."""

SMALL = EACH_SHAPE | (ANY_GRAPH & set(RUNNABLE))
"""Techniques that are tried only on a small model."""

CASES = [
    (model, name)
    for model in conformance.MODELS
    for name in RUNNABLE
    if name not in SMALL
    and (
        model == conformance.MODELS[0]
        or (name not in ONE_MODEL and techniques()[name].family not in ON_BOTH_BY_THEMSELVES)
    )
]
CASES += [(FEW_SHAPES, name) for name in sorted(SMALL)]

REFUSED = {
    ("gpt2/nano", "flex_attention"): "has no backward pass",
    ("bert/nano", "flex_attention"): "has no backward pass",
    ("gpt2/nano", "sdpa_flash"): "without dropout",
    ("bert/nano", "sdpa_flash"): "without dropout",
    ("bert/nano", "chunked_loss"): "causal",
}
"""What one of the two models, or a CPU, really cannot do, and why; it is found only when the technique is applied."""


@pytest.fixture(scope="module")
def findings(fork_server: ForkServer, text_folder: Path) -> dict[tuple[str, str], Finding]:
    """All findings on a model in one run: the baseline is shared, and the machine is examined once."""
    found: list[Finding] = []
    for model in (*conformance.MODELS, FEW_SHAPES):
        alone = [composition(name) for measured, name in CASES if measured == model]
        found += conformance.run(alone, fork_server, models=[model], batch=16, corpus=str(text_folder))
    return {(finding.workload, finding.techniques): finding for finding in found}


@pytest.mark.long
@pytest.mark.parametrize(("model", "name"), CASES)
def test_a_technique_keeps_its_word(findings: dict[tuple[str, str], Finding], model: str, name: str) -> None:
    finding = findings[model, "+".join(composition(name))]
    hold(finding, unmet(compose(composition(name)), HERE), REFUSED.get((model, name)))
    if finding.status is Status.OK and techniques()[name].is_numerics_only:
        assert finding.loss_difference is not None


@pytest.mark.long
@pytest.mark.parametrize(("model", "batch"), [("vit/nano", 4), ("resnet/nano", 8), ("whisper/nano", 4)])
def test_images_and_speech_are_trained_too_or_refused_with_a_reason(
    fork_server: ForkServer, model: str, batch: int
) -> None:
    """Leaves out what one model shows, and compilation, which takes minutes here. Differences from text models appear
    in the first updates. Several ranks are tried on one of the models."""
    chosen = [name for name in RUNNABLE if name not in ONE_MODEL | SMALL and techniques()[name].family != "compile"]
    compositions = [composition(name) for name in chosen if techniques()[name].ranks == 1 or model == "vit/nano"]
    found = conformance.run(compositions, fork_server, models=[model], batch=batch, sequence=None, protocol=LEAST)
    wrong = [finding for finding in found if not finding.passed]
    assert not wrong
    assert all(finding.reason for finding in found if finding.status is Status.UNSUPPORTED)
    assert sum(finding.status is Status.OK for finding in found) > len(found) / 3


def test_beside_others_a_technique_does_what_it_does_alone(fork_server: ForkServer) -> None:
    partners = [("accumulate_2",), ("checkpoint_activations",)]
    findings = conformance.check("planted_divides_again", fork_server, models=["gpt2/nano"], partners=partners)
    found = {finding.techniques: finding for finding in findings}
    parts = found.pop("planted_divides_again+accumulate_2")
    assert [finding.status for finding in found.values()] == [Status.OK, Status.OK]
    assert parts.status is Status.UNEQUAL_WORK
    assert "beside accumulate_2 it trains differently than alone" in str(parts.reason)


def test_only_a_reason_that_was_known_excuses_an_arm() -> None:
    ok = Finding(workload="gpt2/nano", techniques="x", status=Status.OK, loss_difference=None, reason=None)
    refused = replace(ok, status=Status.UNSUPPORTED, reason="x needs a GPU; this run is on cpu")
    hold(ok, None, None)
    hold(refused, "x needs a GPU; this run is on cpu", None)
    hold(refused, None, "needs a GPU")
    for finding, unmet_reason, refusal in (
        (refused, None, None),
        (refused, "x needs 2 GPUs", None),
        (refused, None, "needs 2 GPUs"),
        (ok, "x needs a GPU; this run is on cpu", None),
        (ok, None, "needs a GPU"),
        (replace(ok, status=Status.CRASHED, reason="x needs a GPU"), None, "needs a GPU"),
    ):
        with pytest.raises(AssertionError):
            hold(finding, unmet_reason, refusal)


def test_what_cannot_run_here_says_why() -> None:
    reasons = {name: unmet(compose([name]), HERE) for name in OWN}
    told = {name: reason for name, reason in reasons.items() if reason}
    known = "needs .*GPU|needs (8|16|32|64) ranks|for the phases infer|adamw_loop is the baseline itself on cpu"
    assert all(re.search(known, reason) for reason in told.values()), told
