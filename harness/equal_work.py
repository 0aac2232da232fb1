"""Whether two work certificates show the same work, as far as what a technique declares allows to compare them."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from bench.registry import SAME_NUMERICS, Change
from harness.record import WorkCertificate

SHOWN = 3
"""Losses in a message; the rest is counted."""


def unequal_work(
    arm: WorkCertificate, reference: WorkCertificate, allowed: Collection[Change], tolerance: float = SAME_NUMERICS
) -> list[str]:
    """In words, each difference from the baseline's work that is not among the allowed changes.

    Losses are compared, relative to `tolerance`, as far as the changes leave them comparable: the first depends on the
    model and the data, the later ones on the update rule too.
    """
    free_data = not {Change.DATA_ORDER, Change.BATCH_SIZE}.isdisjoint(allowed)
    free_model = free_data or not {Change.ARCHITECTURE, Change.OBJECTIVE}.isdisjoint(allowed)
    free_trained = free_model or Change.TRAINED_PARAMETERS in allowed
    free_update = free_trained or not {Change.UPDATE_RULE, Change.SCHEDULE}.isdisjoint(allowed)
    free_numerics = Change.NUMERICS in allowed
    samples = (arm.samples_per_update, reference.samples_per_update)
    replayed = (arm.replayed_updates, reference.replayed_updates)
    checks = [
        (arm.updates == 0 and reference.updates > 0, "no optimizer update was made"),
        (arm.moved_tensors == 0 and reference.moved_tensors > 0, "no parameter moved"),
        (
            # In a coarser number format an update can be too small to move a weight at all.
            not (free_update or free_numerics) and 0 < arm.moved_tensors < reference.moved_tensors,
            f"{arm.moved_tensors} parameter tensors moved, {reference.moved_tensors} in the baseline",
        ),
        (
            Change.ARCHITECTURE not in allowed and arm.parameters != reference.parameters,
            f"{arm.parameters} parameters, {reference.parameters} in the baseline",
        ),
        (
            {Change.ARCHITECTURE, Change.TRAINED_PARAMETERS}.isdisjoint(allowed)
            and arm.trained_parameters != reference.trained_parameters,
            f"{arm.trained_parameters} trained parameters, {reference.trained_parameters} in the baseline",
        ),
        (
            not free_numerics and None not in replayed and replayed[0] != replayed[1],
            f"{replayed[0]} updates in the replay, {replayed[1]} in the baseline's",
        ),
        (
            Change.BATCH_SIZE not in allowed and None not in samples and samples[0] != samples[1],
            f"{samples[0]} samples an update reached the model, {samples[1]} in the baseline",
        ),
        (
            not free_data and arm.tokens_per_update != reference.tokens_per_update,
            f"{arm.tokens_per_update} tokens an update, {reference.tokens_per_update} in the baseline",
        ),
        (
            not free_numerics and arm.weight_dtypes != reference.weight_dtypes,
            f"weights are {', '.join(arm.weight_dtypes)}, {', '.join(reference.weight_dtypes)} in the baseline",
        ),
    ]
    differences = [text for differs, text in checks if differs]
    if arm.first_losses and reference.first_losses:
        skipped = arm.replayed_updates != reference.replayed_updates
        comparable = 0 if free_model else 1 if free_update or (skipped and free_numerics) else len(arm.first_losses)
        unlike = _unlike(arm.first_losses, reference.first_losses, comparable, tolerance)
        differences += unlike or _constant(arm, reference.first_losses)
    return differences


def _unlike(losses: list[float], reference: list[float], comparable: int, tolerance: float) -> list[str]:
    pairs = list(zip(losses, reference, strict=False))[:comparable]
    if not all(math.isfinite(loss) for loss in losses):
        return [f"the replayed losses are not all finite: {losses}"]
    unlike = [(loss, other) for loss, other in pairs if abs(loss - other) > tolerance * max(1.0, abs(other))]
    if not unlike:
        return []
    shown = ", ".join(f"{loss:.4f} against {other:.4f}" for loss, other in unlike[:SHOWN])
    return [f"{len(unlike)} of the first {len(pairs)} losses differ by more than {tolerance:g}: {shown}"]


def _constant(arm: WorkCertificate, reference: list[float]) -> list[str]:
    """Whether the arm shows one loss for all batches where the baseline shows several that it could have told apart."""
    losses = arm.first_losses or []
    if len(losses) < 2 or len(set(losses)) > 1:
        return []
    resolution = max(torch.finfo(getattr(torch, name)).eps for name in arm.weight_dtypes if "float" in name)
    if max(reference) - min(reference) <= resolution * max(map(abs, reference)):
        return []
    return [f"the loss is {losses[0]:.4f} on every batch"]
