"""Cards by name and by size."""

from __future__ import annotations

import pytest

from bench.cards import ANY_CAPABILITY, CARDS, card, memory


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("L40S", "L40S"),
        ("l40s", "L40S"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("A100-80GB", "A100 80GB"),
    ],
)
def test_a_card_is_known_by_its_name_whatever_its_spelling(text: str, name: str) -> None:
    assert card(text) is CARDS[name]


def test_of_a_size_alone_the_least_is_taken() -> None:
    made = card("24GB")
    assert (made.memory_bytes, made.capability) == (24 << 30, ANY_CAPABILITY)
    assert card("23.5 GiB").memory_bytes == 47 << 29


def test_an_unknown_card_is_refused_with_those_that_are_meant() -> None:
    with pytest.raises(ValueError, match=r"card 'A100' is unknown: did you mean A100 40GB, A100 80GB"):
        card("A100")
    with pytest.raises(ValueError, match=r"card 'Voodoo' is unknown: .*as in 24GB, or one of T4, "):
        card("Voodoo")


def test_every_card_has_what_programs_see_of_it() -> None:
    for name, found in CARDS.items():
        assert found.name == name and found.capability >= (7, 5)
        # If a card's name contains a size, it is in GB; drivers reserve part of it.
        assert 8 << 30 < found.memory_bytes < 200 << 30


def test_sizes_of_memory() -> None:
    assert memory("16GB") == 16 * 10**9
    assert memory("500 mib") == 500 << 20
    with pytest.raises(ValueError, match="memory '16' is not a size: give a number with GB, GiB, MB or MiB"):
        memory("16")
