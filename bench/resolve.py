"""How the text of `--model` becomes a workload: FAMILY/SIZE, FILE.py:FUNCTION, a Hugging Face folder or an id."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from bench import brought, checkpoints, plugins, pretrained
from bench.causes import root_cause
from bench.classification import classification
from bench.corpus import BYTE_VOCABULARY, BYTES, Corpus, Vocabulary, bpe
from bench.samples import Masked, Objective, PackedRows, Samples, TextSource, causal, next_token
from bench.spec import Phase, WorkloadSpec
from bench.workload import Dimensions, Family, Size, Workload, families, output_loss

SEQUENCE = 128
"""Tokens per sample of a model that declares no length, or fewer if it has fewer positions."""


def resolve(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """The workload that `spec.model` names: FAMILY/SIZE, FILE.py:FUNCTION, a Hugging Face folder, or an id on its hub.

    The name of a family takes precedence over a folder of that name: write `./gpt2/tiny` for the folder. Raises
    ValueError, with the valid choices, for anything else.
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
            "from the Hugging Face hub"
        )
    family = known[name]
    size = family.sizes[size_name]
    if not isinstance(size, Size):
        return _without_text(spec, family, size)
    sequence = spec.sequence or size.sequence
    _check_positions(spec.model, sequence, family.positions)
    assert family.objective is not None
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
    if family.classifier is None:
        raise ValueError(f"model {spec.model!r} has no classifier to fine-tune")
    classifier = functools.partial(family.classifier, size)
    return classification(plain, lambda labels: checkpoints.load(plain, classifier(labels)))


def _without_text(spec: WorkloadSpec, family: Family, size: Dimensions) -> Workload:
    """The workload of a family that makes its own samples. Raises ValueError for options that apply only to text."""
    for option, value in (("--sequence", spec.sequence), ("--data", spec.corpus)):
        if value is not None:
            raise ValueError(f"{option} {value} does not apply: {spec.model} makes its own samples, which are not text")
    if spec.phase is Phase.FINETUNE:
        raise ValueError(f"model {spec.model!r} cannot be fine-tuned on text: give a model that reads text, or FILE.py")
    assert family.samples is not None
    return Workload(
        model=functools.partial(family.model, size),
        data=functools.partial(family.samples, size),
        batch=spec.batch or size.batch,
        name=spec.model,
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
    function = getattr(plugins.load_file(file, kind="model"), function_name, None)
    if isinstance(function, nn.Module):
        raise ValueError(f"model {spec.model!r} is a module: give a function that makes a new one on each call")
    if not function_name or not callable(function):
        raise ValueError(f"model file {str(file)!r} has no function {function_name!r}: give FILE.py:FUNCTION")
    if spec.phase is Phase.FINETUNE and "num_labels" in inspect.signature(function).parameters:
        return _own_classifier(spec, corpus, function)
    try:
        made = function()
    except Exception as error:
        raise ValueError(f"model {spec.model!r} failed to build: {root_cause(error)}") from error
    try:
        workload = brought.as_workload(made, function, spec.batch)
    except ValueError as error:
        raise ValueError(f"model {spec.model!r}: {error}") from error
    if workload is None:
        return _own_language_model(spec, corpus, function, made)
    if spec.sequence is not None:
        raise ValueError(f"sequence {spec.sequence} does not apply: {spec.model!r} brings its own samples")
    return workload


def _own_language_model(spec: WorkloadSpec, corpus: Corpus, function: Callable[[], Any], made: nn.Module) -> Workload:
    """The user's own module, trained on text. Fine-tuning it means training on from the weights that the function gives
    it."""
    loss = brought.takes_text(made)
    if loss is None:
        raise ValueError(
            f"model {spec.model!r} is a {type(made).__name__}, whose forward{inspect.signature(made.forward)} takes "
            f"neither input_ids and labels nor targets: say what its data and its loss are, as in\n\n{brought.TEMPLATE}"
        )
    build = brought.Built(function, made).anew
    workload = _language_model(spec, corpus, build, getattr(made, "config", None))
    if loss is output_loss:
        return workload
    assert workload.text is not None
    # Its targets are not shifted by the model: they come from one token further on. Techniques that cut text
    # differently do not know that.
    text = workload.text
    samples = functools.partial(_next_tokens, text)
    return dataclasses.replace(workload, data=samples, loss=loss, text=None, tokens_per_sample=text.sequence)


def _next_tokens(text: TextSource) -> Samples:
    return Samples(PackedRows(text.corpus.tokens(text.vocabulary), text.sequence + 1), next_token)


def _own_classifier(spec: WorkloadSpec, corpus: Corpus, function: Callable[..., nn.Module]) -> Workload:
    """The user's own classifier, `function(num_labels=N)`, which learns which section of the corpus a text comes
    from."""
    try:
        with torch.device("meta"):
            config = getattr(function(num_labels=2), "config", None)
    except Exception as error:
        raise ValueError(f"model {spec.model!r} failed to build: {root_cause(error)}") from error
    return classification(_language_model(spec, corpus, nn.Module, config), lambda labels: function(num_labels=labels))


def _from_folder(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """A Hugging Face model: a folder, or an id in the standard cache. Remote code stays off."""
    from transformers import AutoModelForSequenceClassification

    found = pretrained.find(spec.model)
    own = pretrained.vocabulary(found)
    if spec.phase is Phase.FINETUNE:
        if type(found.config) not in AutoModelForSequenceClassification._model_mapping:
            raise ValueError(f"model {spec.model!r} is a {found.config.model_type}, which has no classifier")
        workload = _language_model(spec, corpus, nn.Module, found.config, vocabulary=own)
        assert workload.text is not None
        # A causal model finds a row's last token by where the padding starts.
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
    """A language model on the corpus. Without a vocabulary of its own it reads bytes, or BPE tokens if it has enough of
    them."""
    size = getattr(config, "vocab_size", None)
    if vocabulary is None and size is not None and size < BYTE_VOCABULARY:
        raise ValueError(f"model {spec.model!r} has a vocabulary of {size}: byte-level text needs {BYTE_VOCABULARY}")
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "block_size", None)
    sequence = spec.sequence or min(SEQUENCE, positions or SEQUENCE)
    _check_positions(spec.model, sequence, positions)
    if vocabulary is None:
        vocabulary = bpe(size) if size is not None and size >= 8192 else BYTES
    objective = Masked(vocabulary) if learns is Masked else cast(Objective, learns)
    text = TextSource(corpus=corpus, vocabulary=vocabulary, sequence=sequence, objective=objective)
    return Workload(model=build, data=text.packed, batch=spec.batch or 8, tokens_per_sample=sequence, text=text)
