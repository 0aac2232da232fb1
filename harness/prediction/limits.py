"""The facts about a device that predictions depend on, and how a prediction says that it is impossible. Without
torch."""

from __future__ import annotations

FLASH = (8, 0)
"""The compute capability that FlashAttention needs (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp)."""

HOPPER = (9, 0)
"""The capability from which on the matrix library reserves more memory. It is the default."""


FOUND_BY_TRYING = "its batch is found by trying"
"""Why the memory of an arm that searches for its own batch is not known."""


class Unforeseen(Exception):
    """Something that cannot be known without running it; the message says why, for the user."""
