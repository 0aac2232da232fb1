"""Any composition of up to four techniques either trains with a valid certificate, or is refused before it runs."""

from __future__ import annotations

import itertools
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.composition import compose, ranks, unmet
from bench.host import Host
from bench.registry import techniques
from harness import conformance
from harness.nursery import Nursery
from harness.record import Status

HERE = Host(device="cpu")
COMPILING = ("compile", "flex_attention", "adamw_4bit", "adamw_8bit", "adamw_fp8")
"""Families and names whose every arm waits half a minute for a compiler: they have their own compositions below."""

DRAWN = [
    name
    for name, item in techniques().items()
    if item.family not in ("planted", *COMPILING) and name not in COMPILING and not unmet(compose([name]), HERE)
]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.sampled_from(DRAWN), min_size=2, max_size=4, unique=True))
def test_a_composition_trains_or_is_refused(nursery: Nursery, text_folder: Path, names: list[str]) -> None:
    refusals = {conformance.conflict(order) for order in itertools.permutations(names)}
    if None not in refusals:
        assert all(sum(repr(name) in str(refusal) for name in names) == 2 for refusal in refusals)
        return
    assert refusals == {None}
    orders = {tuple(item.name for item in compose(order)) for order in itertools.permutations(names)}
    assert len(orders) == 1
    if "batch_per_rank" in names and ranks(compose(names), HERE).replicas == 1:
        return  # Refused when it is built, because it says so itself: it grows the batch with the ranks.
    (finding,) = conformance.run([tuple(names)], nursery, models=["gpt2/nano"], batch=64, corpus=str(text_folder))
    assert finding.status is Status.OK, finding


def test_compiled_compositions_train(nursery: Nursery, text_folder: Path) -> None:
    compositions = [
        ("compile", "amp_bf16", "accumulate_2", "adamw_fused"),
        ("compile_blocks", "checkpoint_activations", "ddp_2"),
        ("adamw_8bit", "pure_bf16", "freeze_embeddings"),
    ]
    findings = conformance.run(compositions, nursery, models=["gpt2/nano"], corpus=str(text_folder))
    assert [finding.status for finding in findings] == [Status.OK] * len(compositions), findings
