"""A workload's data in a script."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import indent

import numpy as np

from bench import tables
from bench.models._generated import SAMPLES, Generated, Images, Speech
from bench.samples import Masked, Objective, TextSource, causal, continuation
from bench.script.model import Unwritten
from bench.script.text import literal
from bench.workload import Workload

TOKENS = "tokens.npy"
"""The file beside the script with tokens that such a short script could not make itself."""

OF_THE_STANDARD_LIBRARY = """\
root = Path(sysconfig.get_path("stdlib"))
left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test"}
files = [
    file
    for file in sorted(root.rglob("*.py"))
    if not (left_out | {"__pycache__"}) & set(file.relative_to(root).parts)
]"""

OF_A_FOLDER = """\
root = Path({path})
files = sorted(file for file in root.rglob("*") if file.is_file())"""

AS_BYTES = """\
texts = (file.read_bytes() for file in files)
texts = (text for text in texts if text.strip() and b"\\0" not in text[:1024])
parts = (np.frombuffer(text, np.uint8).astype(np.uint16) for text in texts)
self.ids = np.concatenate([np.append(part, np.uint16({end})) for part in parts])"""

KEPT = f"""\
self.ids = np.load(Path(__file__).with_name("{TOKENS}"), mmap_mode="r")"""

ROW = "ids = self.ids[index * SEQUENCE : (index + 1) * SEQUENCE].astype(np.int64)"

CAUSAL = """\
return {"input_ids": ids, "labels": ids}"""

CONTINUATION = """\
half = SEQUENCE // 2
return {"input_ids": ids[:half], "labels": ids[half:]}"""

MASKED = """\
random = np.random.default_rng(({seed}, index))  # a row always has the same mask
chosen = random.permutation(SEQUENCE)[: max(1, round(0.15 * SEQUENCE))]
labels = np.full_like(ids, -100)
labels[chosen] = ids[chosen]
fate = random.random(len(chosen))
ids[chosen[fate < 0.8]] = {mask}
swapped = chosen[fate >= 0.9]
ids[swapped] = random.integers(0, {size}, len(swapped))
return {{"input_ids": ids, "labels": labels}}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCode:
    """The data in a script. `definition` is the class `Samples`. `files` are arrays that have to be beside the script,
    by name. `has_floats`: a batch contains floats, to which a number format applies. `sequence` is in tokens."""

    imports: tuple[str, ...]
    definition: str
    sequence: int | None = None
    has_floats: bool = False
    files: Mapping[str, np.ndarray] = field(default_factory=dict)


def data_code(workload: Workload) -> DataCode:
    """Write a workload's data. Raises Unwritten for samples that the workload brings itself."""
    if workload.text is not None:
        return _of_text(workload.text)
    source = workload.data.func if isinstance(workload.data, functools.partial) else None
    if workload.family is None or source is not workload.family.samples:
        raise Unwritten(f"{workload.name} brings samples of its own: take the lines below over into what trains them")
    found = workload.data()
    if not isinstance(found, Generated):
        raise Unwritten(f"how the samples of {workload.name} are made is known to its plugin alone")
    return _generated(found)


def _of_text(text: TextSource) -> DataCode:
    corpus, vocabulary = text.corpus, text.vocabulary
    imports, files = ["from pathlib import Path"], dict[str, np.ndarray]()
    about = "rows of SEQUENCE tokens."
    if not vocabulary.is_bytes or (corpus.path is not None and tables.is_table(corpus.path)):
        reading, said = KEPT, f"The tokens of {TOKENS}, cut into {about}"
        files[TOKENS] = corpus.tokens(vocabulary)
    else:
        said = f"Bytes of text files with an end after each, cut into {about}"
        if corpus.path is None:
            imports.append("import sysconfig")
            reading = OF_THE_STANDARD_LIBRARY
        elif Path(corpus.path).is_file():
            reading = f"files = [Path({literal(str(Path(corpus.path).resolve()))})]"
        else:
            reading = OF_A_FOLDER.format(path=literal(str(Path(corpus.path).resolve())))
        reading = f"{reading}\n{AS_BYTES.format(end=vocabulary.end)}"
    item = f"{ROW}\n{_sample(text.objective)}"
    return DataCode(
        imports=("import numpy as np", "from torch.utils.data import Dataset", *imports),
        definition=_dataset(said, reading, "len(self.ids) // SEQUENCE", item),
        sequence=text.sequence,
        files=files,
    )


def _sample(objective: Objective) -> str:
    if objective is causal:
        return CAUSAL
    if objective is continuation:
        return CONTINUATION
    if isinstance(objective, Masked):
        vocabulary = objective.vocabulary
        return MASKED.format(seed=objective.seed, mask=vocabulary.mask, size=vocabulary.size)
    raise Unwritten("what is predicted of a row of text is known to its plugin alone")


def _dataset(said: str, begun: str, length: str, item: str) -> str:
    parts = [f'class Samples(Dataset):\n    """{said}"""\n']
    if begun:
        parts.append(f"    def __init__(self):\n{indent(begun, ' ' * 8)}\n")
    parts.append(f"    def __len__(self):\n        return {length}\n")
    parts.append(f"    def __getitem__(self, index):\n{indent(item, ' ' * 8)}")
    return "\n".join(parts)


def _generated(found: Generated) -> DataCode:
    """Write what `make` draws, with the values of its fields filled in."""
    make = found.make
    if not isinstance(make, Images | Speech):
        raise Unwritten("how its samples are made is known to its plugin alone")
    *_, lines = inspect.getsource(type(make).__call__).partition("-> Sample:\n")
    body = "\n".join(line.removeprefix(" " * 8) for line in lines.rstrip().splitlines())
    for name in type(make).__dataclass_fields__:
        body = body.replace(f"self.{name}", repr(getattr(make, name)))
    body = re.sub(r"\[: (\d+)\]", r"[:\1]", body)
    said = "A wave for each class, in noise." if isinstance(make, Images) else "A tone for each token, in noise."
    return DataCode(
        imports=("import numpy as np", "from torch.utils.data import Dataset"),
        definition=_dataset(said, "", str(SAMPLES), f"random = np.random.default_rng(index)\n{body}"),
        has_floats=True,
    )
