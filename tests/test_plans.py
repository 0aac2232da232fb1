"""The named plans, and what a user may put in place of their parts."""

import pytest

from bench.plans import PLANS, customise, known_plan
from bench.registry import compose
from bench.workload import families

GIB = 2**30


@pytest.mark.parametrize("name", list(PLANS))
def test_plans_name_what_exists(name: str) -> None:
    plan = known_plan(name)("cpu", 16 * GIB)
    assert plan.name == name
    for spec in plan.workloads:
        family, _, size = spec.model.partition("/")
        assert size in families()[family].sizes
    for names in plan.compositions:
        compose(names)


def test_full_takes_the_sizes_that_fit() -> None:
    models = {
        memory: [spec.model for spec in known_plan("full")("cuda", memory * GIB).workloads] for memory in (1, 16, 80)
    }
    assert models[1] == ["gpt2/small"]
    assert "gpt2/xl" in models[80]
    assert "gpt2/small" in models[16]
    assert "gpt2/xl" not in models[16]


def test_what_the_user_names_takes_the_plans_place() -> None:
    plan = known_plan("quick")("cpu", 16 * GIB)
    made = customise(plan, models=("gpt2/nano", "gpt2/nano"), compositions=(("adam",),), batch=4, repetitions=5)
    assert [(spec.model, spec.batch) for spec in made.workloads] == [("gpt2/nano", 4)]
    assert (made.compositions, made.repetitions, made.budget_s) == ((("adam",),), 5, None)
    assert customise(plan, budget_s=60.0).budget_s == 60.0
    assert customise(plan).budget_s == plan.budget_s


def test_unknown_plans_name_the_known() -> None:
    with pytest.raises(ValueError, match="plan 'fast' is unknown: give one of smoke, quick, full"):
        known_plan("fast")
