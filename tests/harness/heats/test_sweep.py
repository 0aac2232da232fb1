"""Whole sweeps over real processes: records, statuses, certificates, resuming and further repetitions."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tests.planted  # noqa: F401  the sweep composes the planted techniques in this process too
from bench.spec import Plan, Protocol, WorkloadSpec
from harness.heats.arm import Arm
from harness.heats.sweep import Sweep, check_resumable, command
from harness.preparation.prepared import Prepared, prepare, template
from harness.processes.fork_server import ForkServer
from harness.record import Record, Status
from reports.text import dry_run
from reports.wording.view import notes
from results.compare import compare, most_telling
from tests.conftest import LEAST, SHORT

Run = Callable[..., tuple[Any, list[Record]]]


def by_label(records: list[Record]) -> dict[str, Record]:
    return {record.techniques: record for record in records if not record.copy}


def test_equal_work_is_certified(sweep: Run) -> None:
    _, records = sweep(("accumulate_4",), ("ddp_2",), ("adamw_fused",))
    found = by_label(records)
    assert {record.status for record in records} == {Status.OK}
    reference = found["fp32"].certificate
    assert reference is not None and reference.first_losses is not None
    # The baseline's further processes do the same work, and need not prove it again.
    assert sorted(record.copy for record in records if record.techniques == "fp32") == [0, 1]
    for record in found.values():
        work = record.certificate
        assert work is not None and work.first_losses is not None
        assert work.tokens_per_update == reference.tokens_per_update == 8 * 32
        assert work.first_losses == pytest.approx(reference.first_losses, abs=1e-3)
        assert work.attention_kernels
        assert work.updates == len(record.measurement.losses)
        assert record.measurement.round_index
        assert record.step_flops and record.step_flops > 0
    assert found["ddp_2"].world_size == 2


@pytest.mark.parametrize("family", ["gpt2/nano", "bert/nano"])
def test_every_family_runs(sweep: Run, family: str) -> None:
    _, records = sweep(("accumulate_4",), models=(family,))
    assert [record.status for record in records] == [Status.OK, Status.OK]


def test_unequal_work_is_caught_and_never_ranked(sweep: Run) -> None:
    planted = ("planted_half_batch", "planted_idle_optimizer", "planted_cached_loss", "planted_frozen_half")
    prepared, records = sweep(*((name,) for name in planted), ("adamw_fused",))
    found = by_label(records)
    assert {name: found[name].status for name in planted} == dict.fromkeys(planted, Status.UNEQUAL_WORK)
    assert "4.0 samples an update reached the model, 8.0 in the baseline" in str(found["planted_half_batch"].reason)
    assert "no parameter moved" in str(found["planted_idle_optimizer"].reason)
    assert "on every batch" in str(found["planted_cached_loss"].reason)
    assert "trained" in str(found["planted_frozen_half"].reason)
    rows = {row.techniques: row for row in compare(records, prepared.machine)}
    assert all(rows[name].speedup is None and rows[name].verdict is None for name in planted)
    assert rows["adamw_fused"].speedup is not None


def test_failures_become_records_and_the_others_finish(sweep: Run) -> None:
    expected = {
        "planted_raises": Status.CRASHED,
        "planted_hangs": Status.TIMEOUT,
        "planted_kills_itself": Status.CRASHED,
        "planted_nan": Status.DIVERGED,
        "planted_unsupported": Status.UNSUPPORTED,
        "planted_out_of_memory": Status.OOM,
        "tf32": Status.UNSUPPORTED,
        "adamw_fused": Status.OK,
        "fp32": Status.OK,
    }
    protocol = dataclasses.replace(SHORT, timeout_s=10)
    _, records = sweep(*((name,) for name in expected if name != "fp32"), protocol=protocol, repetitions=2)
    found = by_label(records)
    assert {label: record.status for label, record in found.items()} == expected
    assert all(record.reason for record in records if record.status is not Status.OK)
    repetitions = {label: sum(item.techniques == label and not item.copy for item in records) for label in expected}
    # An arm that ran out of memory among others runs again with only the baseline, and then by itself, which makes two
    # more records of the baseline.
    once = {label: 2 if status is Status.OK else 1 for label, status in expected.items()}
    assert repetitions == once | {"fp32": 4}


def test_telemetry_is_sampled_and_missing_parts_say_why(sweep: Run) -> None:
    _, records = sweep(("adamw_fused",))
    for record in records:
        measured = record.measurement
        assert len(measured.sample_t_s) == len(measured.sample_cpu_pct) >= 1
        assert max(measured.sample_cpu_pct) > 0
        assert measured.sample_gpu_util_pct == []
        assert any("GPU" in reason for reason in measured.unknown)
        assert measured.peak_memory_bytes and measured.peak_memory_bytes > 0


@pytest.mark.long
def test_a_budget_buys_more_repetitions(sweep: Run) -> None:
    _, records = sweep(("adamw_fused",), budget_s=8.0, protocol=LEAST)
    repetitions = {record.repetition for record in records}
    assert len(repetitions) > 1
    assert repetitions == set(range(len(repetitions)))
    seeds = {record.repetition: record.seed for record in records}
    assert len(set(seeds.values())) == len(repetitions)


@pytest.mark.usefixtures("undisturbed")
def test_a_run_is_resumed_where_it_stopped(fork_server: ForkServer, text_folder: Path, tmp_path: Path) -> None:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=str(text_folder))
    plan = Plan(name="p", workloads=(spec,), compositions=(("adamw_fused",), ("adam",)), repetitions=2, protocol=SHORT)
    prepared = prepare(plan, fork_server)
    kept: list[Record] = []

    class Enough(Exception):
        pass

    def keep(record: Record) -> None:
        kept.append(record)
        if len(kept) == 4:
            raise Enough

    def sweep(keep: Callable[[Record], None], finished: list[Record]) -> Sweep:
        return Sweep(
            prepared,
            run_id="r",
            keep=keep,
            choose=lambda records: most_telling(records, prepared.machine),
            finished=finished,
            log=tmp_path / "log",
        )

    with pytest.raises(Enough):
        sweep(keep, []).run(fork_server)
    more: list[Record] = []
    sweep(more.append, kept[:4]).run(fork_server)
    measured = [(item.techniques, item.repetition) for item in (*kept[:4], *more)]
    for label in ("adamw_fused", "adam"):
        assert sorted(repetition for name, repetition in measured if name == label) == [0, 1]
    rows = {row.techniques: row for row in compare([*kept[:4], *more], prepared.machine)}
    assert rows["adam"].repetitions == rows["adamw_fused"].repetitions == 2
    elsewhere = [dataclasses.replace(kept[0], machine_id="other")]
    with pytest.raises(ValueError, match="another machine"):
        check_resumable(prepared, elsewhere, prepared.machine)
    older = dataclasses.replace(prepared.machine, packages=prepared.machine.packages | {"torch": "1.0"})
    with pytest.raises(ValueError, match="other package versions"):
        check_resumable(prepared, kept, older)


def test_what_does_not_fit_beside_the_baseline_is_measured_by_itself(
    sweep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.heats.race.free_bytes", lambda device, arms: 0)
    alive: list[int] = []
    start, end = Arm.start, Arm.end

    def started(arm: Arm, fork_server: ForkServer) -> None:
        start(arm, fork_server)
        alive.append(alive[-1] + 1 if alive else 1)

    def ended(arm: Arm) -> None:
        alive.append(alive[-1] - arm.alive)
        end(arm)

    monkeypatch.setattr(Arm, "start", started)
    monkeypatch.setattr(Arm, "end", ended)
    prepared, records = sweep(("adamw_fused",), ("adam",), repetitions=2)
    assert max(alive) == 1
    assert all(record.status is Status.OK and record.alone for record in records)
    measured = sorted((record.techniques, record.repetition) for record in records)
    assert measured == [(label, repetition) for label in ("adam", "adamw_fused", "fp32") for repetition in (0, 1)]
    rows = {row.techniques: row for row in compare(records, prepared.machine)}
    assert rows["adam"].speedup is not None and rows["adam"].alone
    assert any("by itself" in note for note in notes(rows["adam"], rows["fp32"]))


def test_memory_for_some_splits_the_heat(sweep: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.heats.race.free_bytes", lambda device, arms: 0 if len(arms) > 1 else 1 << 40)
    _, records = sweep(("adamw_fused",), ("adam",))
    parts = {record.techniques: [] for record in records}  # type: dict[str, list[int]]
    for record in records:
        parts[record.techniques].append(record.heat_part)
    assert sorted(parts["fp32"]) == [0, 1]
    assert sorted(parts["adam"] + parts["adamw_fused"]) == [0, 1]
    assert not any(record.alone for record in records)


@pytest.mark.long
def test_the_largest_batch_is_looked_for_and_measured_by_itself(sweep: Run) -> None:
    _, records = sweep(("largest_batch",), ("adam",), protocol=LEAST)
    found = {record.techniques: [] for record in records}  # type: dict[str, list[Record]]
    for record in records:
        found[record.techniques].append(record)
    assert [record.alone for record in found["largest_batch"]] == [True]
    assert [record.alone for record in found["adam"]] == [False]
    assert sorted(record.alone for record in found["fp32"]) == [False, True]
    assert found["largest_batch"][0].status is Status.OK and found["largest_batch"][0].batch > 8


def test_an_arm_that_comes_late_is_certified_like_the_others(
    fork_server: ForkServer, text_folder: Path, tmp_path: Path
) -> None:
    """An arm for which the first repetition had no time, next to one that was certified there."""
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=str(text_folder))
    plan = Plan(name="p", workloads=(spec,), compositions=(("adam",), ("planted_half_batch",)), protocol=SHORT)
    prepared = prepare(plan, fork_server)

    def sweep(finished: list[Record]) -> Sweep:
        made = Sweep(
            prepared,
            run_id="r",
            keep=lambda record: None,
            choose=lambda records: [],
            finished=finished,
            log=tmp_path / "log",
        )
        made._fork_server, made._caches = fork_server, tmp_path
        return made

    (entry,) = prepared.entries
    baseline, adam, late = prepared.trials(entry)
    first = sweep([])
    first._heat(entry, [baseline, adam], 0, math.inf)
    second = sweep(first.records)
    second._heat(entry, [baseline, adam, late], 1, math.inf)
    found = by_label(second.records[len(first.records) :])
    assert found["planted_half_batch"].status is Status.UNEQUAL_WORK
    assert "4.0 samples an update" in str(found["planted_half_batch"].reason)


def test_a_budget_that_is_too_small_for_all_says_what_it_left_out(
    fork_server: ForkServer, text_folder: Path, tmp_path: Path
) -> None:
    names = ("gpt2/nano", "bert/nano")
    specs = tuple(WorkloadSpec(model=name, batch=8, sequence=32, corpus=str(text_folder)) for name in names)
    plan = Plan(
        name="p",
        workloads=specs,
        compositions=(("adamw_fused",), ("adam",), ("sgd",)),
        repetitions=2,
        budget_s=0.001,
        protocol=LEAST,
    )
    prepared = prepare(plan, fork_server)
    kept: list[Record] = []
    pauses: list[int] = []

    def sweep(finished: list[Record], prepared: Prepared) -> Sweep:
        return Sweep(
            prepared,
            run_id="r",
            keep=kept.append,
            choose=lambda records: most_telling(records, prepared.machine),
            paused=lambda: pauses.append(len(kept)),
            finished=finished,
            log=tmp_path / "log",
        )

    first = sweep([], prepared)
    first.run(fork_server)
    # Every workload has its baseline, and there were no repetitions.
    assert [(record.workload, record.techniques) for record in kept] == [(name, "fp32") for name in names]
    left_out = {(trial.workload.name, trial.label) for trial in first.unmeasured}
    assert left_out == {(name, label) for name in names for label in ("adamw_fused", "adam", "sgd")}
    assert pauses == [1, 2]
    again = sweep(kept[:2], dataclasses.replace(prepared, plan=dataclasses.replace(plan, budget_s=None)))
    again.run(fork_server)
    assert not again.unmeasured


@pytest.mark.long
@pytest.mark.usefixtures("undisturbed")
@pytest.mark.parametrize("is_short", [False, True])
def test_an_arm_that_takes_much_longer_than_others_waits_for_them(
    fork_server: ForkServer, text_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_short: bool
) -> None:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=str(text_folder))
    compositions = (("planted_dear",), ("adamw_fused",))
    # The median of several steps, because one may be delayed on a busy machine.
    protocol = dataclasses.replace(LEAST, warmup_s=60.0, warmup_min_steps=3, warmup_max_steps=3)
    plan = Plan(
        name="p", workloads=(spec,), compositions=compositions, repetitions=2, budget_s=600.0, protocol=protocol
    )
    prepared = prepare(plan, fork_server)
    kept: list[Record] = []
    made = Sweep(prepared, run_id="r", keep=kept.append, choose=lambda records: [], log=tmp_path / "log")
    # Even the least number of steps takes this arm too long: each takes over half a second, not milliseconds.
    monkeypatch.setattr(Sweep, "_most_s", lambda *_: 2.0)
    if is_short:
        monkeypatch.setattr(Sweep, "_taken_up", lambda *_: None)
    made.run(fork_server)
    seen = [(record.repetition, record.techniques) for record in kept if not record.copy]
    first, second = seen[:2], seen[2:4]
    assert set(first) == {(0, "fp32"), (0, "adamw_fused")} and set(second) == {(1, "fp32"), (1, "adamw_fused")}
    assert set(seen[4:]) == (set() if is_short else {(2, "fp32"), (2, "planted_dear")})
    assert {record.status for record in kept} == {Status.OK}
    assert [trial.label for trial in made.unmeasured] == (["planted_dear"] if is_short else [])
    # The arm that was put off has not displaced the others.
    assert not any(record.alone for record in kept)
    if is_short:
        said = dry_run.unmeasured(made.unmeasured, plan, tmp_path, made.put_off)
        assert re.search(r"no time for gpt2/nano: planted_dear \(its first repetition takes [\d.]+ m?s or more\)", said)


def test_what_an_arm_may_take_is_a_few_shares_of_the_first_repetition(
    fork_server: ForkServer, text_folder: Path, tmp_path: Path
) -> None:
    spec = WorkloadSpec(model="gpt2/nano", batch=8, sequence=32, corpus=str(text_folder))
    plan = Plan(name="p", workloads=(spec,), compositions=(("adam",), ("sgd",)), repetitions=4, protocol=LEAST)
    prepared = prepare(plan, fork_server)
    made = Sweep(prepared, run_id="r", keep=lambda _: None, choose=lambda _: [], log=tmp_path / "log")
    (entry,) = prepared.entries
    own = template(plan, prepared.machine, entry, "r")
    # What cannot run here is recorded from the start.
    made.records.append(dataclasses.replace(own, techniques="tf32", status=Status.UNSUPPORTED))
    assert made._most_s(entry, 120.0) == pytest.approx(3 * 120.0 / (4 * 3))
    made.records.append(own)
    # In a resumed run, what is left to measure is not put off again.
    assert made._most_s(entry, 120.0) == math.inf


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 10**6}, "batch 1000000 is more than the .* samples"),
        ({"sequence": 5000}, "sequence 5000 is longer than the 1024 positions"),
        ({"corpus": "/no/such"}, "data '/no/such' does not exist"),
        ({"batch": 7}, "batch 7 of gpt2/nano does not divide over the 2 ranks of ddp_2"),
        ({"model": "gpt2/none"}, "model 'gpt2/none' is unknown"),
    ],
)
def test_bad_plans_are_refused_before_anything_runs(
    fork_server: ForkServer, text_folder: Path, options: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"model": "gpt2/nano", "batch": 8, "corpus": str(text_folder)} | options
    spec = WorkloadSpec(**settings)
    with pytest.raises(ValueError, match=message):
        prepare(Plan(name="p", workloads=(spec,), compositions=(("ddp_2",),), protocol=Protocol()), fork_server)


NO_LOSS = """
import torch
class Silent(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Embedding(300, 4)
    def forward(self, input_ids, labels):
        return self.body(input_ids)
def silent():
    return Silent()
"""


def test_a_module_without_a_loss_is_refused(fork_server: ForkServer, text_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.py"
    file.write_text(NO_LOSS)
    spec = WorkloadSpec(model=f"{file}:silent", corpus=str(text_folder))
    with pytest.raises(ValueError, match=r"gives a tensor of shape \(2, 128, 4\) as loss(.|\n)*return Workload\("):
        prepare(Plan(name="p", workloads=(spec,), compositions=()), fork_server)


def test_the_command_reproduces_the_arm() -> None:
    spec = WorkloadSpec(model="gpt2/nano", batch=4, corpus="/a b")
    plan = Plan(name="p", workloads=(spec,), compositions=(), repetitions=5)
    shown = command(plan, "gpt2/nano", "adam+compile")
    assert shown.startswith("trainpace run --model gpt2/nano --technique adam+compile --device cpu --batch 4 ")
    assert shown.endswith(" --data '/a b' --repetitions 5")


def test_an_arm_that_keeps_a_core_busy_while_parked_is_ended(
    sweep: Callable[..., Any],
) -> None:
    rivals = [("planted_spins",), ("adam",), ("adamw_fused",), ("sgd_momentum",)]
    _, records = sweep(*rivals)
    spinning = next(item for item in records if item.techniques == "planted_spins")
    assert spinning.status is Status.CRASHED
    assert spinning.reason is not None and "cores busy" in spinning.reason
    assert sum(item.status is Status.OK and not item.copy for item in records) == len(rivals)
