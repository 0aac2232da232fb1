"""Techniques, models and plans from elsewhere: installed packages that declare entry points, and files that users name.

Either way the module is imported and registers what it has, with `@technique`, `@plan` and `register(Family(...))`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from bench.causes import root_cause

GROUPS = ("trainpace.techniques", "trainpace.models", "trainpace.plans")
"""Entry point groups; the value of an entry point is a module, as in `sign_sgd = "my_package.techniques"`."""


@functools.cache
def load_installed() -> None:
    """Import what installed packages declare. Raises ValueError, naming the package, if one cannot be imported."""
    from importlib.metadata import entry_points

    for group in GROUPS:
        for point in entry_points(group=group):
            try:
                point.load()
            except Exception as error:
                package = point.dist.name if point.dist else "an installed package"
                raise ValueError(
                    f"{package} declares {point.value!r} as {group}, which fails to import: "
                    f"{type(error).__name__}: {error}; fix or uninstall it"
                ) from error


def load_file(path: str | Path, *, kind: str = "plugin") -> ModuleType:
    """Import a file by its path, once per process, even if it is already imported by name. The file can import those
    beside it.

    Raises ValueError, naming the file as a `kind`, if it is missing or fails to import.
    """
    file = _by_the_path(Path(path))
    name = f"trainpace_file_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    loaded = sys.modules.get(name) or _imported_by_name(file)
    if loaded is not None:
        return loaded
    if not file.is_file():
        raise ValueError(f"{kind} file {str(path)!r} does not exist: give the path of a .py file")
    location = importlib.util.spec_from_file_location(name, file)
    if file.suffix != ".py" or location is None or location.loader is None:
        raise ValueError(f"{kind} file {str(path)!r} is not a Python file: give the path of a .py file")
    module = importlib.util.module_from_spec(location)
    sys.path.insert(0, str(file.parent))
    # Dataclasses and pickling look a class's module up by name.
    sys.modules[name] = module
    try:
        with _no_arguments(file):
            location.loader.exec_module(module)
    except SystemExit as error:
        del sys.modules[name]
        raise ValueError(
            f"{kind} file {str(path)!r} ended the program when it was imported (exit code {error.code}): put what it "
            'runs below `if __name__ == "__main__":`'
        ) from error
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{kind} file {str(path)!r} failed to import: {root_cause(error)}") from error
    return module


def _imported_by_name(file: Path) -> ModuleType | None:
    """The module that an import statement made from the file: a second one would register its techniques again."""
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) == str(file) and module.__name__ != "__main__":
            return module
    return None


@contextlib.contextmanager
def _no_arguments(file: Path) -> Iterator[None]:
    """Hide the arguments of this process: a script that reads its arguments at the top finds its own name and no
    arguments."""
    ours, sys.argv = sys.argv, [str(file)]
    try:
        yield
    finally:
        sys.argv = ours


def _by_the_path(file: Path) -> Path:
    """The absolute name of the file. A relative name is looked up in sys.path first: a gate puts the code of each side
    there, in folders whose names vary, and the model's own file has to come from the same side."""
    if not file.is_absolute() and file.is_file():
        for folder in map(Path, sys.path):
            named = folder / file
            if folder.is_absolute() and named.is_file() and named.samefile(file):
                return named
    return file.resolve()
