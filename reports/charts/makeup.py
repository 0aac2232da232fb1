"""What a step consists of: for each arm a bar as long as its step, divided by kind of operator."""

from __future__ import annotations

from collections.abc import Sequence

from harness.evidence.kinds import Kind
from harness.record import Machine, Record
from reports.charts import canvas, roofline
from reports.charts.chart import Chart, Section
from reports.charts.forest import named, shortened
from reports.charts.svg import Tip, inline
from reports.wording import quantity, view
from results.compare import Comparison
from results.roofline import under_roof

_WIDTH, _TOP, _ROW, _BAR, _LEFT, _BELOW = 400, 4, 22, 0.62, 150, 40
_LABEL_CHARACTERS = 24


@canvas.styled
def makeup(comparisons: Sequence[Comparison], records: Sequence[Record], machine: Machine, name: str) -> Chart | None:
    """The step of every drawn arm with a profiled step, the fastest on top."""
    seen = {item.techniques: item for item in records if item.certificate and item.certificate.kinds}
    known = [item for item in comparisons if item.techniques in seen and item.step_time_s]
    shown = sorted(filter(view.is_drawn, known), key=lambda item: item.step_time_s or 0.0)
    if not shown:
        return None
    height = _ROW * len(shown)
    figure = canvas.sheet(_WIDTH, _TOP + height + _BELOW)
    area = canvas.axes(figure, _LEFT, _TOP, _WIDTH - _LEFT - 8, height)
    longest_s = max(item.step_time_s or 0.0 for item in shown)
    area.set_xlim(0, longest_s)
    area.set_ylim(len(shown), 0)
    area.set_yticks([])
    area.spines["left"].set_visible(False)
    tips = {}
    for index, item in enumerate(shown):
        record, step_s, begin_s = seen[item.techniques], item.step_time_s or 0.0, 0.0
        for kind, share in _shares(record):
            colour = canvas.KINDS[list(Kind).index(kind)]
            area.barh(index + 0.5, share * step_s, _BAR, begin_s, color=colour, linewidth=0)
            begin_s += share * step_s
        # Invisible, but it can be pointed at.
        area.barh(index + 0.5, step_s, _BAR, color=canvas.PAPER, alpha=0)[0].set_gid(f"arm-{index}")
        tips[f"arm-{index}"] = Tip(text=_told(item, record, machine), arm=view.arm_id(item))
        y = _TOP + _ROW * (index + 0.5)
        canvas.write(figure, 0, y, shortened(named(item), _LABEL_CHARACTERS), size=canvas.SMALL)
    ticks = canvas.even_ticks(longest_s)
    area.set_xticks(ticks, [quantity.duration(tick, 2) for tick in ticks])
    area.set_xlabel("step time", labelpad=5)
    label = f"What a step is made of on {shown[0].workload}, one bar per arm"
    whole = {gid: tip.arm or "" for gid, tip in tips.items()}
    return Chart(svg=inline(figure, name, label, tips, panels=whole, focusable=True))


def _shares(record: Record) -> list[tuple[Kind, float]]:
    certificate = record.certificate
    assert certificate is not None
    shares = dict(zip(certificate.kinds or (), certificate.kind_shares or (), strict=True))
    return [(kind, shares[kind]) for kind in Kind if kind in shares]


def _told(item: Comparison, record: Record, machine: Machine) -> str:
    step_s = item.step_time_s or 0.0
    shares = [(part, getattr(record.certificate, f"{part}_share")) for part in ("forward", "backward", "optimizer")]
    parts = [f"{part} {quantity.percent(100 * share)}" for part, share in shares if share is not None]
    reached = {seen.kind: f" ({roofline.reached(limit, seen)})" for seen, limit in under_roof(record, machine, step_s)}
    kinds = [
        f"{kind.value} {quantity.percent(100 * share)}{reached.get(kind, '')}"
        for kind, share in sorted(_shares(record), key=lambda pair: -pair[1])
    ]
    return f"{item.techniques}, step {quantity.duration(step_s)}: {', '.join(parts)}; by kind {', '.join(kinds)}"


SECTIONS = (
    Section(
        name="makeup",
        rank=30,
        draw=lambda comparisons, records, machine, name: [makeup(comparisons, records, machine, name)],
        title="What a step is made of",
        words="Each bar is as long as the arm's step and is divided by kind of operator, as in one profiled step of "
        "the replay. Profiling makes small operators longer, so the shares are rough. What an optimizer calls counts "
        "as the optimizer; the time between operators is Python, autograd and waiting.",
        lines={f"kind-{index}": kind.value for index, kind in enumerate(Kind)},
        nothing="no step was profiled, which so far is done only in a replay on a CPU, or no step time counts.",
    ),
)
