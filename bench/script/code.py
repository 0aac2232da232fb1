"""How a technique is written by hand. Standard library only: every technique declares it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, fields, replace
from typing import Any

Options = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """The lines that a technique adds to a plain script; see `bench/templates/recipe.py.jinja` for where they stand.

    `imports` are whole statements and `functions` definitions. `first` comes before the model is built, `model` once
    `model` is there. `optimizer` makes `optimizer`, from the parameters `{parameters}`; `parameters` says what those
    are, `optimized` comes once it is made. `contexts` are around the forward pass, `loss` comes after it. `gradients`
    comes before the update, `update` makes it and frees the gradients, `updated` comes after it. `loader` are options
    of the DataLoader, `feed` wraps the endless batches. `scaler`: the loss is scaled. `accumulate`: micro-batches of an
    update. `number_format` is what floats of a batch become. `linear`: the model's Conv1D layers are nn.Linear before
    anything else. `ranks` join the models of several, which have a share of the batch each; `part` comes before each
    micro-batch of theirs, or around it. `apart` are techniques and families beside which this is not how it is done.

    `trainer` are the TrainingArguments of transformers and `lightning` the flags of Lightning's Trainer that mean the
    same; None: there are none. In any text `{value}` is the technique's value, `{blocks}` what goes over the layers.
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
        """The same for one of a technique's values."""
        return self.filled("{value}", value)

    def filled(self, mark: str, value: Any) -> Code:
        """The same with the value in place of the mark."""
        changed = {item.name: _filled(getattr(self, item.name), mark, value) for item in fields(self)}
        return replace(self, **changed)

    @property
    def lines(self) -> tuple[str, ...]:
        """What can be done to a model, its optimizer and its data whoever trains them."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.loader.items())
        loader = (f"loader = DataLoader(samples, {given})",) if given else ()
        return (*self.imports, *self.functions, *self.first, *self.model, *self.optimizer, *loader)

    @property
    def is_in_the_loop(self) -> bool:
        """Whether it says something that only a loop of one's own can."""
        told = (self.parameters, self.contexts, self.loss, self.gradients, self.updated, self.feed, self.scaler)
        return any(told) or self.update is not None or self.accumulate != 1 or bool(self.ranks)


def _filled(item: Any, mark: str, value: Any) -> Any:
    """Numbers stay numbers where they are all that is said."""
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
"""Plain training, as the baseline has it."""


def together(codes: tuple[Code, ...]) -> Code:
    """Plain training with all of them, in the order in which their techniques are applied."""
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
    """What a recipe is to a trainer of another library: its arguments, the techniques that are `lines` on the model and
    its optimizer there too, and those that it has `no_word` for."""

    arguments: Mapping[str, object]
    lines: Sequence[str]
    no_word: Sequence[str]
