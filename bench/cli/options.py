"""Options that several commands take, each declared once: what belongs together as a group."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import catalogue
from bench.cli.console import usage_errors
from bench.spec import Overrides, Phase, WorkloadSpec
from results import folders


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class Format(StrEnum):
    """Of what is printed, for people or for programs."""

    TABLE = "table"
    JSON = "json"


def kept(text: str) -> Path:
    """The folder of a run, or of runs: a path, or a URL, from which records are fetched."""
    with usage_errors():
        return folders.here(text)


KEPT = "RUN"
"""What stands for such a folder in a command's help."""

Models = Annotated[
    list[str] | None,
    typer.Option(help="FAMILY/SIZE, FILE.py:FUNCTION, a model folder or a Hugging Face id. Can be repeated."),
]
Model = Annotated[str | None, typer.Option(help="FAMILY/SIZE, FILE.py:FUNCTION, a model folder or a Hugging Face id.")]
Plugins = Annotated[
    list[Path] | None, typer.Option(help="A Python file with techniques, models or plans. Can be repeated.")
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="A recipe.json from `trainpace tune`: use its workload and techniques.")
]
Tokens = Annotated[int | None, typer.Option(min=1, help="Tokens per sample.")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command some of whose parameters are groups: the fields of a group are options of their own in its place."""
    groups: dict[str, Any] = {
        name: hint
        for name, hint in typing.get_type_hints(command, include_extras=True).items()
        if dataclasses.is_dataclass(hint)
    }

    def options(of: Any) -> Iterable[inspect.Parameter]:
        return inspect.signature(of, eval_str=True).parameters.values()

    signature = inspect.signature(command, eval_str=True)
    parameters = [
        option.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, own in signature.parameters.items()
        for option in (options(groups[name]) if name in groups else (own,))
    ]

    @functools.wraps(command)
    def with_groups(**given: Any) -> None:
        made = {
            name: group(**{field.name: given.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        command(**given, **made)

    with_groups.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_groups.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_groups


@dataclass(frozen=True, kw_only=True)
class Text:
    """What every command that trains takes: the device, plugins, the batch and the text."""

    device: Annotated[Device | None, typer.Option(help="Default: cuda if torch sees a GPU.")] = None
    plugin: Plugins = None
    batch: Annotated[int | None, typer.Option(min=1, help="Samples per update, over all ranks.")] = None
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            "--corpus",
            help="Text: a file or folder, JSONL, CSV, parquet, a folder saved by datasets, or a data set's hub id. "
            "Default: Python's own sources.",
        ),
    ] = None
    text_column: Annotated[str | None, typer.Option(help="The column that holds the text of a table.")] = None

    @property
    def place(self) -> str | None:
        """The device's name."""
        return self.device.value if self.device else None

    @property
    def plugins(self) -> tuple[Path, ...]:
        return tuple(self.plugin or ())

    def check(self, compositions: Iterable[tuple[str, ...]], *models: str | None, plan: str | None = None) -> None:
        """Raises ValueError for unknown names, before anything that takes seconds to import; a plugin may have any."""
        if not self.plugin:
            catalogue.check(compositions, plan, filter(None, models))


@dataclass(frozen=True, kw_only=True)
class Task(Text):
    """The same with the phase, and the labels of a classifier."""

    phase: Annotated[Phase | None, typer.Option(help="Pretrain (the default), finetune or infer.")] = None
    label_column: Annotated[str | None, typer.Option(help="The column that a classifier learns to predict.")] = None

    def learns(self) -> None:
        """Raises ValueError where nothing is learned."""
        if self.phase is Phase.INFER:
            raise ValueError("phase 'infer' learns nothing: give pretrain or finetune")

    def plain(self) -> dict[str, Any]:
        """As the functions of bench.api name it."""
        names = ("phase", "batch", "data", "text_column", "label_column")
        return {"device": self.place, "plugins": self.plugins} | {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Workload(Task):
    """The same with the length of a sample."""

    sequence: Tokens = None

    def plain(self) -> dict[str, Any]:
        return super().plain() | {"sequence": self.sequence}

    def overrides(self, **others: Any) -> Overrides:
        """In place of what a plan has."""
        return Overrides(
            phase=self.phase,
            batch=self.batch,
            sequence=self.sequence,
            corpus=self.data,
            text_column=self.text_column,
            label_column=self.label_column,
            **others,
        )

    def over(self, spec: WorkloadSpec) -> WorkloadSpec:
        """A workload in what was asked for."""
        return self.overrides().shaped(spec)
