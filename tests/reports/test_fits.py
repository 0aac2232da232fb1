"""What fits: in words, as text, as data and as a page."""

from __future__ import annotations

import dataclasses

import pytest

from bench.cards import card
from bench.host import Host
from harness.preparation.fitting import Checked, here, on_card
from reports.formats import fits as formats
from reports.page import fits as page
from reports.text import fits as text
from reports.wording import fits
from reports.wording.fits import State
from tests.reports import fitted
from tests.reports.fitted import MIB

CPU = here(Host(device="cpu", memory_bytes=1 << 40), 4000 * MIB)
CARD = on_card(card("24GB"))


def test_what_fits_as_it_is_says_up_to_where() -> None:
    said = fits.answer(fitted.fits(CPU, "m", 1000, 100))
    assert said == "m at 512 tokens, batch 8 fits as it is (1.76 GiB, 3.91 GiB free), up to batch 30."


def test_what_does_not_names_the_ways_by_what_they_change() -> None:
    group = fitted.fits(CPU, "m", 1000, 600)
    assert fits.answer(group) == (
        "m at 512 tokens, batch 8 does not fit as it is (5.66 GiB, 3.91 GiB free). It fits under "
        "checkpoint_activations (does not change what is learned) and amp_bf16+checkpoint_activations (changes "
        "rounding)."
    )
    assert fits.race(group) == (
        "trainpace run --model m --batch 8 --technique checkpoint_activations "
        "--technique amp_bf16+checkpoint_activations"
    )


def test_where_nothing_helps_the_largest_batch_that_does_is_named() -> None:
    group = fitted.fits(CPU, "m", 1000, 2000)
    assert fits.answer(group).endswith(
        "nor under any technique whose memory is known. The largest batch is 6, under amp_bf16+checkpoint_activations."
    )
    assert fits.race(group) is None
    assert fits.answer(fitted.fits(CPU, "m", 5000, 1)).endswith("any technique whose memory is known.")


def test_on_a_gpu_there_is_a_range_in_which_only_trying_tells() -> None:
    group = fitted.fits(CARD, "m", 3976, 2500)
    assert "batch 8 may fit as it is" in fits.answer(group)
    shown = fits.by_batch(group)
    states = dict(zip(shown.columns, (cell.state for cell in shown.lines[0].cells), strict=True))
    assert (states["batch 4"], states["batch 8"], states["batch 16"]) == (
        State.FITS,
        State.MAY_FIT,
        State.DOES_NOT_FIT,
    )
    assert shown.lines[0].cells[-1].text == "7 to 8"
    assert {cell.state for cell in shown.lines[-1].cells} == {State.UNKNOWN}


def test_an_unknown_baseline_is_unknown() -> None:
    (unknown,) = (item for item in fitted.fits(CPU, "m", 1, 1) if item.reason)
    assert fits.answer([unknown]).startswith("m at 512 tokens, batch 8: plain training is unknown: what torch.compile")


def test_text_has_a_map_for_each_room() -> None:
    said = text.render(fitted.several())
    assert said.count("Largest batch") == 2
    assert "x: does not fit at its own batch" in said
    lines = [line for line in said.splitlines() if line.startswith("fp32 ")]
    # gpt2/small fits on both as it is, gpt2/large on the larger card, gpt2/xl on none.
    assert [line.count(" x") for line in lines] == [2, 1]


def test_one_workload_is_shown_batch_by_batch() -> None:
    said = text.render(fitted.fits(CPU, "m", 1000, 100))
    header = next(line for line in said.splitlines() if line.startswith("technique"))
    assert header.split("  ")[0] == "technique" and "batch 8" in header and header.endswith("largest batch")
    assert "compile is unknown: what torch.compile keeps in memory is its own choice" in said


def test_data_has_every_row_and_unknown_is_null() -> None:
    rows = formats.plain(fitted.several())
    assert len(rows) == 2 * 3 * len(fitted.COMPOSITIONS)
    for row in rows:
        if row["techniques"] == "compile":
            assert row["reason"] and row["fits"] is row["largest_batch"] is row["predicted_peak_bytes"] is None
        else:
            assert row["reason"] is None and row["largest_batch"] <= row["may_fit_up_to"]


def test_the_page_shows_what_the_text_shows() -> None:
    found = fitted.several()
    shown = page.render(found)
    for _, each in fits.groups(found):
        for group in each:
            assert fits.answer(group) in shown
    assert "gpt2/xl at 512 tokens, batch by batch" in shown and "http:" not in shown and "https:" not in shown


@pytest.mark.parametrize(
    ("check", "said"),
    list(
        zip(
            fitted.CHECKS,
            (
                "batch 30 trained, batch 33 did not",
                "batch 30 did NOT train, though it should fit, batch 33 did not",
                "batch 4 trained TOO, though it should not fit",
                "not checked: it took too long",
            ),
            strict=True,
        )
    ),
)
def test_what_came_of_checks_is_told(check: Checked, said: str) -> None:
    found = [dataclasses.replace(fitted.fits(CPU, "m", 1000, 100)[0], checked=check)]
    assert fits.checked(found) == [f"m at 512 tokens, fp32: {said}"]
    assert said in text.render(found) and said in page.render(found)
