"""Which sizes of a family are measured."""

from __future__ import annotations

import dataclasses

import pytest

from bench.plans import crossover, customise, known_plan
from bench.spec import Overrides, Plan, WorkloadSpec
from harness.preparation.narrowing import Size, narrowed, telling
from harness.preparation.pacing import Pace
from harness.preparation.prepared import Prepared, prepare
from harness.processes.fork_server import ForkServer
from reports.text import predicted
from tests.bench.test_plans import HERE


def sizes(*speedups: float | None, bearable: int | None = None) -> list[Size]:
    """Sizes of a family, with the predicted speed-ups of one technique."""
    reach = len(speedups) if bearable is None else bearable
    return [Size(speedups={"amp_bf16": value}, bearable=place < reach) for place, value in enumerate(speedups)]


def test_both_sides_of_where_it_begins_to_pay_are_measured_and_the_ends() -> None:
    assert telling(sizes(0.5, 0.6, 0.7, 1.5, 2.0, 2.5, 3.0)) == {0, 2, 3, 6}


def test_what_cannot_be_told_is_measured() -> None:
    assert telling(sizes(0.5, 0.6, 1.05, 1.5, 2.0)) == {0, 1, 2, 3, 4}
    assert telling(sizes(0.5, None, 0.6, 0.7, 0.8)) == {0, 1, 2, 4}
    assert telling(sizes(*[None] * 4)) == {0, 1, 2, 3}


def test_three_sizes_make_a_curve_and_those_nearest_to_one_are_taken() -> None:
    assert telling(sizes(1.6, 1.5, 1.4, 1.3, 2.0)) == {0, 3, 4}
    assert telling(sizes(1.6, 1.5)) == {0, 1}


def test_steps_that_take_too_long_are_not_waited_for() -> None:
    assert telling(sizes(0.5, 0.6, 0.7, 1.5, 2.0, bearable=3)) == {0, 1, 2}
    assert telling(sizes(0.5, 0.6, bearable=0)) == {0}


def test_several_techniques_begin_to_pay_in_several_places() -> None:
    both = [
        Size(speedups={"amp_bf16": one, "checkpoint_activations": other}, bearable=True)
        for one, other in ((0.5, 0.5), (1.5, 0.5), (1.5, 0.5), (1.5, 1.5), (1.5, 1.5), (1.5, 1.5))
    ]
    assert telling(both) == {0, 1, 2, 3, 5}


def family(fork_server: ForkServer, plan: Plan) -> Prepared:
    specs = tuple(
        WorkloadSpec(model=f"gpt2/{size}", batch=4, sequence=32) for size in ("nano", "tiny", "mini", "small")
    )
    return prepare(dataclasses.replace(plan, workloads=specs), fork_server)


@pytest.mark.long
def test_a_plan_that_narrows_leaves_out_what_tells_nothing(fork_server: ForkServer) -> None:
    plan = Plan(name="mine", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("amp_bf16",),))
    steps_s = {"nano": (0.01, 0.03), "tiny": (0.03, 0.07), "mini": (0.1, 0.2), "small": (3.0, 1.0)}
    paces = {
        (f"gpt2/{size}", label): Pace(step_time_s=step_s)
        for size, both in steps_s.items()
        for label, step_s in zip(("fp32", "amp_bf16"), both, strict=True)
    }
    every, none = narrowed(family(fork_server, plan), paces)
    assert len(every.entries) == 4 and not none
    wide = family(fork_server, dataclasses.replace(plan, narrows=True))
    made, left_out = narrowed(wide, paces)
    assert [entry.spec.model for entry in made.entries] == ["gpt2/nano", "gpt2/tiny", "gpt2/mini"]
    told = predicted.left_out(left_out)
    assert told.startswith("gpt2/small is not measured: its steps take too long here; predicted: amp_bf16 3.00x")
    # If nothing is known, the number of parameters decides.
    assert [entry.spec.model for entry in narrowed(wide, {})[0].entries] == ["gpt2/nano", "gpt2/tiny", "gpt2/mini"]
    assert len(narrowed(wide, paces, begun=["gpt2/small"])[0].entries) == 4


def test_only_a_family_is_narrowed() -> None:
    plan = crossover(HERE)
    assert plan.narrows and plan == known_plan("crossover")(HERE)
    assert [spec.model for spec in plan.workloads][-1] == "gpt2/small"
    assert customise(plan, HERE, Overrides(models=("bert",))).narrows
    assert not customise(plan, HERE, Overrides(models=("gpt2/nano", "gpt2/tiny"))).narrows
    assert Plan.from_json(plan.to_json()) == plan
