"""How close the operators of a step come to the machine's limits: the roofline model (Williams, Waterman and Patterson
2009, https://doi.org/10.1145/1498765.1498785)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.evidence.kinds import Kind
from harness.record import Machine, Record, WorkCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Achieved:
    """The work of the operators of one kind in a step, and the `seconds` that it took."""

    kind: Kind
    flops: float
    bytes: float
    seconds: float

    @property
    def flops_per_byte(self) -> float:
        """The arithmetic intensity."""
        return self.flops / self.bytes

    @property
    def flops_per_s(self) -> float:
        return self.flops / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Roof:
    """The limits of a machine: FLOP/s in a number format, and bytes per second to and from memory."""

    flops_per_s: float
    bytes_per_s: float

    def attainable(self, flops_per_byte: float) -> float:
        """The FLOP/s within reach at this arithmetic intensity."""
        return min(self.flops_per_s, flops_per_byte * self.bytes_per_s)

    def share(self, seen: Achieved) -> float:
        """The share of the attainable FLOP/s that was achieved. It exceeds 1 if the data comes from caches."""
        return seen.flops_per_s / self.attainable(seen.flops_per_byte)


def under_roof(record: Record, machine: Machine, step_time_s: float) -> list[tuple[Achieved, Roof]]:
    """Each kind of operator in a step of `step_time_s`, and the machine's limits in the arm's number format; empty if
    the work is unknown or the machine was not measured."""
    flops_per_s = machine.matmul_flops_per_s.get(record.compute or "")
    bytes_per_s = machine.memory_bytes_per_s.get("memory")
    if record.certificate is None or not flops_per_s or not bytes_per_s:
        return []
    roof = Roof(flops_per_s=flops_per_s, bytes_per_s=bytes_per_s)
    return [(seen, roof) for seen in _achieved(record.certificate, step_time_s)]


def _achieved(certificate: WorkCertificate, step_time_s: float) -> list[Achieved]:
    if not (certificate.kinds and certificate.kind_shares and certificate.kind_flops and certificate.kind_bytes):
        return []
    seen = zip(certificate.kinds, certificate.kind_shares, certificate.kind_flops, certificate.kind_bytes, strict=True)
    return [
        Achieved(kind=Kind(kind), flops=flops, bytes=moved, seconds=share * step_time_s)
        for kind, share, flops, moved in seen
        if flops and moved and share
    ]
