"""Which code an arm has run: that of the checkout it was sent to, or of somewhere else that hides it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.channel import Message

MEASURING = ("bench", "harness", "results", "reports")
"""Our own packages, which are the same on both sides on purpose."""

SOURCE_FOLDERS = (".", "src", "python")
"""Where below its top a repository keeps what is imported."""


def provenance(checkout: str, links: Sequence[str], elsewhere: str) -> Message:
    """Of what this process has imported: how many `modules` came from the checkout, and the `strays` that should have
    and did not, by name with their files.

    `checkout` is where the side's code lies, `links` are other names of that folder, and `elsewhere` is the folder that
    the gate was started in, whose code is the other side's or nobody's. A module strays if the checkout has one of its
    name, or if it comes from `elsewhere`.
    """
    homes = tuple(f"{Path(home)}/" for home in (checkout, *links))
    own = 0
    strays = []
    for name, file in _imported():
        if file.startswith(homes):
            own += 1
        elif name.partition(".")[0] not in MEASURING and (
            _is_shadowed(name, Path(checkout)) or _comes_from(file, elsewhere, checkout)
        ):
            strays.append(f"{name} from {file}")
    return {"modules": own, "strays": sorted(strays)}


def _imported() -> Iterator[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield name, file


def _is_shadowed(name: str, checkout: Path) -> bool:
    """Whether the checkout has a package or a module of this top-level name."""
    if "." in name or name in sys.stdlib_module_names:
        return False
    tops = [checkout / folder for folder in SOURCE_FOLDERS]
    return any((top / f"{name}.py").is_file() or (top / name / "__init__.py").is_file() for top in tops)


def _comes_from(file: str, elsewhere: str, checkout: str) -> bool:
    """An environment that is kept inside the folder is not the folder's own code."""
    return elsewhere != checkout and file.startswith(f"{elsewhere}/") and "site-packages" not in Path(file).parts
