"""How figures are formatted: units, significant digits, intervals. The only place where a number becomes text."""

from __future__ import annotations

import math

from results.statistics import SAME_WITHIN

UNKNOWN = "unknown"

_TIMES = ((3600.0, "h"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_MEMORY = ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B"))
_ENERGY = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ"))
_FLOPS = ((1e15, "PFLOP/s"), (1e12, "TFLOP/s"), (1e9, "GFLOP/s"), (1e6, "MFLOP/s"))
_COUNTS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_MOST_RATIO_DECIMALS = 4
_NO_DECIMALS_FROM = 100
_WHOLE_PERCENT_FROM = 9.95
_SAME_EDGES = (1 - SAME_WITHIN, 1.0, 1 + SAME_WITHIN)


def known(value: float | None) -> bool:
    """Whether the value is a finite number."""
    return value is not None and math.isfinite(value)


def significant(value: float, digits: int = 3) -> str:
    """`value` in positional notation with this many significant digits and thousands separators: 12345 is 12,300."""
    rounded = float(f"{value:.{digits - 1}e}")
    if rounded == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:,.{max(0, decimals)}f}"


def _scaled(value: float, units: tuple[tuple[float, str], ...], digits: int = 3) -> str:
    # Rounded before the unit is chosen, so that 0.9999 s reads 1.00 s and not 1,000 ms.
    rounded = abs(float(f"{value:.{digits - 1}e}"))
    factor, unit = next((item for item in units if rounded >= item[0]), units[-1])
    return f"{significant(value / factor, digits)} {unit}".rstrip()


def duration(seconds: float, digits: int = 3) -> str:
    return "0 s" if seconds == 0 else _scaled(seconds, _TIMES, digits)


def memory(size_bytes: float, digits: int = 3) -> str:
    return "0 B" if size_bytes == 0 else _scaled(size_bytes, _MEMORY, digits)


def energy(joules: float) -> str:
    return "0 J" if joules == 0 else _scaled(joules, _ENERGY)


def flops(per_second: float, digits: int = 3) -> str:
    return _scaled(per_second, _FLOPS, digits)


def count(value: float, digits: int = 3) -> str:
    """A count with a letter as its unit: 124439808 is 124 M."""
    return _scaled(value, _COUNTS, digits)


def whole(value: float) -> str:
    return f"{value:.0f}"


def rate(per_second: float) -> str:
    return f"{significant(per_second)}/s"


def percent(value: float) -> str:
    """A value that is already in per cent. Nothing here is sampled more finely than a tenth of a per cent."""
    return f"{value:.0f} %" if abs(value) >= _WHOLE_PERCENT_FROM else f"{value:.1f} %"


def share(value: float) -> str:
    """A value between 0 and 1 as per cent."""
    return f"{significant(100 * value, 2 if abs(value) < 1 else 3)} %"


def signed(value: float) -> str:
    text = significant(value, 2)
    return text if value < 0 or text == "0" else f"+{text}"


def ratio(value: float) -> str:
    return f"{significant(value)}x"


def ratio_interval(value: float, low: float | None, high: float | None) -> str:
    """`1.32x [1.28, 1.36]`, with enough decimals to show on which side of the verdict's limits each bound lies."""
    if low is None or high is None:
        return f"{ratio(value)} [{UNKNOWN}]"
    decimals = _ratio_decimals(value, low, high)
    return f"{value:.{decimals}f}x [{low:.{decimals}f}, {high:.{decimals}f}]"


def _ratio_decimals(value: float, low: float, high: float) -> int:
    decimals = max(1, 2 - math.floor(math.log10(value))) if value < _NO_DECIMALS_FROM else 0
    decisive = _SAME_EDGES if low <= 1 <= high else (1.0,)
    while decimals < _MOST_RATIO_DECIMALS and any(_hides_side(bound, decimals, decisive) for bound in (low, high)):
        decimals += 1
    return decimals


def _hides_side(bound: float, decimals: int, edges: tuple[float, ...]) -> bool:
    """Whether the bound differs from a value on which the verdict depends, but would be rounded to it."""
    return any(bound != edge and round(bound, decimals) == edge for edge in edges)


def several(names: list[str], most: int = 4) -> str:
    """Names as a phrase: `a, b and c`. With more than `most` names, the rest is counted."""
    shown = names if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
