"""Text that shows what it says: a stranger's names may hold what moves a cursor or turns a line around."""

from __future__ import annotations

import unicodedata


def printable(text: str, keep: str = "") -> str:
    """The text with another sign in place of control characters, terminal escapes and marks that change the direction,
    but for those to `keep`."""
    return "".join(sign if _is_shown(sign) or sign in keep else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _is_shown(sign: str) -> bool:
    # Python takes all spaces but one for what cannot be shown.
    return sign.isprintable() or unicodedata.category(sign) == "Zs"
