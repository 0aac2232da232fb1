"""Tests, in folders that mirror the packages, and scripts that measure trainpace itself."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The root of the checkout."""
