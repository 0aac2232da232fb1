"""How the text of `--model` becomes a workload: FAMILY/SIZE, FILE.py:FUNCTION, a Hugging Face folder or an id."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from torch import nn

from bench import checkpoints, plugins, pretrained
from bench.causes import root_cause
from bench.classification import classification
from bench.corpus import BYTE_VOCABULARY, BYTES, Corpus, Vocabulary, bpe
from bench.samples import Masked, Objective, TextSource, causal
from bench.spec import Phase, WorkloadSpec
from bench.workload import Workload, families

SEQUENCE = 128
"""Tokens of a sample of a model that names no length, if it has so many positions."""


def resolve(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """The workload that `spec.model` names: FAMILY/SIZE, FILE.py:FUNCTION, a Hugging Face folder or an id of its hub.

    A family's name wins over a folder of that name: write `./gpt2/tiny` for the folder.
    Raises ValueError, with the valid choices, for anything else.
    """
    if ".py:" in spec.model or spec.model.endswith(".py"):
        workload = _from_file(spec, corpus)
    elif spec.model.partition("/")[0] not in families() and pretrained.is_named(spec.model):
        workload = _from_folder(spec, corpus)
    else:
        workload = _from_family(spec, corpus)
    if workload.batch < 1:
        raise ValueError(f"model {spec.model!r} asks for batch {workload.batch}: give 1 or more")
    return dataclasses.replace(workload, name=spec.name, phase=spec.phase)


def _from_family(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    known = families()
    name, _, size_name = spec.model.partition("/")
    if name not in known or size_name not in known[name].sizes:
        choices = ", ".join(f"{family.name}/{{{','.join(family.sizes)}}}" for family in known.values())
        raise ValueError(
            f"model {spec.model!r} is unknown: give one of {choices}, FILE.py:FUNCTION, a model folder or an id "
            "of the Hugging Face hub"
        )
    family = known[name]
    size = family.sizes[size_name]
    sequence = spec.sequence or size.sequence
    _check_positions(spec.model, sequence, family.positions)
    text = TextSource(corpus=corpus, vocabulary=size.vocabulary, sequence=sequence, objective=family.objective(size))
    plain = Workload(
        model=functools.partial(family.model, size),
        data=text.packed,
        batch=spec.batch or size.batch,
        tokens_per_sample=sequence,
        name=spec.model,
        text=text,
        family=family,
        size=size,
    )
    if spec.phase is not Phase.FINETUNE:
        return plain
    return classification(plain, lambda labels: checkpoints.load(plain, family.classifier(size, labels)))


def _check_positions(model: str, sequence: int, positions: int | None) -> None:
    if positions is not None and sequence > positions:
        raise ValueError(f"sequence {sequence} is longer than the {positions} positions of {model}: give at most that")


def _from_file(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    if spec.phase is Phase.FINETUNE:
        raise ValueError(f"model {spec.model!r} has no classifier to fine-tune: give FAMILY/SIZE or a model folder")
    file_name, _, function_name = spec.model.partition(".py:")
    file = Path(file_name.removesuffix(".py") + ".py")
    if not file.is_file():
        raise ValueError(f"model file {str(file)!r} does not exist: give FILE.py:FUNCTION")
    function = getattr(plugins.load_file(file, kind="model"), function_name, None)
    if not function_name or not callable(function):
        raise ValueError(f"model file {str(file)!r} has no function {function_name!r}: give FILE.py:FUNCTION")
    try:
        made = function()
    except Exception as error:
        raise ValueError(f"model {spec.model!r} failed to build: {root_cause(error)}") from error
    if isinstance(made, Workload):
        if spec.sequence is not None:
            raise ValueError(f"sequence {spec.sequence} does not apply: {spec.model!r} returns a Workload with its own")
        return dataclasses.replace(made, batch=spec.batch or made.batch)
    if not isinstance(made, nn.Module):
        raise ValueError(f"model {spec.model!r} returned {type(made).__name__}: return a torch module or a Workload")
    return _language_model(spec, corpus, function, getattr(made, "config", None))


def _from_folder(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """A model of the Hugging Face kind: a folder, or an id in the standard cache. Remote code stays off."""
    from transformers import AutoModelForSequenceClassification

    found = pretrained.find(spec.model)
    own = pretrained.vocabulary(found)
    if spec.phase is Phase.FINETUNE:
        if type(found.config) not in AutoModelForSequenceClassification._model_mapping:
            raise ValueError(f"model {spec.model!r} is a {found.config.model_type}, which has no classifier")
        workload = _language_model(spec, corpus, nn.Module, found.config, vocabulary=own)
        assert workload.text is not None
        # A causal model finds a row's last token by where the padding begins.
        classifier = functools.partial(
            pretrained.build,
            found,
            AutoModelForSequenceClassification,
            pad_token_id=workload.text.vocabulary.pad,
        )
        return classification(workload, lambda labels: classifier(num_labels=labels))
    kind, learns = pretrained.language_model(found)
    build = functools.partial(pretrained.build, found, kind)
    return _language_model(spec, corpus, build, found.config, vocabulary=own, learns=learns)


def _language_model(
    spec: WorkloadSpec,
    corpus: Corpus,
    build: Callable[[], nn.Module],
    config: Any,
    *,
    vocabulary: Vocabulary | None = None,
    learns: Objective | type[Masked] = causal,
) -> Workload:
    """A language model on the corpus. Without a vocabulary of its own it has bytes, unless it knows as many tokens as
    BPE makes."""
    size = getattr(config, "vocab_size", None)
    if vocabulary is None and size is not None and size < BYTE_VOCABULARY:
        raise ValueError(f"model {spec.model!r} has a vocabulary of {size}: byte-level text needs {BYTE_VOCABULARY}")
    positions = getattr(config, "max_position_embeddings", None)
    sequence = spec.sequence or min(SEQUENCE, positions or SEQUENCE)
    _check_positions(spec.model, sequence, positions)
    if vocabulary is None:
        vocabulary = bpe(size) if size is not None and size >= 8192 else BYTES
    objective = Masked(vocabulary) if learns is Masked else cast(Objective, learns)
    text = TextSource(corpus=corpus, vocabulary=vocabulary, sequence=sequence, objective=objective)
    return Workload(model=build, data=text.packed, batch=spec.batch or 8, tokens_per_sample=sequence, text=text)
