"""What a side's processes see. Tests copy this file into the repositories that they create."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from bench import plugins
from harness.evidence.provenance import provenance


def imported(whereabouts: dict[str, Any]) -> dict[str, Any]:
    """The content of `mine`, and where it was imported from."""
    import mine  # type: ignore[import-not-found]

    return {"number": mine.NUMBER, "folder": str(Path.cwd()), **provenance(**whereabouts)}


def surroundings() -> dict[str, Any]:
    size = sum(len(name) + len(value) for name, value in os.environ.items())
    return {
        "hash_seed": os.environ["PYTHONHASHSEED"],
        "environment_bytes": size,
        "path": sys.path[0],
        "file": plugins.load_file("probe.py").__file__,
    }
