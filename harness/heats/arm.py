"""One arm as a heat sees it: commands lead it through its phases, and its answers become a measurement."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from bench.composition import allowance, compose, declared, ranks
from bench.host import Host
from bench.registry import Change
from bench.spec import Phase, Protocol, Trial
from harness.evidence.certificate import merge
from harness.evidence.equal_work import losses_unknown, unequal_work
from harness.heats.gathering import add_allocated, add_peaks, add_turn, add_window, rank_means, steps_together
from harness.message import Message
from harness.processes.failures import ArmFailed
from harness.processes.fork_server import ForkServer, Process
from harness.record import GPU_FIGURES, Measurement, Record, Status, WorkCertificate, note
from harness.telemetry.gpus import Gpus
from harness.telemetry.parked import PARKED_CORES, Parked
from harness.telemetry.sampler import BetweenTurns, Sampler
from harness.timing.turns import STEADY_WINDOW, is_steady

SUSTAINED_LEAST = 3
"""Steps of the window for telemetry."""


class Arm:
    """An arm from the request to its record. A failure in any phase ends the arm and becomes its status."""

    def __init__(self, trial: Trial, *, request: Message, protocol: Protocol, host: Host, is_cold: bool) -> None:
        """`is_cold`: the arm's compile cache does not hold anything of the arm yet."""
        self.trial, self.host, self._is_cold = trial, host, is_cold
        self.turn_steps, self.lead_steps = 1, 0
        self.measurement = Measurement()
        self.status = Status.OK
        self._techniques = compose(trial.techniques)
        self._ranks = ranks(self._techniques, host)
        self._request, self.protocol = request | {"replicas": self._ranks.replicas}, protocol
        self._reason: str | None = None
        self._compute: str | None = None
        self._batch: int | None = None
        self._certificate: WorkCertificate | None = None
        self._process: Process | None = None
        self._between_turns: BetweenTurns | None = None
        self._parked = Parked()
        self._rank_times_s: list[list[float]] = []
        self.free_bytes: dict[int, int] = {}
        """The memory left on each of the arm's devices when it was last asked."""
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")

    @property
    def alive(self) -> bool:
        return self.status is Status.OK and self._process is not None

    @property
    def world_size(self) -> int:
        return self._ranks.count

    @property
    def step_s(self) -> float:
        """The step time to plan with: the median of the latest steps."""
        times_s = self.measurement.sustained_step_times_s or self.measurement.warmup_step_times_s
        return statistics.median(times_s[-STEADY_WINDOW:])

    def start(self, fork_server: ForkServer) -> None:
        """Fork, build, take the first step and warm up until steady, within the limits of the protocol."""
        self._phase(lambda: self._start(fork_server))

    def sustain(self, gpus: Gpus) -> None:
        """The window for telemetry, if the protocol has one."""
        if self.protocol.sustained_s:
            self._phase(lambda: self._sustain(gpus))
        elif self.protocol.telemetry:
            self.measurement.unknown.append(note(GPU_FIGURES, gpus.reason or "there was no window for them"))

    def turn(self, index: int) -> None:
        """The arm's turn in one round: `turn_steps` contiguous steps, of which the first `lead_steps` do not count."""
        self._phase(lambda: self._turn(index))

    def attest(self, replay_steps: int, at_once: int = 1) -> None:
        """Ask for the peaks and for the certificate after that many replayed updates. Not part of the active time.

        `at_once` arms replay at the same time, each on its share of the threads.
        """
        active_s = self.measurement.active_s
        self._phase(lambda: self._attest(replay_steps, at_once))
        self.measurement.active_s = active_s

    def hold_against(self, reference: Arm) -> None:
        """Compare the arm's work with the reference's, as far as both are certified. A difference becomes the arm's
        status."""
        if self.status is not Status.OK or self._certificate is None or reference._certificate is None:
            return
        own, other = self._certificate, reference._certificate
        changes, tolerance = self._may_differ(reference)
        draws_alike = self.trial.techniques == reference.trial.techniques
        differences = unequal_work(own, other, changes, tolerance, draws_alike=draws_alike)
        unknown = losses_unknown(own, other, changes, tolerance, draws_alike=draws_alike)
        self._certificate = dataclasses.replace(own, losses_unknown=unknown)
        if differences:
            self.status, self._reason = Status.UNEQUAL_WORK, "; ".join(differences)

    def check_parked(self) -> None:
        """End the arm if it has used the cores since its last phase: its neighbours' times would be wrong."""
        if not self.alive:
            return
        cores = self._parked.cores()
        if cores > PARKED_CORES:
            self.status = Status.CRASHED
            self._reason = f"while parked, it kept {cores:.1f} cores busy, which would have slowed down every other arm"
            self.end()

    def end(self) -> None:
        """End the process; does nothing if it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def record(self, template: Record) -> Record:
        """The arm's record: `template` holds what all arms of the heat have in common."""
        return dataclasses.replace(
            template,
            techniques=self.trial.label,
            status=self.status,
            reason=self._reason,
            changes=declared(self._techniques),
            world_size=self._ranks.count,
            compute=self._compute,
            batch=self._batch or template.batch,
            copy=self.trial.copy,
            lead_steps=self.lead_steps,
            step_flops=self._step_flops(template),
            started_at=self._started_at,
            measurement=self.measurement,
            certificate=self._certificate,
        )

    def _step_flops(self, template: Record) -> float | None:
        """The FLOP of one update: counted at the workload's batch, scaled to the arm's own."""
        if template.step_flops is None or self._batch is None:
            return template.step_flops
        return template.step_flops * self._batch / template.batch

    def memory_bytes(self) -> int:
        """The memory that the arm has taken so far: the allocator's reserve on a GPU, else the growth of the resident
        set."""
        self._phase(self._read_peaks)
        return self.measurement.reserved_peak_bytes or self.measurement.peak_memory_bytes or 0

    def _phase(self, phase: Callable[[], None]) -> None:
        if self.status is not Status.OK:
            return
        started = time.perf_counter()
        try:
            phase()
        except ArmFailed as failure:
            self.status, self._reason = failure.status, failure.reason
            self.end()
        finally:
            self.measurement.active_s += time.perf_counter() - started
        if self._process is not None and self.alive:
            self._parked.begin(self._process.pid)

    def _start(self, fork_server: ForkServer) -> None:
        self._process = fork_server.fork(self._request, self._ranks.count)
        self.measurement.rank_hosts = list(self._process.hosts)
        built = self._call({"do": "build"})[0]
        self.measurement.build_s, self._compute, self._batch = built["build_s"], built["compute"], built["batch"]
        times_s = self.measurement.warmup_step_times_s
        times_s += self._steps(1)["step_times_s"]
        self.measurement.first_step_s = times_s[0]
        self.measurement.ready_s = time.perf_counter() - self._process.asked_s
        begun = time.perf_counter()
        while not self._warm(times_s[1:], time.perf_counter() - begun):
            times_s += self._steps(1)["step_times_s"]
        self.measurement.warmup_steady = is_steady(times_s[1:])

    def _warm(self, times_s: list[float], spent_s: float) -> bool:
        """Whether warm-up ends here; `times_s` leaves out the first step, which may compile."""
        if not times_s:
            return False
        out_of_time = spent_s + times_s[-1] > self.protocol.warmup_s or len(times_s) >= self.protocol.warmup_max_steps
        return out_of_time or (len(times_s) >= self.protocol.warmup_min_steps and is_steady(times_s))

    def _sustain(self, gpus: Gpus) -> None:
        assert self._process is not None
        count = max(SUSTAINED_LEAST, math.ceil(self.protocol.sustained_s / self.step_s))
        if not self.protocol.telemetry:
            answer = self._steps(count)
        else:
            sampler = Sampler(self._process.pid, gpus, self._ranks.count)
            sampler.start()
            answer = self._steps(count, on_tick=sampler.sample)
            sampler.stop().store(self.measurement)
        add_window(self.measurement, answer)

    def _turn(self, index: int) -> None:
        assert self._process is not None
        reads = self.protocol.telemetry and not self.protocol.sustained_s
        if reads and self._between_turns is None:
            self._between_turns = BetweenTurns(self._process.pid, self.measurement)
        if self._between_turns is not None:
            self._between_turns.begin()
        answer = self._steps(self.turn_steps)
        if self._between_turns is not None:
            self._between_turns.end()
        add_turn(self.measurement, index, answer)
        if self._ranks.count > 1:
            before = self._rank_times_s or [[]] * self._ranks.count
            self._rank_times_s = [[*own, *taken] for own, taken in zip(before, answer["of_ranks"], strict=True)]
            self.measurement.rank_step_times_s = [statistics.median(times_s) for times_s in self._rank_times_s]

    def _read_peaks(self) -> None:
        answers = self._call({"do": "peaks"})
        add_peaks(self.measurement, answers, is_cold=self._is_cold)
        self.free_bytes = {item["device"]: item["device_free_bytes"] for item in answers if "device" in item}

    def _attest(self, replay_steps: int, at_once: int) -> None:
        self._read_peaks()
        # An arm of an earlier revision does not know this argument.
        beside = {"at_once": at_once} if at_once > 1 else {}
        answers = self._call({"do": "certify", "with": {"replay_steps": replay_steps, **beside}})
        add_allocated(self.measurement, answers)
        facts = merge(answers)
        if facts.get("first_losses"):
            facts["first_losses"] = rank_means([answer["first_losses"] for answer in answers])
        self._certificate = WorkCertificate(**facts)

    @property
    def replay_steps(self) -> int:
        """How many updates to replay according to the protocol alone."""
        is_finetuned = self.trial.workload.phase is Phase.FINETUNE
        least = self.protocol.finetune_steps if is_finetuned else self.protocol.certify_steps
        if not self.protocol.certify_s or self.status is not Status.OK:
            return least
        return max(least, min(len(self.measurement.losses), int(self.protocol.certify_s / self.step_s)))

    def _may_differ(self, reference: Arm) -> tuple[set[Change], float]:
        """The changes that exactly one of the two declares, and the loss tolerance of all their techniques together."""
        everything = [*self._techniques, *(item for item in reference._techniques if item not in self._techniques)]
        only_one = [item for item in everything if (item in self._techniques) != (item in reference._techniques)]
        return allowance(only_one)[0], allowance(everything)[1]

    def account(self, whereabouts: Message) -> Message:
        """Which modules the arm imported from where (harness.evidence.provenance), and the `held_share` of a brake."""
        found: Message = {}
        self._phase(lambda: found.update(self._call({"do": "account", "with": whereabouts})[0]))
        return found

    def _steps(self, count: int, on_tick: Callable[[], object] | None = None) -> Message:
        """Take that many contiguous steps. Raises ArmFailed if a loss is not finite."""
        answers = self._call({"do": "steps", "with": {"count": count}}, on_tick)
        taken = steps_together(answers, self._ranks.replicas)
        losses: list[float] = taken["losses"]
        self.measurement.losses += losses
        bad = next((loss for loss in losses if not math.isfinite(loss)), None)
        if bad is not None:
            at = len(self.measurement.losses) - len(losses) + losses.index(bad) + 1
            raise ArmFailed(Status.DIVERGED, f"the loss is {bad} at step {at}")
        return taken

    def _call(self, command: Message, on_tick: Callable[[], object] | None = None) -> list[Message]:
        assert self._process is not None
        tick_s = self.protocol.sample_interval_s
        return self._process.call(command, self.protocol.timeout_s, tick_s=tick_s, on_tick=on_tick)
