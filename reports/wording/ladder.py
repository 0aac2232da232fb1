"""The result of a tuning in sentences and rows, for both the terminal and the page."""

from __future__ import annotations

from collections.abc import Sequence

from bench.facts import Objective
from bench.script.code import Elsewhere
from bench.script.text import named
from bench.spec import BASELINE
from reports.wording import quantity
from results.ladder import Confirmation, Gain, Ladder, Rung, Tried


def name(techniques: Sequence[str]) -> str:
    return "+".join(techniques) or BASELINE


def factor(gain: Gain) -> str:
    """The gain as a factor, with its bounds as far as they are known."""
    return "unknown" if gain.speedup is None else quantity.ratio_interval(gain.speedup, gain.low, gain.high)


def step(rung: Rung) -> str:
    """What a rung changed, such as "+ compile" or "+ compile, - compile_blocks"."""
    if rung.chosen is None:
        return "nothing joined"
    return ", ".join([*(f"+ {item}" for item in rung.added), *(f"- {item}" for item in rung.removed)])


def answer(ladder: Ladder) -> str:
    """The recipe, and what is known about it, in one line."""
    where = f"{ladder.workload['model']} on {ladder.device_name} ({ladder.device})"
    if not ladder.techniques:
        return f"{where}: the recipe is empty, because {_why_empty(ladder)}"
    recipe, found = name(ladder.techniques), ladder.confirmation
    if found is None or found.whole.speedup is None:
        return f"{where}: {recipe} is the best so far, but not confirmed: {ladder.ended}"
    if learns_otherwise(ladder):
        return (
            f"{where}: {recipe} reaches the loss of {BASELINE} at {factor(found.whole)} the speed, confirmed over "
            f"{found.whole.repetitions} fresh seeds"
        )
    return (
        f"{where}: {recipe} trains {_more(found.whole, ladder)} {BASELINE}, "
        f"confirmed on {found.whole.repetitions} fresh repetitions"
    )


def _more(gain: Gain, ladder: Ladder) -> str:
    """The factor in words, up to the name of what it is compared with."""
    if ladder.objective is Objective.ENERGY:
        return f"{factor(gain)} as much with the same energy as"
    return f"at {factor(gain)} the speed of"


def learns_otherwise(ladder: Ladder) -> bool:
    """Whether the recipe learns differently, so that its factors compare the time to the same loss."""
    return any(rung.objective is Objective.WORTH and rung.chosen for rung in ladder.rungs)


def measured(ladder: Ladder) -> str:
    """What the factors measure."""
    if learns_otherwise(ladder):
        return "the speed to the same loss"
    return "the training for the same energy" if ladder.objective is Objective.ENERGY else "the pace"


def _why_empty(ladder: Ladder) -> str:
    return "nothing helps beyond doubt" if ladder.ended.startswith("nothing more") else ladder.ended


def climb(ladder: Ladder) -> list[dict[str, str]]:
    """A row for each rung at which a technique joined."""
    found = ladder.confirmation
    return [
        {
            "rung": str(number),
            "step": step(rung),
            "factor": factor(rung.gain),
            "memory": _memory(rung.chosen.peak_memory_bytes),
            "without it, at the end": _without(found, rung),
            "took": quantity.duration(rung.seconds),
        }
        for number, rung in enumerate(ladder.steps, 1)
        if rung.chosen
    ]


def _without(found: Confirmation | None, rung: Rung) -> str:
    """The pace without what joined at this rung, over the recipe's, on fresh repetitions."""
    added = [found.without[item] for item in rung.added if found and item in found.without]
    return factor(added[0].gain) if added else "-"


def _memory(size_bytes: int | None) -> str:
    return "unknown" if size_bytes is None else quantity.memory(size_bytes)


def sentences(ladder: Ladder) -> list[str]:
    """Everything else about the result."""
    said = []
    if ladder.memory_bytes is not None and ladder.techniques:
        said.append(
            f"{BASELINE} takes more than the allowed {_memory(ladder.memory_bytes)}: the recipe is the fastest one "
            "found that takes no more."
        )
    found, product = ladder.confirmation, ladder.product
    if product is not None and found and found.whole.speedup is not None and found.techniques:
        said.append(
            f"The rungs multiply to {quantity.ratio(product)}; measured end to end, the whole is {factor(found.whole)}."
        )
    if found and found.runner_up:
        said.append(f"The runner-up, {found.runner_up.label}, trains {_more(found.runner_up.gain, ladder)} the recipe.")
    if found and found.peak_memory_bytes and all(size is not None for size in found.peak_memory_bytes.values()):
        labels = (BASELINE, name(ladder.techniques or found.techniques))
        told = (
            f"{label} takes {_memory(found.peak_memory_bytes.get(key))}"
            for label, key in zip(labels, found.peak_memory_bytes, strict=True)
        )
        said.append(f"Memory: {', '.join(told)}.")
    if learns_otherwise(ladder):
        said.append(
            f"Factors compare how soon the loss is reached, at {ladder.learning_rate:.3g} times the workload's "
            "learning rate. The trainings are in the folders learning-N and confirmation."
        )
    said.append(f"It climbed no further because {ladder.ended}; it took {quantity.duration(ladder.seconds)} in all.")
    if ladder.allowed:
        said.append(f"As you allowed, it may change the {', '.join(ladder.allowed)}.")
    return said


def docstring(ladder: Ladder, ranks: int) -> list[str]:
    """The docstring of the recipe's script, which trains with so many ranks."""
    launcher = "python" if ranks == 1 else f"torchrun --nproc-per-node {ranks}"
    how = [
        f"`{launcher} recipe.py` trains. With --check it trains without dropout and",
        "compares its first losses with those that were measured.",
    ]
    model = ladder.workload["model"]
    where = f"Measured by trainpace {ladder.version} on {ladder.device_name} ({ladder.device})."
    if not ladder.techniques:
        return [f"Train {model} plainly: {_why_empty(ladder)}.", "", where, "", *how]
    what = measured(ladder).capitalize()
    steps = [(step(rung), factor(rung.gain)) for rung in ladder.steps]
    steps.append(("together, on fresh repetitions", factor(ladder.whole)))
    width = max(len(name) for name, _ in steps)
    lines = [f"    {name:{width}}  {pace}" for name, pace in steps]
    head = [f"Train {model} with {name(ladder.techniques)}.", "", where, f"{what} over plain PyTorch:", ""]
    return [*head, *lines, "", *how]


CALLS = {"transformers": "TrainingArguments", "lightning": "Trainer"}
"""The class that takes each library's arguments."""


def elsewhere(ladder: Ladder) -> list[dict[str, str]]:
    """For each library, what to write there, and which techniques have no equivalent there."""
    return [
        {"library": library, "code": _call(CALLS[library], told), "no word": ", ".join(told.no_word)}
        for library, told in ladder.elsewhere.items()
        if ladder.techniques
    ]


def _call(function: str, told: Elsewhere) -> str:
    arguments = [f"    {argument}," for argument in named(told.arguments)]
    lines = [f"{function}(", *arguments, ")"] if arguments else []
    # In Lightning the optimizer goes into configure_optimizers, in transformers into Trainer(optimizers=...).
    return "\n".join([*lines, *(["# on the model, its optimizer and its data:", *told.lines] if told.lines else [])])


def dropped(ladder: Ladder) -> list[tuple[str, str]]:
    """Each technique that was tried but is not in the recipe, with the outcome of its last try."""
    last: dict[str, tuple[Tried, Rung]] = {}
    for rung in ladder.rungs:
        for item in rung.tried:
            for technique in set(item.techniques) - set(rung.before):
                last[technique] = (item, rung)
    return [
        (technique, outcome(item, rung))
        for technique, (item, rung) in last.items()
        if technique not in ladder.techniques
    ]


def outcome(item: Tried, rung: Rung) -> str:
    """The outcome of a rival."""
    if item.reason:
        return item.reason
    beside = name(rung.before)
    worse, better = (
        ("reaches the loss later than", "reaches the loss sooner than")
        if rung.objective is Objective.WORTH
        else ("slower than", "faster than")
    )
    verdict = worse if item.gain.hurts else better if item.gain.helps else "no gain beyond doubt over"
    return f"{verdict} {beside}: {factor(item.gain)}"
