"""How figures are formatted."""

from __future__ import annotations

import pytest

from reports.wording import quantity


@pytest.mark.parametrize(
    ("figures", "written"),
    [
        ((1.32, 1.28, 1.36), "1.32x [1.28, 1.36]"),
        ((1.02, 1.003, 1.04), "1.020x [1.003, 1.040]"),
        ((0.953, 0.941, 0.966), "0.953x [0.941, 0.966]"),
        ((1.0, 0.9797, 1.0101), "1.0000x [0.9797, 1.0101]"),
        ((12.34, 10.0, 15.0), "12.3x [10.0, 15.0]"),
        ((1.3, None, None), "1.30x [unknown]"),
    ],
)
def test_ratio_interval(figures: tuple[float, float | None, float | None], written: str) -> None:
    assert quantity.ratio_interval(*figures) == written


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (quantity.duration(0.0584), "58.4 ms"),
        (quantity.duration(0.99999), "1.00 s"),
        (quantity.duration(3590.0), "3,590 s"),
        (quantity.duration(110_000.0), "30.6 h"),
        (quantity.memory(123_456_789), "118 MiB"),
        (quantity.memory(-5e6), "-4.77 MiB"),
        (quantity.rate(12345), "12,300/s"),
        (quantity.percent(37.2), "37 %"),
        (quantity.percent(0), "0.0 %"),
        (quantity.share(0.4231), "42 %"),
        (quantity.signed(0.5), "+0.50"),
        (quantity.signed(0.0), "0"),
        (quantity.count(124_439_808), "124 M"),
        (quantity.several(["a", "b", "c", "d", "e"]), "a, b, c and 2 more"),
    ],
)
def test_quantities(written: str, expected: str) -> None:
    assert written == expected
