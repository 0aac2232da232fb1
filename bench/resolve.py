"""How the text of `--model` becomes a workload: FAMILY/SIZE, FILE.py:FUNCTION or a local Hugging Face folder."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench import checkpoints, plugins
from bench.classification import classification
from bench.corpus import BYTE_VOCABULARY, BYTES, Corpus, bpe
from bench.samples import TextSource, causal
from bench.spec import Phase, WorkloadSpec
from bench.workload import Workload, families


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
    return dataclasses.replace(workload, name=spec.name, phase=spec.phase)


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
    pretrained = Workload(
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
        return pretrained
    return classification(pretrained, lambda labels: checkpoints.load(pretrained, family.classifier(size, labels)))


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
        raise ValueError(f"model {spec.model!r} failed to build: {type(error).__name__}: {error}") from error
    if isinstance(made, Workload):
        if spec.sequence is not None:
            raise ValueError(f"sequence {spec.sequence} does not apply: {spec.model!r} returns a Workload with its own")
        return dataclasses.replace(made, batch=spec.batch or made.batch)
    if not isinstance(made, nn.Module):
        raise ValueError(f"model {spec.model!r} returned {type(made).__name__}: return a torch module or a Workload")
    return _language_model(spec, corpus, function, getattr(made, "config", None))


def _from_folder(spec: WorkloadSpec, corpus: Corpus) -> Workload:
    """A local Hugging Face folder: its config, with weights where the folder has them. Remote code stays off."""
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
    )

    try:
        config = AutoConfig.from_pretrained(spec.model, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise ValueError(f"model folder {spec.model!r} has no usable config.json: {first_line}") from error
    if spec.phase is Phase.FINETUNE:
        if type(config) not in AutoModelForSequenceClassification._model_mapping:
            raise ValueError(f"model folder {spec.model!r} holds a {config.model_type}, which has no classifier")
        workload = _language_model(spec, corpus, nn.Module, config)
        assert workload.text is not None
        # A causal model finds a row's last token by where the padding begins.
        classifier = functools.partial(
            _folder_model, spec, AutoModelForSequenceClassification, config, pad_token_id=workload.text.vocabulary.pad
        )
        return classification(workload, lambda labels: classifier(num_labels=labels))
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"model folder {spec.model!r} holds a {config.model_type}, which has no causal language model")
    if type(config) in AutoModelForMaskedLM._model_mapping and not getattr(config, "is_decoder", False):
        raise ValueError(
            f"model folder {spec.model!r} holds a {config.model_type}, which sees the tokens it would predict: "
            "give FILE.py:FUNCTION that returns a Workload with a masked objective"
        )
    return _language_model(spec, corpus, lambda: _folder_model(spec, AutoModelForCausalLM, config), config)


def _folder_model(spec: WorkloadSpec, kind: Any, config: Any, **options: Any) -> nn.Module:
    """A model of this auto class with the folder's weights, or without where it has none."""
    config = copy.deepcopy(config)
    for name, value in options.items():
        setattr(config, name, value)
    # Where nothing but shapes is wanted, on the meta device, there are no weights to load.
    if any(Path(spec.model).glob("*.safetensors")) and torch.get_default_device().type != "meta":
        # transformers takes a default device for a wish to spread the model, which needs another package.
        with torch.device("cpu"):
            model: nn.Module = kind.from_pretrained(
                spec.model, config=config, local_files_only=True, trust_remote_code=False, dtype=torch.float32
            )
        return model
    built: nn.Module = kind.from_config(config)
    return built


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
