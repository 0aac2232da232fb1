"""Tests, in folders that mirror the packages, and programs that measure trainpace itself."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout."""
