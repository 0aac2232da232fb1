"""The heats of a tuning: what it is asked for, and each sweep in a folder of its own."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bench import plain
from bench.composition import compose, unmet
from bench.corpus import cache_folder
from bench.facts import Objective
from bench.spec import BASELINE, Plan, Protocol, WorkloadSpec
from harness.heats.sweep import Certify, Choose, Sweep
from harness.preparation.forecast import Forecasts, forecast
from harness.preparation.prepared import Prepared
from harness.processes.fork_server import ForkServer
from harness.record import Record
from reports.text.live import Live
from results import folders, store
from results.compare import blocks
from results.contrasts import Block

FIRST_SHARE = 0.5
"""The largest share of a rung's time that the first look at all its rivals takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a tuning is asked for, as it is stored for resuming."""

    workload: WorkloadSpec
    device: str
    minutes: float
    memory_bytes: int | None
    allowed: tuple[str, ...]
    named: tuple[str, ...]
    seed: int
    objective: Objective = Objective.PACE

    @classmethod
    def read(cls, folder: Path) -> Asked:
        """Read what was asked for in a folder. Raises ValueError if no tuning was started there."""
        try:
            return plain.read(cls, json.loads((folder / "asked.json").read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{str(folder)!r} is not a folder of `trainpace tune` ({error}): give one that it made"
            ) from error

    def write(self, folder: Path) -> None:
        (folder / "asked.json").write_text(json.dumps(dataclasses.asdict(self), indent=2), encoding="utf-8")


@dataclass(slots=True, kw_only=True)
class Stages:
    """The `heats` of a climb so far, each with the recipe that its rivals were compared with; and everything
    `measured`, by stage. Each stage is kept in a folder in `folder`/records, and is not measured again when the tuning
    is resumed. `share` is the part of the time that the heats may use at present."""

    asked: Asked
    prepared: Prepared
    forecasts: Forecasts
    fork_server: ForkServer
    folder: Path
    heats: list[tuple[tuple[str, ...], list[Record]]] = dataclasses.field(default_factory=list)
    measured: dict[str, list[Record]] = dataclasses.field(default_factory=dict)
    begun_s: float = dataclasses.field(default_factory=time.monotonic)
    share: float = 1.0

    @property
    def workload(self) -> str:
        return self.asked.workload.name

    def can_run(self, names: tuple[str, ...]) -> bool:
        return unmet(compose(names), self.prepared.host, self.asked.workload.phase) is None

    @property
    def by(self) -> Objective:
        """The quantity that heats are judged by."""
        return Objective.ENERGY if self.asked.objective is Objective.ENERGY else Objective.PACE

    def left_s(self, share: float = 1.0) -> float:
        """Seconds left of a share of the time."""
        return self.begun_s + share * self.share * 60 * self.asked.minutes - time.monotonic()

    def beside(self, recipe: tuple[str, ...]) -> list[list[Record]]:
        """The heats with this recipe."""
        return [records for before, records in self.heats if before == recipe]

    def elsewhere(self, recipe: tuple[str, ...] | None = None) -> list[Block]:
        """The values of all arms in the heats with other recipes, or in all heats."""
        return [block for before, records in self.heats if before != recipe for block in blocks(records, self.by)]

    def too_large(self, compositions: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
        """The compositions that take more memory than is allowed, with how much they need, as far as that can be
        predicted."""
        limit = self.asked.memory_bytes
        if limit is None:
            return {}
        named = list(compositions)
        unknown = [names for names in named if (self.workload, "+".join(names) or BASELINE) not in self.forecasts.arms]
        if unknown:
            plan = dataclasses.replace(self.prepared.plan, compositions=tuple(unknown))
            more = forecast(dataclasses.replace(self.prepared, plan=plan), self.fork_server)
            arms = {**self.forecasts.arms, **more.arms}
            self.forecasts = dataclasses.replace(self.forecasts, arms=arms)
        sizes = {names: self.forecasts.of(self.workload, "+".join(names) or BASELINE).peak_bytes for names in named}
        return {names: f"needs {size / 1e9:.3g} GB" for names, size in sizes.items() if size and size > limit}

    def planned(self, stage: str) -> tuple[tuple[str, ...], ...]:
        """The compositions of a stage that was started before the tuning was resumed."""
        plan = self.folder / "records" / stage / "plan.json"
        return Plan.from_json(json.loads(plan.read_text(encoding="utf-8"))).compositions if plan.exists() else ()

    def measure(
        self,
        stage: str,
        compositions: Iterable[tuple[str, ...]],
        protocol: Protocol,
        *,
        repetitions: int,
        budget_s: float,
        choose: Choose,
        certify: Certify | None = None,
        lead: str = BASELINE,
    ) -> tuple[list[Record], list[str]]:
        """Measure a stage, unless it was measured before. Returns its records, earlier ones included, and the labels of
        the arms whose steps take too long for the time there is."""
        folder = self.folder / "records" / stage
        folder.mkdir(parents=True, exist_ok=True)
        finished = store.read(folder) if folders.has_records(folder) else []
        done = folder / "done.json"
        if done.exists():
            self.measured[stage] = finished
            return finished, json.loads(done.read_text(encoding="utf-8"))
        device = self.asked.device
        plan = dataclasses.replace(
            self.prepared.plan,
            name=stage,
            compositions=tuple(compositions),
            protocol=protocol.with_energy(device) if self.by is Objective.ENERGY else protocol.on(device),
            repetitions=repetitions,
            budget_s=budget_s,
        )
        (folder / "plan.json").write_text(json.dumps(plan.to_json(), indent=2), encoding="utf-8")
        prepared = dataclasses.replace(self.prepared, plan=plan, unsupported={})
        with Live(plan) as live:

            def keep(record: Record) -> None:
                store.write(record, folder, machine=prepared.machine, plan=plan)
                live.record(record)

            sweep = Sweep(
                prepared,
                run_id=f"{self.folder.name}-{stage}",
                keep=keep,
                choose=choose,
                certify=certify,
                show=live.progress,
                finished=finished,
                earlier=[record for _, records in self.heats for record in records],
                # Compile times are not measured here, and many arms compile the same code.
                shared_cache=cache_folder() / "compiled",
                forecasts=self.forecasts,
                takes_up=False,
                first_share=FIRST_SHARE if repetitions == 1 else 1.0,
                lead=lead,
                log=(self.folder / "arms.log").resolve(),
            )
            sweep.run(self.fork_server)
        self.measured[stage] = sweep.records
        put_off = [label for _, label in sweep.put_off]
        done.write_text(json.dumps(put_off), encoding="utf-8")
        return sweep.records, put_off
