"""Options that several commands take, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import usage_errors


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


class Format(StrEnum):
    """Of what is printed, for people or for programs."""

    TABLE = "table"
    JSON = "json"


def kept(text: str) -> Path:
    """The folder of a run, or of runs: a path, or a URL, from which records are fetched."""
    from results import remote

    with usage_errors():
        return remote.here(text)


KEPT = "RUN"
"""What stands for such a folder in a command's help."""

Models = Annotated[
    list[str] | None,
    typer.Option(help="FAMILY/SIZE, FILE.py:FUNCTION, a model folder or a Hugging Face id. May repeat."),
]
DeviceName = Annotated[Device | None, typer.Option(help="Default: cuda where torch sees a GPU.")]
Plugins = Annotated[list[Path] | None, typer.Option(help="A Python file with techniques, models or plans. May repeat.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples of one update over all ranks.")]
Sequence = Annotated[int | None, typer.Option(min=1, help="Tokens of one sample.")]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        "--corpus",
        help="Text: a file or folder, JSONL, CSV, parquet, a folder saved by datasets, or its hub id. "
        "Default: Python's own sources.",
    ),
]
RecipeFile = Annotated[
    Path | None, typer.Option("--recipe", help="A recipe.json of `trainpace tune`: its workload under its techniques.")
]
TextColumn = Annotated[str | None, typer.Option(help="Where a table has its text.")]
LabelColumn = Annotated[str | None, typer.Option(help="What a classifier is fine-tuned to tell.")]
