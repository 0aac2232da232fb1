"""`trainpace init`: a workload for the script that is there, the gate's table and a workflow that runs the gate."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.console import fail, usage_errors

TEMPLATES = Path(__file__).parent.parent / "templates"
USUAL = ("train.py", "main.py", "finetune.py", "run.py", "training.py")
"""Where a script for training is looked for if none is named."""

TABLE = """\
[tool.trainpace.gate]
# What `trainpace gate` compares. A slow-down of more than the tolerance is a regression, and a pass proves that any
# slow-down is less than the harm. Both are shares of the step time.
models = ["{model}"]
tolerance = 0.01
harm = 0.03
"""


class Kind(StrEnum):
    """How a script trains; the name of a template."""

    TRAINER = "trainer"
    LIGHTNING = "lightning"
    LOOP = "loop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was read in a script. `model`, `data` and `trainer` are names in it that need no arguments, None where there
    is none, or where the script cannot be imported: `hint` says why. `is_loader`: the data is a DataLoader."""

    kind: Kind
    model: str | None = None
    data: str | None = None
    is_loader: bool = False
    trainer: str | None = None
    lightning: str = "lightning"
    hint: str | None = None


def init(
    script: Annotated[Path | None, typer.Argument(help=f"Default: the first found of {', '.join(USUAL)}.")] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("workload.py"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a workload for a training script, the gate's table in pyproject.toml and a CI workflow for the gate."""
    with usage_errors():
        if script is None:
            script = next((Path(name) for name in USUAL if Path(name).is_file()), None)
        elif not script.is_file():
            raise ValueError(f"script {str(script)!r} does not exist: give the .py file of your training script")
        if out.exists() and not force:
            raise ValueError(f"{str(out)!r} already exists: choose another --out, or give --force to overwrite it")
        found = read(script) if script else Found(kind=Kind.LOOP)
        out.write_text(render(found, script, out), encoding="utf-8")
        said = [f"{out}: for {script or 'no script, as none was found'} ({found.kind})"]
        said += [_table(out), _workflow()]
    typer.echo("\n".join(said))
    if "CHANGE:" in out.read_text(encoding="utf-8"):
        typer.echo(f"Replace the lines marked CHANGE: in {out} with your own code; the file also runs as it is.")
    typer.echo(f"\nnext: trainpace run --model {out}:workload --technique amp_bf16")


def render(found: Found, script: Path | None, out: Path) -> str:
    """The text of the workload's file."""
    import jinja2

    source = jinja2.Environment(loader=jinja2.FileSystemLoader(TEMPLATES), keep_trailing_newline=True)
    made = source.get_template(f"{found.kind}.py.jinja").render(
        script=script.name if script else None,
        module=script.stem if script else None,
        file=out,
        model=found.model,
        data=found.data,
        is_loader=found.is_loader,
        trainer=found.trainer,
        lightning=found.lightning,
        hint=found.hint,
    )
    return made.rstrip() + "\n"


def read(script: Path) -> Found:
    """What the script shows without being run. Raises ValueError if it is no Python."""
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ValueError(f"script {str(script)!r} is not valid Python: {error}") from error
    imported = set(_imported(tree))
    packages = {name.partition(".")[0] for name in imported}
    trainers = {name for name in imported if name.startswith(("transformers.", "trl.")) and name.endswith("Trainer")}
    lightning = next((name for name in ("lightning", "pytorch_lightning") if name in packages), None)
    kind = Kind.TRAINER if trainers else Kind.LIGHTNING if lightning else Kind.LOOP
    hint = _why_not_imported(tree, script)
    if hint:
        return Found(kind=kind, lightning=lightning or "lightning", hint=hint)
    makers = [node for node in tree.body if isinstance(node, ast.FunctionDef) and _needs_nothing(node.args)]
    bases = {node.name: [_last(base) for base in node.bases] for node in tree.body if isinstance(node, ast.ClassDef)}
    free = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and _is_made_of_nothing(node)]
    models, sets = (
        ({"LightningModule"}, {"LightningDataModule"})
        if kind is Kind.LIGHTNING
        else ({"Module"}, {"Dataset", "IterableDataset"})
    )
    loader = next((node.name for node in makers if _returns(node, {"DataLoader"})), None)
    return Found(
        kind=kind,
        model=_first(free, bases, models),
        data=loader or _first(free, bases, sets),
        is_loader=loader is not None,
        trainer=next((node.name for node in makers if _returns(node, {_last_of(name) for name in trainers})), None),
        lightning=lightning or "lightning",
    )


def _imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names of what is imported anywhere, and of what is taken of it: `transformers.Trainer`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{item.name}" for item in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _why_not_imported(tree: ast.Module, script: Path) -> str | None:
    """Whether to import the script would run it."""
    for node in tree.body:
        runs = isinstance(node, ast.For | ast.While | ast.With)
        if runs or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
            return (
                f"{script.name} runs when it is imported, see its line {node.lineno}: move that code below "
                '`if __name__ == "__main__":`, then import from it here'
            )
    return None


def _needs_nothing(arguments: ast.arguments, given: int = 0) -> bool:
    required = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return required <= given and all(default is not None for default in arguments.kw_defaults)


def _is_made_of_nothing(node: ast.ClassDef) -> bool:
    made = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    return made is None or _needs_nothing(made.args, given=1)


def _first(free: list[str], bases: dict[str, list[str]], wanted: set[str]) -> str | None:
    """The last class of a kind that needs no arguments: those before it are its parts."""
    return next((name for name in reversed(free) if wanted.intersection(bases[name])), None)


def _returns(node: ast.FunctionDef, classes: set[str]) -> bool:
    """Whether a function returns an object of one of these classes, at once or by a name that it gave it."""
    calls = {
        target.id
        for item in ast.walk(node)
        if isinstance(item, ast.Assign) and _is_call_of(item.value, classes)
        for target in item.targets
        if isinstance(target, ast.Name)
    }
    return any(
        isinstance(item, ast.Return)
        and (_is_call_of(item.value, classes) or (isinstance(item.value, ast.Name) and item.value.id in calls))
        for item in ast.walk(node)
    )


def _is_call_of(node: ast.expr | None, classes: set[str]) -> bool:
    return isinstance(node, ast.Call) and _last(node.func) in classes


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _last_of(name: str) -> str:
    return name.rpartition(".")[2]


def _table(out: Path) -> str:
    """Say in pyproject.toml what the gate compares, unless it is said."""
    file = Path("pyproject.toml")
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    try:
        known = tomllib.loads(text).get("tool", {}).get("trainpace", {})
    except tomllib.TOMLDecodeError as error:
        fail(f"pyproject.toml cannot be read and was left unchanged: {error}")
    if "gate" in known:
        return f"{file}: left unchanged, it already has [tool.trainpace.gate]"
    added = TABLE.format(model=f"{out}:workload")
    file.write_text(f"{text.rstrip()}\n\n{added}" if text.strip() else added, encoding="utf-8")
    return f"{file}: [tool.trainpace.gate]"


def _workflow() -> str:
    """A workflow of GitHub Actions that runs the gate on pull requests, unless there is one of that name."""
    file = Path(".github/workflows/trainpace.yml")
    if file.exists():
        return f"{file}: left unchanged"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((TEMPLATES / "gate.yml").read_text(encoding="utf-8"), encoding="utf-8")
    return f"{file}: the gate on pull requests"
