"""Made-up fits, without a prediction: memory grows linearly with the batch on each rank."""

from __future__ import annotations

from bench.cards import card
from bench.corpus import Corpus
from bench.spec import WorkloadSpec
from harness.prediction.growth import Growth
from harness.preparation.fitting import Checked, Fit, Room, on_card
from harness.preparation.prepared import Entry

MIB = 1 << 20
CORPUS = Corpus(path=None, sha256="")
Names = tuple[str, ...]
COMPOSITIONS: tuple[Names, ...] = (
    (),
    ("checkpoint_activations",),
    ("amp_bf16", "checkpoint_activations"),
    ("compile",),
)
CHANGES: dict[Names, Names] = {("amp_bf16", "checkpoint_activations"): ("rounding",)}


def entry(model: str, batch: int = 8) -> Entry:
    spec = WorkloadSpec(model=model, batch=batch)
    return Entry(spec=spec, corpus=CORPUS, batch=batch, sequence=512, parameters=10**8, step_flops=None)


def fits(room: Room, model: str, held_mib: int, each_mib: int) -> list[Fit]:
    """A model that takes `held_mib` for any batch and `each_mib` per sample. Each composition takes half as much per
    sample as the one before; that of the last is unknown."""
    each = entry(model)
    known = [
        Fit(
            room=room,
            entry=each,
            techniques=names,
            changes=CHANGES.get(names, ()),
            growths=(Growth(((held_mib * MIB, each_mib * MIB / 2**index),)),),
            kinds={"weights": held_mib * MIB, "activations": 8 * each_mib * MIB // 2**index},
            modules={"transformer.h.*": each_mib * MIB},
        )
        for index, names in enumerate(COMPOSITIONS[:-1])
    ]
    reason = "what torch.compile keeps in memory is its own choice"
    return [*known, Fit(room=room, entry=each, techniques=COMPOSITIONS[-1], reason=reason)]


def several() -> list[Fit]:
    """Three models on two cards: one fits, one fits only under some techniques, one does not fit at all."""
    made = []
    for room in (on_card(card("24GB")), on_card(card("L40S"))):
        made += fits(room, "gpt2/small", 2000, 500)
        made += fits(room, "gpt2/large", 12000, 3000)
        made += fits(room, "gpt2/xl", 60000, 9000)
    return made


CHECKS = (
    Checked(ran=(30, True), refused=(33, True)),
    Checked(ran=(30, False), refused=(33, True)),
    Checked(ran=None, refused=(4, False)),
    Checked(ran=None, refused=None, reason="it took too long"),
)
