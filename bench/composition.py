"""The rules of composition: which techniques go together, on which machine, and what they may change together."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from bench.facts import Change, arrange
from bench.host import Host
from bench.registry import SAME_NUMERICS, Technique, techniques
from bench.spec import Phase


def compose(names: Iterable[str]) -> list[Technique]:
    """The techniques in the order of application.

    Raises ValueError for an unknown name (with the nearest ones) or for two that exclude each other.
    """
    return arrange(names, techniques())


def unmet(chosen: Iterable[Technique], host: Host, phase: Phase = Phase.PRETRAIN) -> str | None:
    """Why this composition cannot run on this host in this phase, in words; None if it can."""
    reasons = []
    for item in chosen:
        if phase not in item.phases:
            reasons.append(f"{item.name} is for the phases {', '.join(sorted(item.phases))}; this is {phase}")
        reasons += [f"{item.name} {reason}" for need in item.needs if (reason := need(host))]
        if reason := _too_few_hosts(item, host, phase) or _too_few_devices(item.ranks or host.ranks, host):
            reasons.append(f"{item.name} {reason}")
    return "; ".join(reasons) or None


def hosts_for(ranks: int, hosts: int, each: int) -> int | None:
    """The smallest number of `hosts` that can share the ranks equally, if each has room for `each` ranks. None if no
    number can."""
    return next((count for count in range(1, hosts + 1) if ranks % count == 0 and ranks // count <= each), None)


def _too_few_hosts(item: Technique, host: Host, phase: Phase) -> str | None:
    """Why the hosts cannot run it: every host used must run the same number of an arm's ranks."""
    if host.hosts == 1 or item.ranks == 1:
        return None
    count = hosts_for(item.ranks or host.ranks, host.hosts, host.ranks_each)
    if count is None:
        return (
            f"needs {item.ranks} ranks; the {host.hosts} hosts of this run have room for {host.ranks_each} each and "
            "share them equally"
        )
    if count > 1 and phase is Phase.FINETUNE:
        return "starts from a checkpoint that the other hosts do not have"
    return None


def _too_few_devices(ranks: int, host: Host) -> str | None:
    """Each rank needs a GPU of its own. On a CPU two ranks may share a core, so that small machines can try."""
    if host.hosts > 1:
        return None
    if host.device == "cuda" and ranks > max(1, host.gpus):
        return f"needs {ranks} GPUs, one for each rank; this run has {host.gpus}"
    if host.device == "cpu" and ranks > 2 * host.cores:
        return f"needs {ranks} ranks, more than two for each of the {host.cores} cores"
    return None


def allowance(chosen: Collection[Technique]) -> tuple[set[Change], float]:
    """What the composition may change, and how far its first losses may be from the baseline's, as a relative
    difference."""
    changes: set[Change] = set().union(*(item.changes for item in chosen))
    # Rounding errors of several techniques add up.
    rounding = sum(item.loss_tolerance for item in chosen if Change.NUMERICS in item.changes)
    return changes, max(SAME_NUMERICS, rounding)


def declared(chosen: Collection[Technique]) -> list[str]:
    """The changes that the composition declares, in words, in the order of `Change`."""
    changes, _ = allowance(chosen)
    return [change.value for change in Change if change in changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """How many processes a composition trains with, and how many of them share the global batch."""

    count: int = 1
    replicas: int = 1


def ranks(chosen: Iterable[Technique], host: Host) -> Ranks:
    """The ranks of the composition. At most one of its techniques uses more than one."""
    for item in chosen:
        if item.ranks != 1:
            count = item.ranks or host.ranks
            return Ranks(count=count, replicas=item.replicas or count)
    return Ranks()
