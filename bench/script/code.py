"""How a technique is written by hand. Standard library only, because every technique declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any

Options = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The lines that a technique adds to a plain script; `bench/templates/recipe.py.jinja` shows where they go.

    `imports` are whole statements and `functions` are definitions. `first` comes before the model is built, `model`
    once `model` exists. `optimizer` makes `optimizer` from the parameters `{parameters}`; `parameters` says what those
    are, and `optimized` comes once the optimizer exists. `contexts` surround the forward pass, `loss` comes after it.
    `gradients` comes before the update, `update` makes it and frees the gradients, `updated` comes after it. `loader`
    are options of the DataLoader; `feed` wraps the endless batches. `scaler`: the loss is scaled. `accumulate` is the
    number of micro-batches per update. `number_format` is what a batch's floats are converted to. `linear`: the model's
    Conv1D layers become nn.Linear before anything else. `ranks` joins the models of several ranks, each of which gets a
    share of the batch; `part` comes before each of their micro-batches, or around it. `apart` names the techniques and
    families with which the technique would be written differently.

    `trainer` are the equivalent TrainingArguments of transformers, and `lightning` the equivalent flags of Lightning's
    Trainer; None: there are none. In any text, `{value}` is the technique's value and `{blocks}` iterates over the
    layers.
    """

    imports: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    first: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    parameters: str = ""
    optimizer: tuple[str, ...] = ()
    optimized: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    loss: tuple[str, ...] = ()
    gradients: tuple[str, ...] = ()
    update: tuple[str, ...] | None = None
    updated: tuple[str, ...] = ()
    loader: Options = field(default_factory=dict)
    feed: str = ""
    scaler: bool = False
    accumulate: int | str = 1
    number_format: str = ""
    linear: bool = False
    ranks: tuple[str, ...] = ()
    part: tuple[str, ...] = ()
    apart: Set[str] = frozenset()
    trainer: Options | None = None
    lightning: Options | None = None

    def of(self, value: Any) -> Code:
        """The same code for one of the technique's values."""
        return self.filled("{value}", value)

    def filled(self, mark: str, value: Any) -> Code:
        """The same code with `value` in place of `mark`."""
        changed = {item.name: _filled(getattr(self, item.name), mark, value) for item in fields(self)}
        return replace(self, **changed)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that change a model, its optimizer and its data, whoever trains them."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.loader.items())
        loader = (f"loader = DataLoader(samples, {given})",) if given else ()
        return (*self.imports, *self.functions, *self.first, *self.model, *self.optimizer, *loader)

    @property
    def is_in_the_loop(self) -> bool:
        """Whether it needs something that only a training loop of one's own can do."""
        told = (self.parameters, self.contexts, self.loss, self.gradients, self.updated, self.feed, self.scaler)
        return any(told) or self.update is not None or self.accumulate != 1 or bool(self.ranks)


def _filled(item: Any, mark: str, value: Any) -> Any:
    """Fill the mark in one item. A number stays a number if it is all there is."""
    if item == mark:
        return value
    if isinstance(item, str):
        return item.replace(mark, str(value))
    if isinstance(item, tuple):
        return tuple(_filled(part, mark, value) for part in item)
    if isinstance(item, Mapping):
        return {name: _filled(part, mark, value) for name, part in item.items()}
    return item


PLAIN = Code(
    optimizer=("optimizer = torch.optim.AdamW({parameters}, lr=LEARNING_RATE)",),
    parameters="model.parameters()",
    update=("optimizer.step()", "optimizer.zero_grad()"),
)
"""Plain training, as in the baseline."""


def together(codes: tuple[Code, ...]) -> Code:
    """Plain training with all of them, in the order of application."""
    made = PLAIN
    for code in codes:
        joined: dict[str, Any] = {
            name: (*getattr(made, name), *getattr(code, name))
            for name in (
                "imports",
                "functions",
                "first",
                "model",
                "optimized",
                "contexts",
                "loss",
                "gradients",
                "updated",
                "ranks",
                "part",
            )
        }
        made = replace(
            made,
            **joined,
            parameters=code.parameters or made.parameters,
            optimizer=code.optimizer or made.optimizer,
            update=made.update if code.update is None else code.update,
            loader={**made.loader, **code.loader},
            feed=code.feed or made.feed,
            scaler=code.scaler or made.scaler,
            accumulate=made.accumulate if code.accumulate == 1 else code.accumulate,
            number_format=code.number_format or made.number_format,
            linear=made.linear or code.linear,
        )
    return made.filled("{parameters}", made.parameters)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """What a recipe is to a trainer of another library: its arguments; the `lines` that apply techniques to the model
    and its optimizer there too; and the techniques that it has `no_word` for."""

    arguments: Mapping[str, object]
    lines: Sequence[str]
    no_word: Sequence[str]
