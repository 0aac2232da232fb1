"""How long the steps of each rank take, and how much of that time it waits for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.record import Machine, Record, Status
from reports.charts import canvas
from reports.charts.chart import Chart, Section
from reports.charts.forest import named, shortened
from reports.charts.svg import Tip, inline
from reports.wording import quantity, view
from results.compare import Comparison

_WIDTH, _TOP, _ROW, _BAR, _LEFT, _BELOW = 400, 4, 18, 0.62, 170, 40
_LABEL_CHARACTERS = 28
_WORK, _WAIT = 0, 8


@dataclass(frozen=True, slots=True)
class _Rank:
    """A rank in the first repetition that ended ok. `exposed` is the share of its step that it waits; None: unknown."""

    arm: Comparison
    number: int
    step_s: float
    exposed: float | None
    host: str | None

    @property
    def text(self) -> str:
        parts = [f"{self.arm.techniques}, rank {self.number}", f"step {quantity.duration(self.step_s)}"]
        if self.exposed is not None:
            parts.append(f"{quantity.percent(100 * self.exposed)} of it waiting for others")
        return ", ".join([*parts, *([f"on {self.host}"] if self.host else [])])


@canvas.styled
def ranks(comparisons: Sequence[Comparison], records: Sequence[Record], machine: Machine, name: str) -> Chart | None:
    """A bar for each rank of every drawn arm with several ranks."""
    shown = [rank for item in comparisons if view.is_drawn(item) for rank in _ranks(item, records)]
    if not shown:
        return None
    height = _ROW * len(shown)
    figure = canvas.sheet(_WIDTH, _TOP + height + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - 8, height)
    longest_s = max(rank.step_s for rank in shown)
    area.set_xlim(0, longest_s)
    area.set_ylim(len(shown), 0)
    area.set_yticks([])
    area.spines["left"].set_visible(False)
    tips = {}
    for index, rank in enumerate(shown):
        work_s = rank.step_s * (1 - (rank.exposed or 0.0))
        area.barh(index + 0.5, work_s, _BAR, color=canvas.KINDS[_WORK], linewidth=0)
        area.barh(index + 0.5, rank.step_s - work_s, _BAR, work_s, color=canvas.KINDS[_WAIT], linewidth=0)
        # Invisible, but it can be pointed at.
        area.barh(index + 0.5, rank.step_s, _BAR, color=canvas.PAPER, alpha=0)[0].set_gid(f"rank-{index}")
        tips[f"rank-{index}"] = Tip(text=rank.text, arm=view.arm_id(rank.arm))
        where = f" on {rank.host}" if rank.host else ""
        label = shortened(f"{named(rank.arm)} {rank.number}{where}", _LABEL_CHARACTERS)
        canvas.write(figure, 0, _TOP + _ROW * (index + 0.5), label, size=canvas.SMALL)
    ticks = canvas.even_ticks(longest_s)
    area.set_xticks(ticks, [quantity.duration(tick, 2) for tick in ticks])
    area.set_xlabel("step time", labelpad=5)
    whole = {gid: tip.arm or "" for gid, tip in tips.items()}
    label = f"The steps of each rank on {shown[0].arm.workload}"
    return Chart(svg=inline(figure, name, label, tips, panels=whole, focusable=True))


def _ranks(item: Comparison, records: Sequence[Record]) -> list[_Rank]:
    own = (record for record in records if (record.techniques, record.status) == (item.techniques, Status.OK))
    seen = next((record for record in own if len(record.measurement.rank_step_times_s) > 1), None)
    if seen is None:
        return []
    steps_s, hosts = seen.measurement.rank_step_times_s, seen.measurement.rank_hosts
    replayed = next(
        (record.certificate for record in records if record.techniques == item.techniques and record.certificate), None
    )
    exposed = (replayed.rank_exposed_shares if replayed else None) or []
    return [
        _Rank(
            arm=item,
            number=number,
            step_s=step_s,
            exposed=exposed[number] if len(exposed) == len(steps_s) else None,
            host=hosts[number] if len(hosts) == len(steps_s) else None,
        )
        for number, step_s in enumerate(steps_s)
    ]


SECTIONS = (
    Section(
        name="ranks",
        rank=45,
        draw=lambda comparisons, records, machine, name: [ranks(comparisons, records, machine, name)],
        title="The ranks of an arm",
        words="One bar per rank, as long as its median step in one repetition. How long it waits for other ranks is "
        "taken from the replay.",
        lines={f"kind-{_WORK}": "at work", f"kind-{_WAIT}": "waiting for other ranks"},
        optional=True,
    ),
)
