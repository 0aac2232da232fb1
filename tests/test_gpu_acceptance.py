"""The GPU acceptance, run on a CPU in its small form: what it prints and how it ends, not what it measures."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from bench.registry import techniques
from bench.spec import GPU_TURN_STEPS, Protocol, WorkloadSpec
from tests import ROOT, nvml
from tests.gpu_acceptance import chip, each, memory
from tests.gpu_acceptance.__main__ import BUDGET_S, PARTS, Part, granted_s, main, run_part
from tests.gpu_acceptance.arms import prepared
from tests.gpu_acceptance.rows import Row, Verdict, exit_code, failed, judged, markdown, not_run, plain
from tests.gpu_acceptance.stand import Stand

CRASHES = '''
from bench.registry import Stage, technique


@technique(stage=Stage.MODEL, source="https://example.invalid/crash")
def own_crash(setup):
    """Raises an exception."""
    raise RuntimeError("it broke on purpose")
'''


def acceptance(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.gpu_acceptance", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | environment)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run it in this process: returns its exit code and what it writes to both streams."""

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gpu_acceptance", *words])
        try:
            code = main()
        except SystemExit as left:
            code = int(left.code or 0)
        return code, *capsys.readouterr()

    return run


def cells(table: str) -> list[Row]:
    """The rows of a table in Markdown."""
    lines = [line.removeprefix("| ").removesuffix(" |") for line in table.splitlines() if line.startswith("|")][2:]
    split = [line.split(" | ") for line in lines]
    return [Row(what=what, seen=seen, expected=due, verdict=Verdict(verdict)) for what, seen, due, verdict in split]


@pytest.mark.long
def test_without_a_gpu_that_can_be_used_it_says_why_in_one_line_and_exits_2(tmp_path: Path) -> None:
    built = torch.version.cuda is not None
    told = [(acceptance(CUDA_VISIBLE_DEVICES=""), "CUDA does not start" if built else "is built without CUDA")]
    if built:
        paths = os.pathsep.join([str(nvml.build_old(tmp_path)), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        told.append((acceptance(LD_LIBRARY_PATH=paths), "too old (580.95.05, CUDA 12.8)"))
    for done, reason in told:
        assert done.returncode == 2 and not done.stdout
        assert done.stderr.startswith("no GPU that can be used: ") and done.stderr.count("\n") == 1
        assert reason in done.stderr


@pytest.mark.long
@pytest.mark.alone
def test_every_part_comes_to_its_figures(tmp_path: Path) -> None:
    """Figures may be off, because step times on a CPU depend on other programs. The budget is far more than needed."""
    out = tmp_path / "table.md"
    options = ("--device", "cpu", "--budget", "1500", "--techniques", "sgd", "--markdown", "--out", str(out))
    done = acceptance(*options)
    assert done.stdout == out.read_text(), done.stderr
    assert "torch" in done.stdout.splitlines()[0] and "not installed" in done.stdout
    rows = {row.what: row for row in cells(done.stdout)}
    measured = (
        *("doctor", "smoke", "float32: step time / bare loop", "bfloat16: step time / bare loop"),
        *("float32: waiting for data", "telemetry on / off", "ladder: float32", "ladder: amp_bf16", "technique sgd"),
    )
    verdicts = {name: rows[name].verdict for name in measured if name in rows}
    assert len(verdicts) == len(measured) and set(verdicts.values()) <= {Verdict.OK, Verdict.OFF}, done.stdout
    assert {verdicts[name] for name in ("doctor", "smoke", "technique sgd")} == {Verdict.OK}, done.stdout
    assert "measured" in rows["matmul rate, float32"].seen and "GFLOP/s" in rows["matmul rate, float32"].seen
    assert "8 repetitions; inconclusive" in rows["gate of a base against itself"].seen, done.stdout
    gpu_only = (
        "energy counter / power x time",
        "throttle policies",
        "copies on the device",
        "ladder: amp_bf16+compile",
    )
    assert {rows[name].seen for name in gpu_only} == {"not run: needs a GPU"}
    predicted = {name for name in rows if name.startswith("peak memory, ") and "are predicted" in name}
    assert len(predicted) == 1 + len(memory.COMPOSITIONS)
    assert not [row for row in rows.values() if row.what in {part.name for part in PARTS} - {"doctor", "smoke"}]
    assert Verdict.FAILED not in {row.verdict for row in rows.values()}, done.stdout
    assert done.returncode == exit_code(list(rows.values()))


@pytest.mark.long
def test_a_technique_that_fails_is_a_row(tmp_path: Path) -> None:
    plugin = tmp_path / "crashes.py"
    plugin.write_text(CRASHES)
    words = ("--parts", "techniques", "--techniques", "tf32,sgd,own_crash", "--plugin", str(plugin))
    done = acceptance("--device", "cpu", "--markdown", *words)
    rows = {row.what.removeprefix("technique "): row for row in cells(done.stdout)}
    assert rows["own_crash"].verdict is Verdict.FAILED and "it broke on purpose" in rows["own_crash"].seen
    assert rows["tf32"].verdict is Verdict.OK and "refused" in rows["tf32"].seen
    assert rows["sgd"].verdict is Verdict.OK and len(rows) == 3
    assert done.returncode == 1


@pytest.mark.long
def test_a_part_that_fails_is_a_row_and_what_has_no_time_is_no_failure(
    inside: Callable[..., tuple[int, str, str]],
) -> None:
    code, table, told = inside("--device", "cpu", "--parts", "techniques", "--techniques", "no_such", "--markdown")
    assert [row.verdict for row in cells(table)] == [Verdict.FAILED], told
    assert "'no_such' is unknown" in table and code == 1
    code, table, _ = inside("--device", "cpu", "--budget", "1", "--markdown")
    assert {row.verdict for row in cells(table)} == {Verdict.NOT_RUN}, table
    assert [row.what for row in cells(table)] == [part.name for part in PARTS] and code == 0
    code, _, told = inside("--parts", "doctor,nothing")
    assert code == 2 and "'nothing' is unknown" in told


@pytest.fixture
def told() -> list[Row]:
    return []


@pytest.fixture
def stand(told: list[Row]) -> Iterator[Stand]:
    made = Stand(device="cpu", tell=told.append)
    yield made
    made.close()


def test_a_part_that_does_not_end_is_cut_off(stand: Stand, told: list[Row]) -> None:
    endless = Part(name="endless", run=lambda _: threading.Event().wait(), share=1, least_s=0.1)
    run_part(endless, stand, 0.1)
    assert [row.verdict for row in told] == [Verdict.NOT_RUN] and "cut off" in told[0].seen


def test_a_part_that_is_worth_nothing_in_parts_waits_for_its_share(stand: Stand, told: list[Row]) -> None:
    whole = Part(name="whole", run=lambda stand: stand.tell(failed("ran", "")), share=1, least_s=100, whole=True)
    other = dataclasses.replace(whole, name="other", share=3, least_s=60, whole=False)
    assert granted_s([whole, other], 500) == 125 and granted_s([whole, other], 399) is None
    assert granted_s([other, whole], 61) == 60 and granted_s([other, whole], 59) is None
    run_part(whole, stand, None)
    assert [row.verdict for row in told] == [Verdict.NOT_RUN] and "--parts whole" in told[0].seen


HEAD_S = 25.0
"""The time before the first part, a safe estimate: imports, and starting CUDA twice."""


def test_within_the_default_time_every_part_can_begin_whatever_the_others_take() -> None:
    left_s = BUDGET_S - HEAD_S
    for index, part in enumerate(PARTS):
        limit_s = granted_s(PARTS[index:], left_s)
        assert limit_s is not None, f"{part.name}: {left_s:.0f} s are left"
        left_s -= limit_s
    assert left_s >= 0


H100 = {
    "device_name": "NVIDIA H100 80GB HBM3",
    "gpus": 1,
    "capability": [9, 0],
    "gpu_memory_bytes": 80 << 30,
    "gpu_free_bytes": 79 << 30,
    "gpu_uuids": [nvml.FIRST],
    "cuda": "13.0",
    "threads": 16,
}
"""The answer of `harness.preparation.machine.probe_device` for a GPU."""


def test_a_gpu_is_looked_at_once_and_its_arms_take_turns_of_several_steps(told: list[Row]) -> None:
    """There is no GPU here, so a second look would raise ValueError."""
    stand = Stand(device="cuda", tell=told.append)
    stand.facts = H100
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=64)
    try:
        made = prepared(stand, [spec], [("amp_bf16",), ("ddp_2",)], Protocol())
    finally:
        stand.close()
    assert made.plan.protocol == Protocol().on("cuda") and made.plan.protocol.turn_steps == GPU_TURN_STEPS
    assert made.unsupported == {("gpt2/nano", "ddp_2"): "ddp_2 needs 2 GPUs, one for each rank; this run has 1"}
    assert made.machine.published_flops_per_s["bfloat16"] > 9e14 and not made.machine.matmul_flops_per_s


def test_what_is_tried_beside_another_or_elsewhere_is_there() -> None:
    assert set(each.BESIDE) | set(each.ELSEWHERE) <= set(techniques())


PEEKS = '''
from bench.registry import Stage, technique


@technique(stage=Stage.MODEL, source="https://example.invalid/peek")
def own_peek(setup):
    """Looks at a weight, of which there is none on fake tensors."""
    next(setup.model.parameters()).detach().numpy()
    return setup
'''


@pytest.mark.long
def test_a_forecast_that_fails_is_the_row_of_its_arm(told: list[Row], tmp_path: Path) -> None:
    plugin = tmp_path / "peeks.py"
    plugin.write_text(PEEKS)
    stand = Stand(device="cpu", tell=told.append, modules=[str(plugin)])
    try:
        row = memory.of_arm(stand, ("own_peek",))
        assert memory.of_arm(stand, ("sgd",)).verdict is Verdict.NOT_RUN
    finally:
        stand.close()
    assert row.verdict is Verdict.FAILED and row.seen.startswith("no prediction: "), row


def test_peak_memory_is_held_against_what_was_predicted() -> None:
    assert memory.row("fp32", peak_bytes=10**9, predicted_bytes=10**9).verdict is Verdict.OK
    assert memory.row("fp32", peak_bytes=10**9, predicted_bytes=10**9 * 6 // 5).verdict is Verdict.OFF


def test_a_policy_that_would_drop_every_repetition_is_off(stand: Stand, told: list[Row]) -> None:
    chip.tell_policy(stand, "thermal", 0.0, 8.0, window_s=8.0)
    chip.tell_policy(stand, "thermal", 5.0, 5.0, window_s=8.0)
    chip.tell_policy(stand, "reliability", 0.0, 8.0, window_s=8.0)
    chip.tell_policy(stand, "power", 0.0, "NVML says Not Supported", window_s=8.0)
    assert [row.verdict for row in told] == [Verdict.OFF, Verdict.OK, Verdict.OK, Verdict.NOT_RUN]


def test_the_table_wraps_what_is_long_and_ends_by_its_worst_row() -> None:
    good = judged("a | b", "word " * 40, "x", holds=True)
    assert exit_code([good, not_run("c", "no time left")]) == 0
    assert exit_code([good, dataclasses.replace(good, verdict=Verdict.OFF)]) == 1
    assert exit_code([failed("c", "first line\nlast line")]) == 1
    assert failed("c", "first line\nlast line").seen == "last line"
    lines = plain(["head"], [good]).splitlines()
    assert lines[0] == "head" and max(map(len, lines)) < 160 and len(lines) > 5
    assert cells(markdown(["head"], [good]))[0].what == "a / b"
