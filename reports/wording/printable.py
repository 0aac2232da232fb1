"""Safe text: untrusted names may contain characters that move the cursor or reverse the direction of a line."""

from __future__ import annotations

import unicodedata


def printable(text: str, keep: str = "") -> str:
    """The text with a replacement character for each control character, terminal escape and direction mark, except for
    those to `keep`."""
    return "".join(sign if _is_shown(sign) or sign in keep else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _is_shown(sign: str) -> bool:
    # Python considers all spaces but one unprintable.
    return sign.isprintable() or unicodedata.category(sign) == "Zs"
