"""Which code an arm has run: that of the checkout it was sent to, or of somewhere else that hides it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.channel import Message

MEASURING = ("bench", "harness", "results", "reports")
"""Our own packages, which are the same on both sides on purpose."""

SOURCE_FOLDERS = (".", "src", "python")
"""Where below its top a repository keeps what is imported, so that a side finds it."""

DEPTH = 3
"""How far below its top a repository's packages are looked for, to know them when others of their name are imported."""


def provenance(checkout: str, links: Sequence[str], elsewhere: str) -> Message:
    """Of what this process has imported: how many `modules` came from the checkout, and the `strays` that should have
    and did not, by name with their files.

    `checkout` is where the side's code lies, `links` are other names of that folder, and `elsewhere` is the folder that
    the gate was started in, whose code is the other side's or nobody's. A module strays if the checkout has a package
    or a module of its name, or if it comes from `elsewhere`. An environment may lie in either folder.
    """
    homes = tuple(f"{Path(home)}/" for home in (checkout, *links))
    hidden = set(_importable(Path(checkout))) - {*MEASURING, *sys.stdlib_module_names}
    modules = 0
    strays = []
    for name, file in _imported():
        is_installed = _is_installed(file)
        if file.startswith(homes) and not is_installed:
            modules += 1
        elif name in hidden or (elsewhere != checkout and file.startswith(f"{elsewhere}/") and not is_installed):
            strays.append(f"{name} from {file}")
    return {"modules": modules, "strays": sorted(strays)}


def _imported() -> Iterator[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield name, file


def _is_installed(file: str) -> bool:
    in_environment = file.startswith((f"{sys.prefix}/", f"{sys.base_prefix}/"))
    return in_environment or "site-packages" in file or "dist-packages" in file


def _importable(checkout: Path) -> Iterator[str]:
    """The names of the checkout's modules at its source folders, and of its packages down to DEPTH below its top."""
    for folder in SOURCE_FOLDERS:
        yield from (file.stem for file in (checkout / folder).glob("*.py"))
    for path, folders, files in os.walk(checkout):
        here = Path(path)
        depth = len(here.relative_to(checkout).parts)
        is_package = "__init__.py" in files
        if is_package and depth:
            yield here.name
        if is_package or depth == DEPTH:
            # What lies in a package has its name before its own.
            folders.clear()
        folders[:] = [
            name for name in folders if not name.startswith(".") and not (here / name / "pyvenv.cfg").exists()
        ]
