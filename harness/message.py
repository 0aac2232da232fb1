"""Messages between processes."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]
"""A JSON object."""
