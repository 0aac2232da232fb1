"""trainpace from Python: what the command line does, as functions that return plain data.

    from bench import api

    made = api.run(models=["gpt2/nano"], techniques=["amp_bf16", "compile"])
    made.arms()          # a frame: one row per arm, with speed-ups and their intervals
    made.steps()         # a frame: one row per timed step
    made                 # in a notebook: the answer as a picture
    api.compare("runs/before", "runs/after")
    api.fit(["gpt2/xl"], cards=["L40S"]).frame()
    api.gate(models=["train.py:make_model"], base="main").verdict
    api.tune("gpt2/tiny", minutes=10).techniques
    api.worth("gpt2/nano", ["muon"], minutes=10).plain()
    api.day("gpt2", minutes=10, go=True).plain()

Bad input raises ValueError with the line that the command would print. Like the command line, this package may import
every other package, and only the command line imports it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.api.days import day
    from bench.api.finished import Run, compare
    from bench.api.fits import Fits, fit
    from bench.api.gates import Gate, gate
    from bench.api.runs import run
    from bench.api.tuning import Tuned, tune
    from bench.api.worths import Worth, worth
    from bench.causes import Unfinished

__all__ = [
    "Fits",
    "Gate",
    "Run",
    "Tuned",
    "Unfinished",
    "Worth",
    "compare",
    "day",
    "fit",
    "gate",
    "run",
    "tune",
    "worth",
]

_PLACES = {
    "Unfinished": ".causes",
    "day": "days",
    **dict.fromkeys(("Run", "compare"), "finished"),
    **dict.fromkeys(("Fits", "fit"), "fits"),
    **dict.fromkeys(("Gate", "gate"), "gates"),
    "run": "runs",
    **dict.fromkeys(("Tuned", "tune"), "tuning"),
    **dict.fromkeys(("Worth", "worth"), "worths"),
}


def __getattr__(name: str) -> object:
    """Import on first use. Measuring needs torch, which takes seconds to import; reading finished runs does not."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
