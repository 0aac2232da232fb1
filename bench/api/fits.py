"""What fits where: from models, techniques and cards to maps of memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import cards as known_cards
from bench import catalogue
from bench.api.finished import Where
from bench.api.runs import fork_server
from bench.composition import compose
from bench.plans import SAVING, SAVING_MOST
from bench.spec import Phase, WorkloadSpec, parse_composition
from bench.workload import families
from harness.preparation import fitting, pacing
from harness.preparation.fitting import Fit
from harness.preparation.prepared import look
from reports.formats import fits as formats
from reports.page import fits as page
from reports.text import fits as text

if TYPE_CHECKING:
    import pandas as pd

FEW = 2
"""Up to this many workloads are shown with everything that saves memory, and with the time of a step."""

SHARDED = (("fsdp2",), ("fsdp2", "checkpoint_activations"))
"""What several GPUs add to the compositions that make models fit."""


@dataclass(frozen=True, slots=True)
class Fits:
    """The result of `fit`: one row for each composition of each workload in each room (a card, or this machine's
    device), with the memory that it takes by batch size."""

    rows: tuple[Fit, ...]

    def plain(self) -> list[dict[str, Any]]:
        """Return one object per row, as `trainpace fit --format json` prints them."""
        return formats.plain(self.rows)

    def frame(self) -> pd.DataFrame:
        """Return the rows as a pandas frame."""
        import pandas as pd

        return pd.DataFrame(self.plain())

    def text(self) -> str:
        """Return the text that `trainpace fit` prints."""
        return text.render(self.rows)

    def _repr_html_(self) -> str:
        """What a notebook shows: the page in an iframe, which keeps its styles apart from the notebook's."""
        return f'<iframe srcdoc="{escape(self.html())}" style="width: 100%; height: 40em; border: 0"></iframe>'

    def html(self) -> str:
        """Return a self-contained HTML page."""
        return page.render(self.rows)


def fit(
    models: Sequence[str],
    techniques: Sequence[str] = (),
    *,
    cards: Sequence[str] = (),
    gpus: int = 1,
    memory: str | None = None,
    device: str | None = None,
    phase: Phase | None = None,
    batch: int | None = None,
    sequences: Sequence[int] = (),
    data: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    plugins: Sequence[Where] = (),
    check: bool = False,
    show: Callable[[int], object] = pacing.silent,
    show_check: Callable[[fitting.Fit], object] = pacing.silent,
) -> Fits:
    """Predict the memory that models take under techniques, batch by batch, as `trainpace fit` does.

    `models` are names as elsewhere; a family stands for all its sizes. `techniques` are compositions, such as
    "amp_bf16+compile"; by default common ones that save memory. The baseline is always included.

    The memory is that of `cards`, by name or size ("L40S", "24GB"), `gpus` of each; by default that of this machine's
    `device`, of which at most `memory` ("16GB") is used. `check` tests each prediction: it trains just below and just
    above the largest batch, with the memory limited. On this machine's CPU, the time of a step is predicted too if
    there are few workloads; `show` receives the number of operators still to be timed for that, and `show_check` each
    prediction before it is tested.

    Raises ValueError for bad input.
    """
    rooms = [fitting.on_card(found, gpus) for found in dict.fromkeys(map(known_cards.card, cards))]
    limit_bytes = None if memory is None else known_cards.memory(memory)
    if not models:
        raise ValueError("no model is named: give one with --model, as in --model gpt2/small")
    if rooms and (check or memory or device):
        raise ValueError("--card names a GPU that is not in this machine: leave out --check, --memory and --device")
    if check and limit_bytes is None:
        raise ValueError("--check fills all the memory that it may take: set a limit with --memory, as in --memory 2GB")
    if gpus > 1 and not rooms:
        raise ValueError(f"--gpus {gpus} only works with cards given by name: give --card too")
    compositions = tuple(dict.fromkeys(map(parse_composition, techniques)))
    if not plugins:
        catalogue.check(compositions)
    with fork_server([Path(file) for file in plugins]) as server:
        for names in compositions:
            compose(names)
        if not rooms:
            rooms = [fitting.here(look(server, device), limit_bytes)]
            if check and rooms[0].host.device != "cpu":
                raise ValueError("--check can limit memory on a CPU only: give --device cpu, or leave out --check")
        shape = WorkloadSpec(
            model="",
            phase=phase or Phase.PRETRAIN,
            batch=batch,
            corpus=data,
            text_column=text_column,
            label_column=label_column,
        )
        specs = [
            dataclasses.replace(shape, model=model, sequence=sequence)
            for model in _every(models)
            for sequence in dict.fromkeys(sequences) or (None,)
        ]
        usual = (*(SAVING if len(specs) <= FEW else SAVING_MOST), *(SHARDED if gpus > 1 else ()))
        asked = tuple(dict.fromkeys(((), *(compositions or usual))))
        found = fitting.fit(specs, asked, rooms, server)
        if len(specs) <= FEW and not cards and rooms[0].host.device == "cpu":
            found = fitting.with_paces(found, server, show=show)
        if check:
            found = [fitting.check(item, server, show=show_check) for item in found]
        return Fits(tuple(found))


def _every(models: Sequence[str]) -> list[str]:
    """The models, with each family replaced by all its sizes."""
    known = families()
    named = ([f"{model}/{size}" for size in known[model].sizes] if model in known else [model] for model in models)
    return list(dict.fromkeys(model for names in named for model in names))
