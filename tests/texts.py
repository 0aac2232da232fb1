"""Real text that does not depend on the project."""

from __future__ import annotations

import asyncio
import unittest
from pathlib import Path


def write(folder: Path) -> Path:
    """Write a small corpus into the folder, and return the folder: two packages of the standard library."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in (asyncio, unittest):
        for source in Path(*package.__path__).glob("*.py"):
            (folder / f"{package.__name__}-{source.name}").write_bytes(source.read_bytes())
    return folder
