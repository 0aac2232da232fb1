"""How close operators come to the machine's limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.evidence.kinds import Kind
from harness.record import Machine, Record
from results.roofline import under_roof
from tests.pairs import certificate
from tests.samples import MACHINE, record

MEASURED: Machine = replace(MACHINE, memory_bytes_per_s={"memory": 1e10, "caches": 1e11})


def profiled() -> Record:
    """Half of its time is products at 50 FLOP per byte; a tenth each is additions, and copies that move nothing."""
    seen = certificate(
        kinds=[Kind.PRODUCTS, Kind.ELEMENTWISE, Kind.COPIES],
        kind_shares=[0.5, 0.1, 0.1],
        kind_flops=[5e8, 1e6, 0.0],
        kind_bytes=[1e7, 2e7, 0.0],
    )
    return replace(record("fp32", 0, [0.01]), certificate=seen)


def test_what_is_achieved_lies_under_the_lower_of_two_roofs() -> None:
    (products, roof), (additions, _) = under_roof(profiled(), MEASURED, 0.01)
    # 5e8 FLOP in 5 ms, with a limit of 1e11 FLOP/s.
    assert products.flops_per_byte == 50
    assert products.flops_per_s == pytest.approx(1e11)
    assert roof.attainable(50) == 1e11
    assert roof.share(products) == pytest.approx(1.0)
    # 2e7 bytes in 1 ms, twice the memory bandwidth.
    assert roof.attainable(additions.flops_per_byte) == pytest.approx(0.05 * 1e10)
    assert roof.share(additions) == pytest.approx(2.0)


def test_nothing_is_said_where_the_machine_or_the_work_is_not_known() -> None:
    assert under_roof(profiled(), MACHINE, 0.01) == []
    assert under_roof(replace(profiled(), compute="int8"), MEASURED, 0.01) == []
    assert under_roof(record("fp32", 0, [0.01]), MEASURED, 0.01) == []
