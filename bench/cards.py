"""Graphics cards by name: the memory of each, and what its kernels can do. Standard library only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A graphics card. `memory_bytes` is the total that its driver reports, `capability` the CUDA compute capability
    (major, minor)."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]


def _card(name: str, mebibytes: int, capability: tuple[int, int]) -> Card:
    return Card(name=name, memory_bytes=mebibytes << 20, capability=capability)


CARDS = {
    card.name: card
    for card in (
        _card("T4", 15360, (7, 5)),
        _card("RTX 3060", 12288, (8, 6)),
        _card("RTX 3090", 24576, (8, 6)),
        _card("A10", 23028, (8, 6)),
        _card("A10G", 23028, (8, 6)),
        _card("A40", 46068, (8, 6)),
        _card("RTX A6000", 49140, (8, 6)),
        _card("A100 40GB", 40960, (8, 0)),
        _card("A100 80GB", 81920, (8, 0)),
        _card("RTX 4080", 16376, (8, 9)),
        _card("RTX 4090", 24564, (8, 9)),
        _card("RTX 6000 Ada", 49140, (8, 9)),
        _card("L4", 23034, (8, 9)),
        _card("L40S", 46068, (8, 9)),
        _card("RTX 5090", 32607, (12, 0)),
        _card("H100", 81559, (9, 0)),
        _card("H100 NVL", 95830, (9, 0)),
        _card("H200", 143771, (9, 0)),
        _card("B200", 183359, (10, 0)),
    )
}
"""Total memory as nvidia-smi reports it for cards as shipped; a program sees some hundred MiB less. Compute capability
from https://developer.nvidia.com/cuda-gpus."""

ANY_CAPABILITY = (8, 0)
"""The capability assumed for a card given only by its size: the lowest that has bfloat16 and FlashAttention."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)", re.IGNORECASE)
_UNITS = {"gb": 10**9, "gib": 2**30, "mb": 10**6, "mib": 2**20}


def card(text: str) -> Card:
    """The card of this name, in any case and spacing, or a card of this size, such as `24GB`, which makers use to mean
    GiB.

    Raises ValueError for an unknown card, with the known names.
    """
    known = {_plain(name): found for name, found in CARDS.items()}
    plain = _plain(re.sub(r"(?i)nvidia|geforce", "", text))
    if plain in known:
        return known[plain]
    if size := _SIZE.fullmatch(text.strip()):
        unit = "gib" if size[2].lower() == "gb" else size[2].lower()
        return Card(name=text.strip(), memory_bytes=round(float(size[1]) * _UNITS[unit]), capability=ANY_CAPABILITY)
    near = [name for name in known if name.startswith(plain)] or difflib.get_close_matches(plain, known, n=3)
    meant = f"did you mean {', '.join(known[name].name for name in near)}? " if near else ""
    raise ValueError(f"card {text!r} is unknown: {meant}Give a size, as in 24GB, or one of {', '.join(CARDS)}")


def memory(text: str) -> int:
    """The bytes of a size like 16GB or 500MiB. Raises ValueError for anything else."""
    if size := _SIZE.fullmatch(text.strip()):
        return round(float(size[1]) * _UNITS[size[2].lower()])
    raise ValueError(f"memory {text!r} is not a size: give a number with GB, GiB, MB or MiB, as in 16GB")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
