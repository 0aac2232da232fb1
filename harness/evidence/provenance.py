"""Which code an arm has run: that of its own checkout, or code from elsewhere that hides it."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.message import Message

MEASURING = ("bench", "harness", "results", "reports")
"""Our own packages, which are deliberately the same on both sides."""

SOURCE_FOLDERS = (".", "src", "python")
"""Folders below the top of a repository that may hold importable code, so that a side finds it."""


def provenance(checkout: str, links: Sequence[str], elsewhere: str) -> Message:
    """How many of this process's `modules` came from the checkout, and the `strays` that should have but did not, as
    names with their files.

    `checkout` is the folder with the side's code, `links` are other paths to it, and `elsewhere` is the folder that the
    gate was started in, whose code is the other side's or nobody's. An environment may lie in either folder. A module
    is a stray if the checkout has a module of its name where a side looks for it, if it comes from `elsewhere`, or if
    it was installed from there.
    """
    homes = tuple(f"{Path(home)}/" for home in (checkout, *links))
    hidden = set(_importable(Path(checkout))) - {*MEASURING, *sys.stdlib_module_names}
    installed = _installed_from(elsewhere)
    modules = 0
    strays = []
    for name, file in imported():
        from_outside = is_installed(file)
        if file.startswith(homes) and not from_outside:
            modules += 1
        elif (
            name in hidden
            or (from_outside and name in installed)
            or (elsewhere != checkout and file.startswith(f"{elsewhere}/") and not from_outside)
        ):
            strays.append(f"{name} from {file}")
    return {"modules": modules, "strays": sorted(strays)}


def imported() -> Iterator[tuple[str, str]]:
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            yield name, file


def is_installed(file: str) -> bool:
    in_environment = file.startswith((f"{sys.prefix}/", f"{sys.base_prefix}/"))
    return in_environment or "site-packages" in file or "dist-packages" in file


def _importable(checkout: Path) -> Iterator[str]:
    """The names of the modules and packages in the checkout's source folders."""
    for folder in SOURCE_FOLDERS:
        yield from (file.stem for file in (checkout / folder).glob("*.py"))
        yield from (file.parent.name for file in (checkout / folder).glob("*/__init__.py"))


def _installed_from(folder: str) -> set[str]:
    """The top-level names of what was installed from inside a folder, according to the installer's record (PEP 610)."""
    names: set[str] = set()
    for distribution in importlib.metadata.distributions():
        origin = json.loads(distribution.read_text("direct_url.json") or "{}").get("url", "")
        path = Path(urllib.request.url2pathname(urllib.parse.urlparse(origin).path))
        if origin.startswith("file:") and path.is_relative_to(folder):
            names |= {file.parts[0].removesuffix(".py") for file in distribution.files or () if file.suffix == ".py"}
    return names - set(MEASURING)
