"""Published peaks are those of exactly this chip, without sparsity, and in the proper ratios to each other."""

from __future__ import annotations

import pytest

from harness.telemetry.peaks import PUBLISHED, published_peaks, why_no_peaks


@pytest.mark.parametrize(
    ("name", "bfloat16"),
    [
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181.05e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 5090", 209.5e12),
    ],
)
def test_a_chip_has_its_own_peak(name: str, bfloat16: float) -> None:
    peaks = published_peaks(name)
    assert peaks is not None
    assert peaks.flops_per_s["bfloat16"] == pytest.approx(bfloat16)
    assert peaks.source.startswith("https://")


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA RTX A1000",
        "NVIDIA A10",
        "NVIDIA A100X",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 5090 D v2",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",
        "NVIDIA GH200 480GB",
        "AMD EPYC 7B13",
    ],
)
def test_a_chip_of_a_like_name_has_none(name: str) -> None:
    assert published_peaks(name) is None
    assert why_no_peaks(name).startswith(f"no published peak on file for {name}")
    assert ("it is a MIG slice" in why_no_peaks(name)) == ("MIG" in name)


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_peaks_are_dense_and_narrower_formats_are_no_slower(name: str) -> None:
    peaks = PUBLISHED[name].flops_per_s
    assert peaks["float16"] == peaks["bfloat16"]
    # A published figure with sparsity would be twice as high, relative to the others.
    if "tf32" in peaks:
        assert peaks["bfloat16"] / peaks["tf32"] == pytest.approx(2, rel=0.02)
        assert peaks["tf32"] >= peaks["float32"]
    eight = "float8" if "float8" in peaks else "int8"
    assert peaks[eight] / peaks["bfloat16"] == pytest.approx(4 if "GeForce" in name else 2, rel=0.02)
    assert peaks.get("float8", peaks["int8"]) == peaks["int8"]
