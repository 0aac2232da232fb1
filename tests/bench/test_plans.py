"""The named plans, and what users may replace in them."""

import dataclasses

import pytest

from bench.composition import compose, unmet
from bench.host import Host
from bench.plans import customise, known_plan, plans, sizes_of
from bench.registry import techniques
from bench.spec import Overrides, WorkloadSpec
from bench.workload import families

GIB = 2**30
HERE = Host(device="cpu", memory_bytes=16 * GIB)


def gpu_host(memory_bytes: int, gpus: int = 1) -> Host:
    return Host(device="cuda", gpus=gpus, memory_bytes=memory_bytes, capability=(9, 0))


@pytest.mark.parametrize("name", list(plans()))
def test_plans_name_what_exists(name: str) -> None:
    plan = known_plan(name)(HERE)
    assert plan.name == name
    for spec in plan.workloads:
        family, _, size = spec.model.partition("/")
        assert size in families()[family].sizes
    for names in plan.compositions:
        compose(names)


def test_what_the_user_names_takes_the_plans_place() -> None:
    plan = known_plan("quick")(HERE)
    asked = Overrides(models=("gpt2/nano", "gpt2/nano"), compositions=(("adam",),), batch=4, repetitions=5)
    made = customise(plan, HERE, asked)
    assert [(spec.model, spec.batch) for spec in made.workloads] == [("gpt2/nano", 4)]
    assert (made.compositions, made.repetitions, made.budget_s) == ((("adam",),), 5, None)
    assert customise(plan, HERE, Overrides(budget_s=60.0)).budget_s == 60.0
    assert customise(plan, HERE, Overrides()).budget_s == plan.budget_s


def test_unknown_plans_name_the_known() -> None:
    with pytest.raises(ValueError, match="plan 'fast' is unknown: give one of smoke, quick, full, each"):
        known_plan("fast")


def test_each_runs_every_technique() -> None:
    assert {names for (names,) in known_plan("each")(HERE).compositions} == set(techniques())


def test_a_family_stands_for_its_sizes_that_can_be_trained() -> None:
    shape = WorkloadSpec(model="gpt2/nano", batch=4)
    assert sizes_of("gpt2", HERE, shape) == [
        WorkloadSpec(model=f"gpt2/{size}", batch=4) for size in ("nano", "tiny", "mini")
    ]
    assert "gpt2/large" in {spec.model for spec in sizes_of("gpt2", gpu_host(80 * GIB), shape)}
    made = customise(known_plan("crossover")(HERE), HERE, Overrides(models=("bert",)))
    assert [spec.model for spec in made.workloads][:2] == ["bert/nano", "bert/tiny"]
    assert len({(spec.batch, spec.sequence) for spec in made.workloads}) == 1


def test_scaling_goes_up_to_the_devices_there_are() -> None:
    strong = known_plan("strong_scaling")(gpu_host(80 * GIB, gpus=4))
    weak = known_plan("weak_scaling")(gpu_host(80 * GIB, gpus=4))
    assert strong.compositions == (("ddp_2",), ("ddp_4",))
    assert weak.compositions == (("ddp_2", "batch_per_rank"), ("ddp_4", "batch_per_rank"))
    # Five hosts with eight GPUs each.
    hosts = dataclasses.replace(gpu_host(80 * GIB, gpus=8), hosts=5, ranks_each=8)
    strong, weak = (known_plan(name)(hosts) for name in ("strong_scaling", "weak_scaling"))
    assert [names for (names,) in strong.compositions] == ["ddp_2", "ddp_4", "ddp_8", "ddp_16", "ddp_32"]
    assert {unmet(compose(names), hosts) for names in (*strong.compositions, *weak.compositions)} == {None}
    # One sample for each rank; the batch is that of all ranks together.
    assert strong.workloads[0].batch == 32
    assert weak.workloads[0].batch == 16
