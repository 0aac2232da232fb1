"""The work certificate: what an arm really did.

Some facts are read from the timed life of the arm without slowing it down: parameters, data types, updates. The others
come from a replay afterwards: the same arm is built again from the same seed and takes the first updates again, without
dropout and under observation. Two arms that do the same work then have the same losses, however they split it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from harness.evidence.communication import over_ranks

OF_RANKS = ("communication", "averages_gradients", "replica", "gradient_squares", "gradient_sample")
"""What ranks report on themselves that is not a field of the certificate."""


def merge(ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The certificate's fields from what each rank saw. A parameter on several ranks, whole or in shards, counts once.

    All ranks make the same updates. Samples and tokens are those of the first rank of each replica, which sees the
    model's input.
    """
    held: dict[str, list[list[float]]] = defaultdict(list)
    for facts in ranks:
        for name, seen in facts["parameters"].items():
            held[name].append(seen)
    sampled = sum(seen[2] for copies in held.values() for seen in copies)
    movement = sum(seen[3] for copies in held.values() for seen in copies)
    sizes = {name: int(copies[0][0]) for name, copies in held.items()}
    unions = {
        name: _union([facts[name] for facts in ranks])
        for name in ("weight_dtypes", "state_dtypes", "gradient_dtypes", "attention_kernels")
        if all(name in facts for facts in ranks)
    }
    shares = [facts.get("communication") for facts in ranks]
    return {
        **{name: value for name, value in ranks[0].items() if name not in OF_RANKS},
        **_over_replicas(ranks),
        **_gradients(ranks),
        **unions,
        **over_ranks(shares),
        "parameters": sum(sizes.values()),
        "trained_parameters": sum(size for name, size in sizes.items() if held[name][0][1]),
        "tensors": len(held),
        "moved_tensors": sum(any(seen[3] > 0 for seen in copies) for copies in held.values()),
        "movement_rms": math.sqrt(movement / max(1, sampled)),
    }


def _over_replicas(ranks: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Samples and tokens of all replicas together; empty if nothing was replayed."""
    firsts = {facts["replica"]: facts for facts in reversed(ranks) if "replica" in facts}
    names = ("samples_per_update", "tokens_per_update", "padded_tokens_per_update") if firsts else ()
    seen = {name: [facts[name] for facts in firsts.values()] for name in names}
    return {name: None if None in values else sum(values) for name, values in seen.items()}


def _gradients(ranks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first gradient over all ranks, and the spread of its norms on ranks that average gradients, relative to the
    norm. Unknown if a rank cannot tell; if no rank has all parameters, there is no sample."""
    told = [facts.get("gradient_squares") for facts in ranks]
    known = [squares for squares in told if squares]
    if not known or len(known) < len(told):
        return {"gradient_norm": None, "gradient_sample": None, "gradient_spread": None}
    # A parameter on several ranks counts once; if only one rank makes the updates, it is the first.
    together = {name: square for squares in reversed(known) for name, square in squares.items()}
    averaged = [math.sqrt(sum(facts["gradient_squares"].values())) for facts in ranks if facts["averages_gradients"]]
    return {
        "gradient_norm": math.sqrt(sum(together.values())),
        "gradient_sample": ranks[0]["gradient_sample"] if len(together) == len(known[0]) else None,
        "gradient_spread": (max(averaged) - min(averaged)) / (max(averaged) or 1.0) if len(averaged) > 1 else None,
    }


def _union(ranks: Sequence[list[str] | None]) -> list[str] | None:
    """What any rank saw; unknown if none saw anything and one could not tell."""
    seen = sorted(set().union(*(names for names in ranks if names is not None)))
    return None if not seen and None in ranks else seen
