"""A model, its data and its loss at a fixed shape; and how `--model` text becomes one."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

import bench.models
from bench.corpus import BYTE_VOCABULARY, BYTES, Corpus, Vocabulary, bpe
from bench.samples import Objective, TextSource, causal
from bench.spec import Phase, WorkloadSpec

Batch = Any
"""What the DataLoader collates: a tensor, or tuples and dicts of tensors whose first dimension is the sample."""


class Samples(Protocol):
    """A map-style dataset: `len()` and indexing, each item one sample."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


def output_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The `.loss` that a Hugging Face style model returns for `input_ids, labels`: a scalar, mean over targets."""
    loss: Tensor = model(**batch).loss
    return loss


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A training job at a fixed shape. `batch` is samples per optimizer update over all ranks.

    `model` and `data` are called inside the measured process. `loss` takes the model and a batch and returns the mean
    loss, a scalar. `tokens_per_sample` is None where samples are not text: then no tokens per second are reported.
    `text` is where the samples come from, and `family` and `size` what the model was built of, where that is known:
    techniques that feed other text or build another model need it.
    """

    model: Callable[[], nn.Module]
    data: Callable[[], Samples]
    batch: int
    loss: Callable[[nn.Module, Batch], Tensor] = output_loss
    tokens_per_sample: int | None = None
    learning_rate: float = 1e-4
    name: str = ""
    phase: Phase = Phase.PRETRAIN
    text: TextSource | None = None
    family: Family | None = None
    size: Size | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of a family. `batch` (samples) and `sequence` (tokens) are the defaults it is measured at."""

    layers: int
    width: int
    heads: int
    batch: int
    sequence: int
    vocabulary: Vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A model family: its sizes, the most positions a model has, how a size becomes a model, and what it predicts."""

    name: str
    caption: str
    positions: int
    sizes: Mapping[str, Size]
    model: Callable[[Size], nn.Module]
    objective: Callable[[Size], Objective]


def parameter_count(family: Family, size: Size) -> int:
    """How many parameters a model of this size has; built without memory on the meta device to count them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in family.model(size).parameters())


def families() -> dict[str, Family]:
    """Every family in bench/models by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(bench.models.__path__))
    found = [importlib.import_module(f"bench.models.{name}").FAMILY for name in names]
    return {family.name: family for family in found}


def resolve(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """The workload that `spec.model` names: FAMILY/SIZE, FILE.py:FUNCTION or a local Hugging Face folder.

    A family's name wins over a folder of that name: write `./gpt2/tiny` for the folder.
    Raises ValueError, with the valid choices, for anything else.
    """
    if spec.model.partition("/")[0] not in families() and Path(spec.model).is_dir():
        workload = _from_folder(spec, corpus)
    elif ".py:" in spec.model or spec.model.endswith(".py"):
        workload = _from_file(spec, corpus)
    else:
        workload = _from_family(spec, corpus)
    if workload.batch < 1:
        raise ValueError(f"model {spec.model!r} asks for batch {workload.batch}: give 1 or more")
    return dataclasses.replace(workload, name=spec.name)


def _from_family(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    known = families()
    name, _, size_name = spec.model.partition("/")
    if name not in known or size_name not in known[name].sizes:
        choices = ", ".join(f"{family.name}/{{{','.join(family.sizes)}}}" for family in known.values())
        raise ValueError(f"model {spec.model!r} is unknown: give one of {choices}, FILE.py:FUNCTION or a model folder")
    family = known[name]
    size = family.sizes[size_name]
    sequence = spec.sequence or size.sequence
    _check_positions(spec.model, sequence, family.positions)
    text = TextSource(corpus=corpus, vocabulary=size.vocabulary, sequence=sequence, objective=family.objective(size))
    return Workload(
        model=functools.partial(family.model, size),
        data=text.packed,
        batch=spec.batch or size.batch,
        tokens_per_sample=sequence,
        text=text,
        family=family,
        size=size,
    )


def _check_positions(model: str, sequence: int, positions: int | None) -> None:
    if positions is not None and sequence > positions:
        raise ValueError(f"sequence {sequence} is longer than the {positions} positions of {model}: give at most that")


def _from_file(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    file_name, _, function_name = spec.model.partition(".py:")
    file = Path(file_name.removesuffix(".py") + ".py")
    if not file.is_file():
        raise ValueError(f"model file {str(file)!r} does not exist: give FILE.py:FUNCTION")
    function = getattr(_load_module(file), function_name, None)
    if not function_name or not callable(function):
        raise ValueError(f"model file {str(file)!r} has no function {function_name!r}: give FILE.py:FUNCTION")
    try:
        made = function()
    except Exception as error:
        raise ValueError(f"model {spec.model!r} failed to build: {type(error).__name__}: {error}") from error
    if isinstance(made, Workload):
        if spec.sequence is not None:
            raise ValueError(f"sequence {spec.sequence} does not apply: {spec.model!r} returns a Workload with its own")
        return dataclasses.replace(made, batch=spec.batch or made.batch)
    if not isinstance(made, nn.Module):
        raise ValueError(f"model {spec.model!r} returned {type(made).__name__}: return a torch module or a Workload")
    return _language_model(spec, corpus, function, getattr(made, "config", None))


def _load_module(file: Path) -> Any:
    """Import a user's file by path; the files beside it can be imported from it."""
    name = f"trainpace_model_{file.stem}"
    location = importlib.util.spec_from_file_location(name, file)
    if location is None or location.loader is None:
        raise ValueError(f"model file {str(file)!r} is not a Python file: give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(location)
    sys.path.insert(0, str(file.parent.resolve()))
    # Dataclasses and pickling look a class's module up by name.
    sys.modules[name] = module
    try:
        location.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"model file {str(file)!r} failed to import: {type(error).__name__}: {error}") from error
    return module


def _from_folder(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """A local Hugging Face folder: its config, with weights where the folder has them. Remote code stays off."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

    try:
        config = AutoConfig.from_pretrained(spec.model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"model folder {spec.model!r} has no usable config.json: {first_line}") from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"model folder {spec.model!r} holds a {config.model_type}, which has no causal language model")
    if type(config) in AutoModelForMaskedLM._model_mapping and not getattr(config, "is_decoder", False):
        raise ValueError(
            f"model folder {spec.model!r} holds a {config.model_type}, which sees the tokens it would predict: "
            "give FILE.py:FUNCTION that returns a Workload with a masked objective"
        )

    def build() -> nn.Module:
        # Where nothing but shapes is wanted, on the meta device, there are no weights to load.
        if any(Path(spec.model).glob("*.safetensors")) and torch.get_default_device().type != "meta":
            # transformers takes a default device for a wish to spread the model, which needs another package.
            with torch.device("cpu"):
                model: nn.Module = AutoModelForCausalLM.from_pretrained(
                    spec.model, local_files_only=True, trust_remote_code=False, dtype=torch.float32
                )
            return model
        built: nn.Module = AutoModelForCausalLM.from_config(config)
        return built

    return _language_model(spec, corpus, build, config)


def _language_model(spec: WorkloadSpec, corpus: Corpus, build: Callable[[], nn.Module], config: Any) -> Workload:
    """A causal language model on the corpus. Bytes unless the model's vocabulary is of a size that BPE makes."""
    size = getattr(config, "vocab_size", None)
    if size is not None and size < BYTE_VOCABULARY:
        raise ValueError(f"model {spec.model!r} has a vocabulary of {size}: byte-level text needs {BYTE_VOCABULARY}")
    sequence = spec.sequence or 128
    _check_positions(spec.model, sequence, getattr(config, "max_position_embeddings", None))
    vocabulary = bpe(size) if size is not None and size >= 8192 else BYTES
    text = TextSource(corpus=corpus, vocabulary=vocabulary, sequence=sequence, objective=causal)
    return Workload(model=build, data=text.packed, batch=spec.batch or 8, tokens_per_sample=sequence, text=text)
