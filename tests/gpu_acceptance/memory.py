"""The allocator's peak of some arms, compared with the prediction."""

from __future__ import annotations

import dataclasses

from bench.corpus import open_corpus
from bench.spec import BASELINE, Protocol
from harness.preparation.prepared import TASK_TIMEOUT_S
from harness.processes.failures import ArmFailed
from reports.wording import quantity
from tests.gpu_acceptance.arms import check, warm_arm
from tests.gpu_acceptance.rows import Row, failed, judged, needs_gpu, within
from tests.gpu_acceptance.stand import Stand

COMPOSITIONS = (("amp_bf16",), ("checkpoint_activations",), ("accumulate_4",), ("sgd",))
"""Each changes another part of the memory: activations halved, recomputed, of a quarter batch; optimizer state."""

PREDICTED_WITHIN = (0.9, 1.1)

PROTOCOL = Protocol(warmup_s=0.3, warmup_min_steps=3)


def memory(stand: Stand) -> None:
    """One row for each arm, each run alone: the allocator's peak against the prediction."""
    for techniques in ((), *COMPOSITIONS):
        stand.tell(of_arm(stand, techniques))


def of_arm(stand: Stand, techniques: tuple[str, ...]) -> Row:
    """The row of one arm of the usual workload. If its prediction fails, the other rows are not affected."""
    label = "+".join(techniques) or BASELINE
    what = f"peak memory, {label}"
    corpus = open_corpus(stand.spec.corpus)
    asked = {
        "request": {"workload": dataclasses.asdict(stand.spec), "corpus": dataclasses.asdict(corpus)},
        "arms": [{"techniques": list(techniques), "count": 1, "replicas": 1}],
        "where": {"device": stand.device, "capability": None, "seed": 0},
    }
    try:
        (answer,) = stand.fork_server().run("harness.prediction.tasks:predict_arms", asked, TASK_TIMEOUT_S)
    except (ArmFailed, ValueError) as failure:
        return failed(what, f"no prediction: {' '.join(str(failure).split())}")
    predicted: int | None = answer.get("peak_bytes")
    if predicted is None:
        return failed(what, f"no prediction: {answer['reason']}")
    try:
        peak = _peak_bytes(stand, techniques)
    except RuntimeError as error:
        return failed(what, error)
    if peak is None:
        return needs_gpu(f"{what}, of which {quantity.memory(predicted)} are predicted")
    return row(label, peak_bytes=peak, predicted_bytes=predicted)


def _peak_bytes(stand: Stand, techniques: tuple[str, ...]) -> int | None:
    """The allocator's peak; None if there is no allocator to query. Raises RuntimeError with the reason if the arm
    fails."""
    arm = warm_arm(stand, techniques, PROTOCOL)
    arm.memory_bytes()
    check(arm)
    arm.end()
    return arm.measurement.allocated_peak_bytes


def row(techniques: str, *, peak_bytes: int, predicted_bytes: int) -> Row:
    low, high = PREDICTED_WITHIN
    ratio = predicted_bytes / peak_bytes
    seen = f"{quantity.memory(peak_bytes)} measured, {quantity.memory(predicted_bytes)} predicted, {ratio:.3f} of it"
    expected = f"predicted / measured {low} to {high}"
    return judged(f"peak memory, {techniques}", seen, expected, holds=within(ratio, low, high))
