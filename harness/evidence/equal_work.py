"""Whether two work certificates show the same work, as far as the declared changes let them be compared."""

from __future__ import annotations

import math
from collections.abc import Collection

import torch

from bench.facts import Change
from bench.registry import SAME_NUMERICS
from harness.record import WorkCertificate

NOISE_MARGIN = 3.0
"""Factor on the noise that one repetition of the baseline's losses has shown."""

GRADIENTS_WITHIN = 0.01
"""How far the first gradient may be from the baseline's, relative to its norm, if only float32 rounding differs."""

SAME_GRADIENTS = 1e-4
"""How far apart the norms of the ranks' gradients may be after averaging: every rank has the same sums."""

SHOWN = 3
"""How many losses a message shows; the others are only counted."""


def unequal_work(
    arm: WorkCertificate,
    reference: WorkCertificate,
    allowed: Collection[Change],
    tolerance: float = SAME_NUMERICS,
    *,
    draws_alike: bool = False,
) -> list[str]:
    """In words, each difference from the baseline's work that is not among the allowed changes.

    Losses are compared within `tolerance`, relative to their size, as far as the changes leave them comparable: the
    first depends on the model and the data, the later ones also on the update rule. `draws_alike`: see
    `losses_unknown`.
    """
    excused = losses_unknown(arm, reference, allowed, tolerance, draws_alike=draws_alike)
    differences = [text for differs, text in _counts(arm, reference, allowed) if differs]
    if not (excused or _free_update(allowed) or Change.NUMERICS in allowed):
        differences += _other_gradient(arm, reference)
    if arm.first_losses and reference.first_losses:
        if not all(math.isfinite(loss) for loss in arm.first_losses):
            return [*differences, f"the replayed losses are not all finite: {arm.first_losses}"]
        unlike = [] if excused else _unlike(arm, reference, allowed, tolerance)
        differences += unlike or _constant(arm, reference.first_losses)
    return differences


def _counts(arm: WorkCertificate, reference: WorkCertificate, allowed: Collection[Change]) -> list[tuple[bool, str]]:
    """What can be told without the losses: whether it differs, and how, in words."""
    free_data = not {Change.DATA_ORDER, Change.BATCH_SIZE}.isdisjoint(allowed)
    free_numerics = Change.NUMERICS in allowed
    samples = (arm.samples_per_update, reference.samples_per_update)
    replayed = (arm.replayed_updates, reference.replayed_updates)
    return [
        (arm.model_called is False, "the model was never called: the loss bypasses what wraps it"),
        (bool(arm.compiled_nothing), "torch.compile was asked for, and nothing was compiled"),
        (
            (arm.gradient_spread or 0.0) > SAME_GRADIENTS,
            f"after their exchange the ranks' gradients differ by {arm.gradient_spread or 0.0:.2g} of their norm",
        ),
        (arm.updates == 0 and reference.updates > 0, "no optimizer update was made"),
        (arm.moved_tensors == 0 and reference.moved_tensors > 0, "no parameter moved"),
        (
            # In a coarser number format an update can be too small to move a weight at all.
            not (_free_update(allowed) or free_numerics) and 0 < arm.moved_tensors < reference.moved_tensors,
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


def losses_unknown(
    arm: WorkCertificate,
    reference: WorkCertificate,
    allowed: Collection[Change],
    tolerance: float = SAME_NUMERICS,
    *,
    draws_alike: bool = False,
) -> str | None:
    """Why the arm's losses say nothing about its work; None if they do.

    `draws_alike`: the arm has the reference's techniques, so a forward pass of either draws the same numbers.
    """
    if _noise(reference) > tolerance:
        return (
            f"the baseline's own losses differ by {_noise(reference):.2g} of their size when it is replayed: it "
            "draws random numbers that no seed controls"
        )
    if not _unlike(arm, reference, allowed, tolerance):
        return None
    if reference.draws and not draws_alike:
        return "the forward pass draws random numbers, and not the same ones for parts of a batch as for the whole"
    if reference.normalises_batch and (arm.samples_per_pass or math.inf) < (reference.samples_per_pass or 0.0):
        return "the model normalises over the samples of each forward pass, and part of a batch has fewer of them"
    return None


def _free_model(allowed: Collection[Change]) -> bool:
    """Whether even the first loss may differ from the baseline's."""
    others = {Change.DATA_ORDER, Change.BATCH_SIZE, Change.ARCHITECTURE, Change.OBJECTIVE}
    return not others.isdisjoint(allowed)


def _free_update(allowed: Collection[Change]) -> bool:
    """Whether the first update may differ from the baseline's."""
    others = {Change.TRAINED_PARAMETERS, Change.UPDATE_RULE, Change.SCHEDULE}
    return _free_model(allowed) or not others.isdisjoint(allowed)


def _other_gradient(arm: WorkCertificate, reference: WorkCertificate) -> list[str]:
    """In words, how the first gradient differs from the baseline's: in norm, or in direction as far as a sample shows
    it; empty if that is unknown."""
    own, other = arm.gradient_norm, reference.gradient_norm
    if own is not None and other is not None and abs(own - other) > GRADIENTS_WITHIN * other:
        return [f"the first gradient's norm is {own:.4g}, {other:.4g} in the baseline"]
    samples = (arm.gradient_sample or [], reference.gradient_sample or [])
    if not samples[0] or len(samples[0]) != len(samples[1]):
        return []
    apart, length = math.dist(*samples), math.hypot(*samples[1])
    if apart <= GRADIENTS_WITHIN * length:
        return []
    return [f"the first gradient differs from the baseline's by {apart / (length or 1.0):.0%} of its norm"]


def _noise(reference: WorkCertificate) -> float:
    """By how much the baseline's losses differ between two replays, relative to their size."""
    first, again = reference.first_losses or [], reference.repeated_losses or []
    return max((abs(loss - other) for loss, other in zip(first, again, strict=False)), default=0.0) / _scale(first)


def _scale(losses: list[float]) -> float:
    """The size that losses are relative to: the largest. A loss that passes through 0 does not make it smaller."""
    return max(map(abs, losses), default=0.0) or 1.0


def _unlike(
    arm: WorkCertificate, reference: WorkCertificate, changes: Collection[Change], tolerance: float
) -> list[str]:
    losses, others = arm.first_losses or [], reference.first_losses or []
    skipped = arm.replayed_updates != reference.replayed_updates and Change.NUMERICS in changes
    comparable = 0 if _free_model(changes) else 1 if _free_update(changes) or skipped else len(losses)
    pairs = list(zip(losses, others, strict=False))[:comparable]
    margin = max(tolerance, NOISE_MARGIN * _noise(reference)) * _scale(others)
    unlike = [(loss, other) for loss, other in pairs if abs(loss - other) > margin]
    if not unlike:
        return []
    shown = ", ".join(f"{loss:.4g} against {other:.4g}" for loss, other in unlike[:SHOWN])
    return [
        f"{len(unlike)} of the first {len(pairs)} losses differ from the baseline's by more than "
        f"{margin / _scale(others):.2g} of their size: {shown}"
    ]


def _constant(arm: WorkCertificate, reference: list[float]) -> list[str]:
    """In words, that the arm has one loss for all batches although the baseline's losses differ enough to be told
    apart."""
    losses = arm.first_losses or []
    if len(losses) < 2 or len(set(losses)) > 1:
        return []
    resolution = max(torch.finfo(getattr(torch, name)).eps for name in arm.weight_dtypes if "float" in name)
    if max(reference) - min(reference) <= resolution * max(map(abs, reference)):
        return []
    return [f"the loss is {losses[0]:.4f} on every batch"]
