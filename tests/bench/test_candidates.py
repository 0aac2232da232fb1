"""What may join a recipe: what trains the same model, unless more is allowed."""

from __future__ import annotations

import pytest

from bench.candidates import HONEST, candidates, changes, joined
from bench.host import Host
from bench.registry import techniques
from bench.spec import Phase

CPU = Host(device="cpu", cores=2)


def test_what_changes_the_training_is_left_out_with_the_option_that_lets_it_in() -> None:
    found = candidates(CPU, Phase.PRETRAIN, 16)
    assert {"compile", "adamw_fused", "amp_bf16"} <= set(found.names)
    assert all(techniques()[name].changes <= HONEST for name in found.names)
    assert found.left_out["sgd"] == 'changes the update rule; --allow "update rule" lets it take part'
    assert set(found.names) | set(found.left_out) == {
        name for name, item in techniques().items() if item.family not in {"planted", "idle"}
    }


def test_what_is_allowed_may_join() -> None:
    found = candidates(CPU, Phase.PRETRAIN, 16, allowed=changes(["update rule"]))
    assert {"sgd", "lion"} <= set(found.names)
    assert "lora" in found.left_out


def test_what_this_machine_or_batch_cannot_do_is_left_out() -> None:
    found = candidates(CPU, Phase.PRETRAIN, 15)
    assert "GPU" in found.left_out["tf32"]
    assert found.left_out["ddp_2"] == "batch 15 does not divide over its 2 ranks"
    assert "4 ranks" in found.left_out["ddp_4"]


def test_the_plainest_of_a_kind_is_tried_first() -> None:
    found = candidates(CPU, Phase.PRETRAIN, 16)
    first = {name: found.waits_for(name) for name in found.names}
    assert first["compile"] is first["ddp_2"] is first["adamw_fused"] is first["amp_bf16"] is None
    assert first["compile_blocks"] == "compile"
    assert first["zero_1"] == first["pipeline_gpipe"] == "ddp_2"
    assert first["accumulate_8"] == "accumulate_2"
    assert found.is_late("adamw_8bit") and not found.is_late("compile")
    # If the simplest one is not offered, nothing waits for it.
    assert candidates(CPU, Phase.PRETRAIN, 16, named=["compile_blocks"]).waits_for("compile_blocks") is None


@pytest.mark.parametrize(
    ("named", "told"),
    [("sgd", "technique 'sgd' changes the update rule: add --allow"), ("amp_bf61", "did you mean amp_bf16")],
)
def test_what_is_named_and_may_not_join_is_refused(named: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        candidates(CPU, Phase.PRETRAIN, 16, named=[named])


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(ValueError, match=r"allowed change 'rule' is unknown: give one of .*update rule"):
        changes(["rule"])


def test_a_technique_takes_the_place_of_the_one_that_it_excludes() -> None:
    assert joined((), "compile") == ("compile",)
    assert joined(("compile", "adamw_fused"), "compile_blocks") == ("adamw_fused", "compile_blocks")
    assert joined(("compile", "adamw_fused"), "amp_bf16") == ("compile", "adamw_fused", "amp_bf16")
