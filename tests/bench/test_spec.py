"""Trial, Plan and their validation."""

import json

import pytest

from bench.spec import Plan, Protocol, WorkloadSpec, parse_composition

SPEC = WorkloadSpec(model="gpt2/nano", batch=4)


def test_plan_survives_json() -> None:
    plan = Plan(
        name="p",
        workloads=(SPEC, WorkloadSpec(model="bert/nano", corpus="/text")),
        compositions=(("compile", "amp_bf16"), ("adam",)),
        budget_s=12.5,
        protocol=Protocol(rounds=7),
    )
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_baseline_is_in_every_heat_exactly_once() -> None:
    plan = Plan(name="p", workloads=(SPEC,), compositions=((), ("adam",)))
    assert [trial.label for trial in plan.trials(SPEC)] == ["fp32", "adam"]


@pytest.mark.parametrize(
    ("text", "names"),
    [("amp_bf16+compile", ("amp_bf16", "compile")), ("fp32", ()), (" adam + fp32 ", ("adam",))],
)
def test_compositions_are_parsed(text: str, names: tuple[str, ...]) -> None:
    assert parse_composition(text) == names


@pytest.mark.parametrize("text", ["", "adam+", "+adam", "adam+adam"])
def test_bad_compositions_name_themselves(text: str) -> None:
    with pytest.raises(ValueError, match="technique"):
        parse_composition(text)


@pytest.mark.parametrize("field", ["batch", "sequence"])
def test_shapes_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} 0 "):
        WorkloadSpec(**{"model": "m", field: 0})  # type: ignore[arg-type]


def test_plans_reject_nonsense() -> None:
    with pytest.raises(ValueError, match="no workload"):
        Plan(name="p", workloads=(), compositions=())
    with pytest.raises(ValueError, match="repetitions 0"):
        Plan(name="p", workloads=(SPEC,), compositions=(), repetitions=0)
    with pytest.raises(ValueError, match="rounds_min 0"):
        Protocol(rounds_min=0)
