"""What a prediction depends on of a device, and how it says that it is none. Without torch."""

from __future__ import annotations

FLASH = (8, 0)
"""The compute capability from which on FlashAttention runs (aten/src/ATen/native/transformers/cuda/sdp_utils.cpp)."""

HOPPER = (9, 0)
"""That from which on the matrix library keeps more for itself. It is taken where none is named."""


FOUND_BY_TRYING = "its batch is found by trying"
"""Why the memory of an arm is not known that looks for its batch itself."""


class Unforeseen(Exception):
    """What cannot be known without running it; the message says why, for the user."""
