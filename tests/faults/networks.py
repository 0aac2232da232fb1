"""A host lost in the middle of an arm that spans two hosts, and a slowed link, in network namespaces."""

from __future__ import annotations

from harness.record import Status
from tests import networks
from tests.faults import Ground, Impossible, fault
from tests.harness.hosts.test_networks import Broken, cut, hang, kill, measured
from tests.networks import Network


def lost(ground: Ground, broken: Broken) -> str:
    """What the records of the run say about it."""
    if reason := networks.why_not():
        raise Impossible(reason)
    with Network(2) as network:
        found = measured(network, ground.folder, ground.text, broken)
        name = f"host host2 ({network.address(2)}) no longer answers"
    for label in ("ddp_2+telling", "ddp_2"):
        assert found[label].status in (Status.CRASHED, Status.TIMEOUT), found[label]
        assert name in str(found[label].reason), found[label].reason
    assert found["fp32"].status is found["adamw_foreach"].status is Status.OK
    own = found["ddp_2+telling"]
    return f"{own.status}: {own.reason}; what needs it later fails with its name, all else goes on"


@fault("hosts", "a host is killed")
def killed(ground: Ground) -> str:
    return lost(ground, kill)


@fault("hosts", "a host hangs")
def hangs(ground: Ground) -> str:
    return lost(ground, hang)


@fault("hosts", "a link is cut")
def is_cut(ground: Ground) -> str:
    return lost(ground, cut)
