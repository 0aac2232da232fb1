"""The published peak rates of chips, which MFU is a share of. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """Peak rates of one chip by number format, without sparsity, and the address where they are published.

    In FLOP/s; for int8 in integer operations per second. A format is left out if its peak is uncertain.
    """

    flops_per_s: Mapping[str, float]
    source: str


def _peaks(source: str, **tera: float) -> Peaks:
    return Peaks(flops_per_s={name: value * 1e12 for name, value in tera.items()}, source=source)


_HOPPER = "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper"
_H100 = "https://www.nvidia.com/en-us/data-center/h100/"
_H200 = "https://www.nvidia.com/en-us/data-center/h200/"
_ADA = "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf"
_RTX_BLACKWELL = (
    "https://images.nvidia.com/aem-dam/Solutions/geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf"
)
_A100 = _peaks(
    "https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
    float32=19.5,
    tf32=156,
    bfloat16=312,
    float16=312,
    int8=624,
)

PUBLISHED: dict[str, Peaks] = {
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA H100 80GB HBM3": _peaks(
        _HOPPER, float32=66.9, tf32=494.7, bfloat16=989.4, float16=989.4, float8=1978.9, int8=1978.9
    ),
    "NVIDIA H100 PCIe": _peaks(_HOPPER, float32=51.2, tf32=378, bfloat16=756, float16=756, float8=1513, int8=1513),
    # From here to the L4 the tensor cores' figures are printed with sparsity only: half of 835, 1671 and 3341 here.
    "NVIDIA H100 NVL": _peaks(_H100, float32=60, tf32=417.5, bfloat16=835.5, float16=835.5, float8=1670.5, int8=1670.5),
    "NVIDIA H200": _peaks(_H200, float32=67, tf32=494.5, bfloat16=989.5, float16=989.5, float8=1979, int8=1979),
    "NVIDIA H200 NVL": _peaks(_H200, float32=60, tf32=417.5, bfloat16=835.5, float16=835.5, float8=1670.5, int8=1670.5),
    # float32 is published both as 75 and as 80, TF32 both as 1100 and as 1125.
    "NVIDIA B200": _peaks(
        "https://www.nvidia.com/en-us/data-center/hgx/", bfloat16=2250, float16=2250, float8=4500, int8=4500
    ),
    "NVIDIA L4": _peaks(
        "https://www.nvidia.com/en-us/data-center/l4/",
        float32=30.3,
        tf32=60,
        bfloat16=121,
        float16=121,
        float8=242.5,
        int8=242.5,
    ),
    "NVIDIA L40": _peaks(
        "https://www.nvidia.com/en-us/data-center/l40/",
        float32=90.5,
        tf32=90.5,
        bfloat16=181.05,
        float16=181.05,
        float8=362,
        int8=362,
    ),
    "NVIDIA L40S": _peaks(
        "https://www.nvidia.com/en-us/data-center/l40s/",
        float32=91.6,
        tf32=183,
        bfloat16=362.05,
        float16=362.05,
        float8=733,
        int8=733,
    ),
    # With float32 accumulation, as PyTorch uses: with float16 accumulation these cards are twice as fast in the half
    # formats. The same holds for float8, but there the library chooses the accumulation, so no peak is given.
    "NVIDIA GeForce RTX 4090": _peaks(_ADA, float32=82.6, tf32=82.6, bfloat16=165.2, float16=165.2, int8=660.6),
    "NVIDIA GeForce RTX 5090": _peaks(
        _RTX_BLACKWELL, float32=104.8, tf32=104.8, bfloat16=209.5, float16=209.5, int8=838
    ),
}
"""By the exact name that torch and NVML report. Chips with similar names differ: an L40S is not an L4, and a laptop or
"D" variant or a slice of a chip (MIG) is not the full chip. A chip not listed has no MFU, only the measured share."""


def published_peaks(device_name: str) -> Peaks | None:
    """The peaks of the chip of exactly this name, None if they are not on file."""
    return PUBLISHED.get(device_name)


def why_no_peaks(device_name: str) -> str:
    """Why the chip has no peaks, in words."""
    whole = ": it is a MIG slice, and the peaks are those of whole chips" if "MIG" in device_name else ""
    return f"no published peak on file for {device_name}{whole}"
