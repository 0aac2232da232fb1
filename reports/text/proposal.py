"""Whether a change is worth keeping, for a terminal."""

from __future__ import annotations

from reports.wording import quantity
from reports.wording.worth import loss, ratio
from results.proposal import Proposal


def render(found: Proposal) -> str:
    """The verdict, what it rests on, and how strictly it was judged."""
    lines = [f"{found.verdict}: {'; '.join(found.reasons)}", "", f"base  {found.base}", f"head  {found.head}"]
    if found.p is not None:
        lines += ["", f"time to the loss  {ratio(found.time_ratio)} of the base's"]
        if found.learns_alike:
            lines.append("updates           the same: its losses and gradients are the base's")
        else:
            lines.append(f"updates           {ratio(found.updates_ratio)}, over {found.seeds} seeds")
        lines.append(f"step              {ratio(found.step_ratio)}, over {found.repetitions} repetitions")
    if found.target_loss is not None:
        lines.append(
            f"held-out loss     base {loss(found.base_loss)}, head {loss(found.head_loss)} after equally many updates"
        )
    lines += [
        "",
        f"{found.judged_before} proposals were judged before; the level of this test is {found.level:.2g}. "
        f"It took {quantity.duration(found.seconds)} in all.",
    ]
    return "\n".join(lines)
