"""From a plan to heats, repetitions and records."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import shlex
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import temporary
from bench.composition import compose, declared
from bench.plans import CUSTOM, plans
from bench.registry import Change, techniques
from bench.spec import BASELINE, Phase, Plan, Trial, parse_composition
from harness.heats import budget
from harness.heats.heat import Heat
from harness.heats.race import Lineup, Race
from harness.message import Message
from harness.preparation import toolchain
from harness.preparation.forecast import NONE, Forecasts
from harness.preparation.prepared import Entry, Prepared, template
from harness.preparation.pretrain import pretrain
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer
from harness.record import Machine, Record, Status
from harness.telemetry.gpus import Gpus

Choose = Callable[[Sequence[Record]], list[tuple[str, list[str]]]]
"""From the records so far: workloads and labels, those first where another repetition would tell most."""

Certify = Callable[[Sequence[Record]], Collection[str]]
"""From the records so far: the labels of arms whose first updates are to be replayed."""


PRETRAINING = "pre-training"
"""The phase before the first repetition, in which checkpoints are made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the sweep is doing, for display only. `done` and `total` count arms in the minimum number of repetitions."""

    workload: str
    techniques: str
    repetition: int
    phase: str
    done: int
    total: int


def repetitions_wanted(plan: Plan, records: Sequence[Record]) -> int:
    """How many repetitions a workload with these records needs: the minimum, plus one for each disturbed repetition, at
    most doubling it; no extra ones if all were disturbed."""
    taken = {record.repetition for record in records if record.measurement.round_index}
    disturbed = {record.repetition for record in records if record.disturbed}
    return plan.repetitions + (0 if disturbed == taken else min(len(disturbed), plan.repetitions))


class Sweep:
    """Carries out a prepared plan. `keep` receives each record as it is finished."""

    def __init__(
        self,
        prepared: Prepared,
        *,
        run_id: str,
        keep: Callable[[Record], object],
        choose: Choose,
        show: Callable[[Progress], object] = lambda progress: None,
        paused: Callable[[], object] = lambda: None,
        finished: Sequence[Record] = (),
        earlier: Sequence[Record] = (),
        shared_cache: Path | None = None,
        forecasts: Forecasts = NONE,
        takes_up: bool = True,
        first_share: float = 1.0,
        lead: str = BASELINE,
        certify: Certify | None = None,
        log: Path,
    ) -> None:
        """`finished` are the records that the same run kept before it ended early; they are not measured again.
        `earlier` records of other runs show how long arms take to start. `paused` is called after each repetition,
        while no arm is alive. What the arms print is appended to `log`. `forecasts` say what arms will take, if known.
        `shared_cache` is a folder for everything compiled; compile time is then no longer what a user would see. The
        sweep measures arms that it has put off only if it `takes_up`. The first repetition takes at most `first_share`
        of the budget. `lead` is the label of an arm that others are also compared with. `certify` chooses, from the
        records so far, the arms whose first updates are replayed next; without it, all arms replay once they are
        measured."""
        self._prepared, self._plan = prepared, prepared.plan
        self._run_id, self._keep, self._choose, self._show, self._paused = run_id, keep, choose, show, paused
        self._earlier = list(earlier)
        self._records = list(finished)
        self._gpus = Gpus(self._plan.device, prepared.host.gpu_uuids)
        self._log, self._shared_cache, self._takes_up, self._first_share = log, shared_cache, takes_up, first_share
        self._lead, self._certify = lead, certify
        self._forecasts = forecasts
        self._toolchain: Path | None = None
        self._unable = {key: (Status.UNSUPPORTED, reason) for key, reason in prepared.unsupported.items()}
        self.put_off: dict[tuple[str, str], float] = {}
        """By workload and label, the seconds that an arm that was put off would have taken once it was warm."""

    @property
    def records(self) -> list[Record]:
        return self._records

    def run(self, fork_server: ForkServer) -> None:
        """Measure the minimum repetitions of every workload, then more where they tell most, while the budget lasts.

        The first repetition of each workload gets an equal share of the budget. Arms that would take much more of it
        than others are put off until all others have their minimum repetitions. `unmeasured` lists the arms that there
        was no time for. A resumed run counts the time it has spent, but has the whole budget again to complete the
        minimum. Raises ArmFailed if the checkpoint that a workload starts from cannot be made.
        """
        self._pretrain(fork_server)
        opened = time.monotonic()
        started = opened - sum(record.measurement.active_s for record in self._records)
        self._record_unable()
        with temporary.folder("compiled") as folder:
            self._fork_server, self._caches = fork_server, folder
            # A shared cache keeps by itself what every compilation needs.
            if self._prepared.compiles and self._shared_cache is None:
                self._toolchain = toolchain.learn(self._prepared, fork_server)
            entries = self._prepared.entries
            for repetition in itertools.count():
                wanting = [entry for entry in entries if repetition < self._wanted(entry)]
                if not wanting:
                    break
                for index, entry in enumerate(wanting):
                    left_s = self._left_s(opened)
                    if repetition == 0:
                        share_s = self._first_share * left_s / (len(wanting) - index)
                        self._heat(entry, self._trials(entry), repetition, share_s, self._most_s(entry, share_s))
                        continue
                    trials = self._affordable(wanting[index:], repetition, left_s)
                    if {trial.label for trial in trials} - self._disqualified(entry.spec.name) - {BASELINE}:
                        self._heat(entry, trials, repetition, left_s)
            while self._plan.budget_s is not None:
                left_s = self._left_s(started)
                chosen = (self._taken_up(left_s) if self._takes_up else None) or self._next(left_s)
                if chosen is None:
                    return
                entry, trials = chosen
                self._heat(entry, trials, self._repetitions_of(entry), left_s)

    def _wanted(self, entry: Entry) -> int:
        return repetitions_wanted(self._plan, self._of(entry.spec.name))

    def _left_s(self, started: float) -> float:
        """Seconds left of the budget; infinite without a budget."""
        return math.inf if self._plan.budget_s is None else self._plan.budget_s - (time.monotonic() - started)

    @property
    def unmeasured(self) -> list[Trial]:
        """The arms that the budget left no time for."""
        known = {(record.workload, record.techniques) for record in self._records}
        return [
            trial
            for entry in self._prepared.entries
            for trial in self._trials(entry)
            if (entry.spec.name, trial.label) not in known
        ]

    def _most_s(self, entry: Entry, share_s: float) -> float:
        """How long an arm may take once it is warm in the first repetition, given the share of time for all arms. A
        resumed run puts nothing off: what it has left to measure may be exactly those arms."""
        if any(record.techniques == BASELINE for record in self._of(entry.spec.name)):
            return math.inf
        return budget.DEAR * share_s / (self._plan.repetitions * len(self._trials(entry)))

    def _taken_up(self, left_s: float) -> tuple[Entry, list[Trial]] | None:
        """Arms of one workload that were put off and fit the time left; they are then no longer put off."""
        for entry in self._prepared.entries:
            name, spent_s = entry.spec.name, self._expected_s(entry, self._trials(entry)[:1])
            taken: list[str] = []
            for cost_s, label in sorted((cost_s, label) for (of, label), cost_s in self.put_off.items() if of == name):
                # Warm-up takes two steps; the replay and the memory count run on fewer threads.
                spent_s += 2 * cost_s
                if spent_s < left_s:
                    taken.append(label)
            for label in taken:
                del self.put_off[name, label]
            if taken:
                return entry, [trial for trial in self._trials(entry) if trial.label in (BASELINE, *taken)]
        return None

    def _next(self, left_s: float) -> tuple[Entry, list[Trial]] | None:
        """The most informative heat that fits the time left."""
        entries = {entry.spec.name: entry for entry in self._prepared.entries}
        for workload, labels in self._choose(self._records):
            entry = entries[workload]
            wanted = {BASELINE, *labels} - self._disqualified(workload)
            trials = [trial for trial in self._trials(entry) if trial.label in wanted]
            if len(trials) > 1 and self._expected_s(entry, trials) < left_s:
                return entry, trials
        return None

    def _affordable(self, due: Sequence[Entry], repetition: int, left_s: float) -> list[Trial]:
        """The arms of the first due workload to spend a repetition on: all, if the time left is enough for everything
        due in this repetition and the later ones of the minimum."""
        entry, later = due[0], max(0, self._plan.repetitions - repetition - 1) * self._prepared.entries
        trials = self._trials(entry)
        if sum(self._expected_s(item, self._trials(item)) for item in (*due, *later)) < left_s:
            return trials
        costs_s = budget.arm_s(self._of(entry.spec.name))
        rivals = {trial.label for trial in trials} - {BASELINE} - self._disqualified(entry.spec.name)
        share_s = left_s / len(due) - budget.expected_s(costs_s, [BASELINE])
        kept = {BASELINE, *budget.affordable(costs_s, sorted(rivals), share_s)}
        return [trial for trial in trials if trial.label in kept]

    def _expected_s(self, entry: Entry, trials: Sequence[Trial]) -> float:
        """How long a repetition of these arms takes, with the baseline in every part."""
        labels = {trial.label for trial in trials} - self._disqualified(entry.spec.name)
        return budget.expected_s(budget.arm_s(self._of(entry.spec.name)), labels)

    def _of(self, workload: str) -> list[Record]:
        return [record for record in self._records if record.workload == workload]

    def _repetitions_of(self, entry: Entry) -> int:
        return 1 + max((record.repetition for record in self._of(entry.spec.name)), default=-1)

    def _disqualified(self, workload: str) -> set[str]:
        """Arms that are put off, and those that failed before: another repetition would fail the same way, and cost the
        timeout again."""
        failed = {record.techniques for record in self._of(workload) if record.status is not Status.OK} - {BASELINE}
        return failed | {label for name, label in self.put_off if name == workload}

    def _heat(
        self, entry: Entry, trials: Sequence[Trial], repetition: int, share_s: float, most_s: float = math.inf
    ) -> None:
        """Run one repetition of these arms. No more rivals are started once the share of time is used up, and a rival
        that would take longer than `most_s` is put off."""
        workload = entry.spec.name
        earlier = [record for record in self._of(workload) if record.repetition == repetition]
        done = {record.techniques for record in earlier} | self._disqualified(workload)
        baseline = next(trial for trial in trials if trial.label == BASELINE)
        rivals = [trial for trial in trials if trial.label not in done and trial is not baseline]
        if not rivals and BASELINE in done:
            return
        # What a resumed run still has to measure of a heat is a part of its own, with its own baseline.
        part = len({record.heat_part for record in earlier if record.techniques == BASELINE})
        seed = self._plan.seed + repetition
        heat = Heat(
            host=self._prepared.host,
            protocol=self._plan.protocol,
            gpus=self._gpus,
            request=entry.request | {"device": self._plan.device, "seed": seed, "log": str(self._log)},
            lead_steps=self._lead_steps(entry),
            draw=random.Random(f"{seed}"),
            show=lambda techniques, phase: self._progress(workload, phase, techniques, repetition),
            elsewhere=self._fork_server.readings,
        )
        lineup = self._lineup(
            entry,
            dataclasses.replace(self._template(entry), repetition=repetition, heat_part=part, seed=seed),
            time.monotonic() + share_s,
            most_s,
            # An arm that an earlier repetition had no time for has not replayed yet, and the baseline replays with it.
            replay=not all(self._certified(workload, label) for label in self._due([baseline, *rivals])),
        )
        race = Race(heat, lineup)
        for record in race.run(baseline, rivals):
            self._finish(record)
        self.put_off |= {(workload, label): cost_s for label, cost_s in race.put_off.items()}
        self._paused()

    def _due(self, trials: Sequence[Trial]) -> list[str]:
        """The labels of those that are to be certified."""
        wanted = self._certify(self._records) if self._certify else None
        return [trial.label for trial in trials if wanted is None or trial.label in wanted]

    def _certified(self, workload: str, label: str) -> bool:
        """Whether the arm has replayed its first updates in a heat part whose baseline did so too."""
        replayed = [item for item in self._of(workload) if item.certificate and item.certificate.first_losses]
        references = {(item.repetition, item.heat_part) for item in replayed if item.techniques == BASELINE}
        return any(item.techniques == label and (item.repetition, item.heat_part) in references for item in replayed)

    def _lineup(self, entry: Entry, record: Record, deadline_s: float, most_s: float, *, replay: bool) -> Lineup:
        return Lineup(
            fork_server=self._fork_server,
            record=record,
            compile_caches=self._caches,
            toolchain=self._toolchain,
            shared_cache=self._shared_cache,
            own=self._own_requests(entry.spec.name),
            alone=self._alone(entry),
            start_s=budget.start_s([*self._earlier, *self._records], entry.spec.name),
            deadline_s=deadline_s,
            most_s=most_s,
            replay=replay,
            predicted_bytes=self._forecasts.device_bytes(entry.spec.name),
            lead=self._lead,
        )

    def _own_requests(self, workload: str) -> dict[str, Message]:
        """Request fields for arms that search for their own batch: the batch that an earlier repetition found, or the
        predictions to start from."""
        found = {
            record.techniques: {"found_batch": record.batch}
            for record in self._of(workload)
            if record.status is Status.OK and Change.BATCH_SIZE.value in record.changes
        }
        foretold = self._forecasts.larger_batches(workload)
        return {label: {"foretold_bytes": pairs} for label, pairs in foretold.items()} | found

    def _lead_steps(self, entry: Entry) -> int | None:
        """The number that undisturbed heats of the workload have found; None before the first."""
        found = [item for item in self._of(entry.spec.name) if item.measurement.round_index]
        known = [item.lead_steps for item in found if not (item.disturbed or item.alone)]
        # Arms with long steps have no lead steps.
        return max(known) if known else None

    def _alone(self, entry: Entry) -> set[str]:
        """The arms that declare that they take all memory, and those that an earlier repetition found to need it."""
        declared_so = {
            trial.label for trial in self._trials(entry) if any(item.alone for item in compose(trial.techniques))
        }
        return declared_so | {record.techniques for record in self._of(entry.spec.name) if record.alone} - {BASELINE}

    def _progress(self, workload: str, phase: str, techniques: str = "", repetition: int = 0) -> None:
        least = self._plan.repetitions * sum(len(self._trials(entry)) for entry in self._prepared.entries)
        done = sum((record.workload, record.techniques) not in self._unable for record in self._records)
        self._show(
            Progress(
                workload=workload,
                techniques=techniques,
                repetition=repetition,
                phase=phase,
                done=done,
                total=max(least, done),
            )
        )

    def _finish(self, record: Record) -> None:
        record = dataclasses.replace(
            record,
            command=command(self._plan, record.workload, record.techniques, len(self._prepared.machine.hosts)),
            predicted_peak_bytes=self._forecasts.of(record.workload, record.techniques).peak_bytes,
        )
        self._keep(record)
        self._records.append(record)

    def _trials(self, entry: Entry) -> list[Trial]:
        """The arms of one heat that can run, the baseline first."""
        return [trial for trial in self._plan.trials(entry.spec) if (entry.spec.name, trial.label) not in self._unable]

    def _pretrain(self, fork_server: ForkServer) -> None:
        """Make the checkpoints that workloads and techniques start from. An arm whose checkpoint fails cannot run."""
        known = techniques()
        for entry in self._prepared.entries:
            make = partial(
                pretrain,
                entry,
                device=self._plan.device,
                fork_server=fork_server,
                show=partial(self._progress, entry.spec.name, PRETRAINING),
            )
            if entry.spec.phase is Phase.FINETUNE:
                make([])
            for trial in self._trials(entry):
                taught = [name for name in trial.techniques if known[name].pretrained]
                try:
                    if taught:
                        make(taught)
                except ArmFailed as failure:
                    self._unable[entry.spec.name, trial.label] = (failure.status, failure.reason)

    def _record_unable(self) -> None:
        """Finish the records of the arms that cannot run."""
        for entry in self._prepared.entries:
            known = {record.techniques for record in self._of(entry.spec.name)}
            for (workload, label), (status, reason) in self._unable.items():
                if workload == entry.spec.name and label not in known:
                    changes = declared(compose(parse_composition(label)))
                    self._finish(
                        dataclasses.replace(
                            self._template(entry), techniques=label, status=status, reason=reason, changes=changes
                        )
                    )

    def _template(self, entry: Entry) -> Record:
        return template(self._plan, self._prepared.machine, entry, self._run_id)


def check_resumable(prepared: Prepared, finished: Sequence[Record], before: Machine) -> None:
    """Raises ValueError if the finished records are of another machine, software or data than the present ones."""
    if before.packages != prepared.machine.packages:
        changed = sorted(set(before.packages.items()) ^ set(prepared.machine.packages.items()))
        shown = ", ".join(f"{name} {version}" for name, version in changed)
        raise ValueError(f"the run was started with other package versions ({shown}): start a new run")
    for record in finished:
        if record.machine_id != prepared.machine.machine_id:
            raise ValueError(
                f"run {record.run_id!r} was started on another machine: start a new run here, or continue a "
                "cluster's run with --on"
            )
    check_trains_alike(prepared, finished)


def check_trains_alike(prepared: Prepared, finished: Sequence[Record]) -> None:
    """Raises ValueError if the records are of other data, or another model, than would be trained now."""
    corpora = {entry.spec.name: entry.corpus.sha256 for entry in prepared.entries}
    workloads = {entry.spec.name: entry.sha256 for entry in prepared.entries}
    for record in finished:
        if record.corpus_sha256 != corpora.get(record.workload):
            raise ValueError(f"run {record.run_id!r} used another corpus for {record.workload}: start a new run")
        if record.workload_sha256 != workloads.get(record.workload):
            raise ValueError(
                f"the code of {record.workload}, or the model that it builds, has changed since run "
                f"{record.run_id!r} was started: start a new run"
            )


def command(plan: Plan, workload: str, label: str, hosts: int = 0) -> str:
    """The command line that measures this arm against its baseline again, on `hosts` hosts if there are several."""
    spec = next(spec for spec in plan.workloads if spec.name == workload)
    options: Mapping[str, object] = {
        "--model": spec.model,
        "--phase": None if spec.phase is Phase.PRETRAIN else spec.phase,
        "--technique": label,
        "--device": plan.device,
        "--batch": spec.batch,
        "--sequence": spec.sequence,
        "--data": spec.corpus,
        "--text-column": spec.text_column,
        "--label-column": spec.label_column,
        "--repetitions": plan.repetitions,
        "--hosts": hosts or None,
    }
    base = plan.name.removesuffix(CUSTOM)
    words = [base] if base in plans() else []
    words += [part for name, value in options.items() if value is not None for part in (name, str(value))]
    return shlex.join(["trainpace", "run", *words])
