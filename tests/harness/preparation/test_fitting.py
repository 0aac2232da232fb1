"""What fits: at which batch the memory is full, and that training confirms the prediction."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.cards import card
from bench.host import Host
from bench.spec import WorkloadSpec
from harness.preparation import fitting
from harness.preparation.fitting import Checked, Fit, fit, here, on_card
from harness.processes.fork_server import ForkServer

LIMIT_BYTES = 300 << 20


@pytest.fixture(scope="module")
def found(fork_server: ForkServer, text_folder: Path) -> dict[str, Fit]:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=64, corpus=str(text_folder))
    room = here(Host(device="cpu", cores=2, memory_bytes=8 << 30), LIMIT_BYTES)
    compositions = ((), ("accumulate_4",), ("checkpoint_activations",), ("compile",), ("tf32",), ("ddp_2",))
    return {item.label: item for item in fit([spec], compositions, [room], fork_server)}


def test_the_largest_batch_is_the_last_that_fits(found: dict[str, Fit]) -> None:
    for label in ("fp32", "accumulate_4", "checkpoint_activations", "ddp_2"):
        item = found[label]
        largest = item.largest_batch()
        assert largest and largest == item.may_fit_up_to(), "on a CPU there is no doubt"
        assert item.fits(largest) is True and item.fits(largest + item.divisor) is False
        assert (item.peak_bytes(largest) or 0) <= LIMIT_BYTES < (item.peak_bytes(largest + item.divisor) or 0)
    plain, parts = found["fp32"].largest_batch() or 0, found["accumulate_4"].largest_batch() or 0
    assert parts % 4 == 0 and 3 * plain < parts
    assert found["accumulate_4"].peak_bytes(6) is None, "it does not divide"
    assert sum(found["fp32"].kinds.values()) == found["fp32"].peak_bytes(8)


def test_what_is_unknown_says_why(found: dict[str, Fit]) -> None:
    for label, why in (("compile", "cannot be predicted"), ("tf32", "this run is on cpu")):
        item = found[label]
        assert why in str(item.reason)
        assert item.largest_batch() is item.fits(8) is item.peak_bytes(8) is None


@pytest.mark.parametrize(
    "label", ["fp32", pytest.param("checkpoint_activations", marks=pytest.mark.long), "accumulate_4"]
)
def test_training_does_what_was_said(found: dict[str, Fit], fork_server: ForkServer, label: str) -> None:
    """The limit is real: a batch just below it trains, and one just above it does not."""
    checked = fitting.check(found[label], fork_server).checked
    assert checked and checked.reason is None
    assert checked.ran and checked.refused
    (inside, trained), (outside, refused) = checked.ran, checked.refused
    assert trained and refused
    assert inside < (found[label].largest_batch() or 0) < outside < 1.35 * inside


def test_a_wrong_prediction_is_found_out(found: dict[str, Fit], fork_server: ForkServer) -> None:
    """If half the memory was predicted, more fits than promised; if twice the memory, less."""
    plain = found["fp32"]
    too_little, too_much = (
        dataclasses.replace(
            plain,
            growths=tuple(
                dataclasses.replace(growth, lines=tuple((held, factor * each) for held, each in growth.lines))
                for growth in plain.growths
            ),
        )
        for factor in (0.5, 2)
    )
    for wrong, ran, refused in ((too_little, False, True), (too_much, True, False)):
        checked = fitting.check(wrong, fork_server).checked
        assert checked and checked.ran and checked.refused
        assert (checked.ran[1], checked.refused[1]) == (ran, refused)


def test_what_cannot_be_checked_says_so(found: dict[str, Fit], fork_server: ForkServer) -> None:
    assert fitting.check(found["compile"], fork_server).checked is None
    assert fitting.check(found["ddp_2"], fork_server).checked == Checked(
        ran=None, refused=None, reason="several ranks share a limit only as a group"
    )


def test_a_card_is_not_needed_to_ask_about_it(fork_server: ForkServer, text_folder: Path) -> None:
    spec = WorkloadSpec(model="gpt2/tiny", corpus=str(text_folder))
    rooms = [on_card(card("T4")), on_card(card("L40S"), gpus=2)]
    found = fit([spec], ((), ("amp_bf16",), ("fsdp2",)), rooms, fork_server)
    old, new = ({item.label: item for item in found if item.room == room} for room in rooms)
    assert "2 GPUs" in str(old["fsdp2"].reason) and new["fsdp2"].reason is None
    # Each GPU holds half of what is sharded.
    plain, sharded = new["fp32"].peak_bytes(8) or 0, new["fsdp2"].peak_bytes(8) or 0
    assert sharded < plain
    for item in (new["fp32"], new["fsdp2"]):
        sure, most = item.largest_batch() or 0, item.may_fit_up_to() or 0
        assert 0 < sure < most
        assert item.fits(sure) is True and item.fits(2 * most) is False
        between = (sure + most) // 2 // item.divisor * item.divisor
        assert item.fits(between) is None, "only trying it will tell"
