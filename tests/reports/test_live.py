"""What a run shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.spec import Plan, WorkloadSpec
from harness.heats.sweep import Progress
from harness.record import Status
from reports.text.listing import aligned
from reports.text.live import Live
from tests.samples import record

PLAN = Plan(name="demo", workloads=(WorkloadSpec(model="gpt2/nano"),), compositions=(("adam",),))
STEP = Progress(workload="gpt2/nano", techniques="adam", repetition=0, phase="warm-up", done=1, total=4)


@pytest.mark.parametrize("terminal", [True, False])
def test_arms_appear_as_they_finish(terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=120)
    with Live(PLAN, console) as live:
        live.progress(STEP)
        live.record(record("adam", 0, [0.1, 0.2, 0.3]))
    shown = output.getvalue()
    assert "gpt2/nano" in shown
    assert "200.00 ms" in shown
    assert ("\x1b[" in shown) == terminal
    assert ("1/4 arms" in shown) == terminal


def test_a_failure_shows_its_reason() -> None:
    import dataclasses

    output = io.StringIO()
    with Live(PLAN, Console(file=output, force_terminal=False)) as live:
        live.progress(STEP)
        live.record(dataclasses.replace(record("adam", 0, []), status=Status.OOM, reason="too big"))
    assert "adam: oom: too big" in output.getvalue()


def test_columns_are_aligned() -> None:
    shown = aligned([{"name": "a", "value": None}, {"name": "longer", "value": [1, 2]}])
    assert shown.splitlines() == ["name    value", "a       -", "longer  1, 2"]
