"""The times that trainpace reports against those of a bare loop, and times with telemetry against those without."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bench.spec import BASELINE, Protocol
from harness.processes.bare_loop import BareLoop, Window
from harness.record import Record, Status
from reports.wording.quantity import duration, share
from results import pace
from results.pace import step_time_s
from results.statistics import interval
from tests.gpu_acceptance.arms import check, only, prepared, raced, warm_arm
from tests.gpu_acceptance.rows import Row, failed, judged, within
from tests.gpu_acceptance.stand import Stand

PRECISIONS = {"float32": BASELINE, "bfloat16": "amp_bf16"}
"""The bare loop's number formats, and the arms that train in them."""

TRUE_WITHIN = (0.97, 1.03)
"""The bounds of a reported step time over that of a bare loop."""

FREE_WITHIN = (0.98, 1.02)
"""The bounds of a step time with telemetry over that without."""

WAIT_WITHIN = 0.05
"""How much the shares of the step spent waiting for data may differ."""

MOST_REPETITIONS = 8


def against_bare_loop(stand: Stand) -> None:
    """Both in fresh processes, one at a time, in random order in each repetition."""
    made = prepared(stand, [stand.spec], [("amp_bf16",)], Protocol())
    found = {precision: _Found() for precision in PRECISIONS}
    order = random.Random(0)
    try:
        for repetition in stand.repetitions(MOST_REPETITIONS):
            records: list[Record] = []
            bare: dict[str, Window] = {}
            for turn in order.sample(["arms", *PRECISIONS], 1 + len(PRECISIONS)):
                if turn == "arms":
                    records = raced(stand, only(made, [("amp_bf16",)], seed=repetition))
                else:
                    bare[turn] = bare_loop(stand, turn)
            for precision, label in PRECISIONS.items():
                found[precision].add(_ok(records, label), bare[precision])
    finally:
        for precision, item in found.items():
            for row in item.rows(precision) if item.bare else ():
                stand.tell(row)


@dataclass(slots=True, kw_only=True)
class _Found:
    """One entry per repetition: the reported step, its reported share of waiting for data, and the same of the bare
    loop."""

    reported_s: list[float] = field(default_factory=list)
    wait_shares: list[float] = field(default_factory=list)
    bare: list[Window] = field(default_factory=list)

    def add(self, record: Record, bare: Window) -> None:
        step_s, waited = step_time_s(record), pace.share(record, "data_wait_s")
        assert step_s is not None and waited is not None
        self.reported_s.append(step_s)
        self.wait_shares.append(waited)
        self.bare.append(bare)

    def rows(self, precision: str) -> list[Row]:
        bare_s = [item.step_s for item in self.bare]
        detail = f"{duration(statistics.median(self.reported_s))}, bare {duration(statistics.median(bare_s))}"
        waited, bare_waited = (
            statistics.median(self.wait_shares),
            statistics.median(item.data_wait_s / item.step_s for item in self.bare),
        )
        return [
            _ratio_row(f"{precision}: step time / bare loop", _logs(self.reported_s, bare_s), detail, TRUE_WITHIN),
            judged(
                f"{precision}: waiting for data",
                f"{share(waited)} of the counted steps, {share(bare_waited)} of the bare loop's",
                f"apart by at most {share(WAIT_WITHIN)}",
                holds=abs(waited - bare_waited) <= WAIT_WITHIN,
            ),
        ]


def _logs(times_s: Sequence[float], others_s: Sequence[float]) -> list[float]:
    return [math.log(time_s / other_s) for time_s, other_s in zip(times_s, others_s, strict=True)]


def bare_loop(stand: Stand, precision: str) -> Window:
    """One window of contiguous steps in a process that has the machine to itself."""
    shape = ("--batch", str(stand.spec.batch), "--sequence", str(stand.spec.sequence))
    with BareLoop(stand.spec.model, *shape, "--device", stand.device, "--dtype", precision) as bare:
        bare.warm_up()
        return bare.window(0.5 if stand.is_small else 3.0)


def _ok(records: list[Record], label: str) -> Record:
    record = next(record for record in records if record.techniques == label)
    if record.status is not Status.OK:
        raise RuntimeError(f"the arm {label} ended as {record.status}: {record.reason}")
    return record


def telemetry(stand: Stand) -> None:
    """Windows of a warm arm, alternately with and without telemetry, in several arms."""
    windows, window_s = (3, 0.2) if stand.is_small else (5, 0.6)
    watched = stand.gpus
    logs: list[float] = []
    order = random.Random(0)
    try:
        for _ in stand.repetitions(MOST_REPETITIONS):
            arm = warm_arm(stand, (), Protocol(sustained_s=window_s))
            own = arm.protocol
            times_s: dict[bool, list[float]] = {True: [], False: []}
            for _ in range(windows):
                for is_on in order.sample([True, False], 2):
                    arm.protocol = replace(own, telemetry=is_on)
                    arm.sustain(watched)
                    check(arm)
                    times_s[is_on] += arm.measurement.sustained_step_times_s
            arm.end()
            logs.append(math.log(statistics.median(times_s[True]) / statistics.median(times_s[False])))
    finally:
        if logs:
            stand.tell(_ratio_row("telemetry on / off", logs, "sustained steps", FREE_WITHIN))
    if not logs:
        stand.tell(failed("telemetry on / off", "no repetition came to its end"))


def _ratio_row(what: str, logs: list[float], detail: str, bounds: tuple[float, float]) -> Row:
    found = interval(logs)
    known = "unknown"
    if found.low is not None and found.high is not None:
        known = f"{math.exp(found.low):.4f}, {math.exp(found.high):.4f}"
    ratio = math.exp(found.estimate)
    seen = f"{ratio:.4f} [{known}] ({found.method}); {detail}"
    return judged(what, seen, f"{bounds[0]} to {bounds[1]}", holds=within(ratio, *bounds))
