"""Audit of a saved checkpoint: `hf-pretext audit FOLDER_OR_REPOSITORY`.

folder or user/name + labelled set -> the entry "audit" of results.json
"""

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from .. import registry
from ..data.lines import Reading
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.standalone import LOADED, SEEDS, processor_folder
from ..modalities import Inputs, modality_classes
from ..modalities._saved_pooling import POOLING
from ..modeling import PretextModel, load
from ..utils.foreign import read_json
from ..utils.hub import brought
from ..utils.machine import has_bf16
from ..utils.paths import opened, relative
from .entry import PARTS, RANDOM, TRAINED, Audit, AuditOptions

RESULTS = "results.json"  # of a run, which names its labelled set
FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.preserve_format}  # by the layout of a run


def audit(
    source: str | os.PathLike,
    dataset: Any = None,
    label: str | None = None,
    nuisance: Sequence[str] = (),
    same: str | None = None,
    only: Sequence[str] = PARTS,
    rows: int | None = None,
    revision: str | None = None,
    encoding: str | None = None,
    separator: str | None = None,
    device: torch.device | str | None = None,
) -> dict:
    """Measures by what a model learned, what its encoders know and what they ignore, next to three random models.

    source: folder or Hub id of a checkpoint of hf_pretext with its heads. The further seeds of a run are in the folders
    seed-1, seed-2, ... of its folder. dataset, label: the labelled set and its column of labels; default: those of the
    run's results.json, opened as there. nuisance, same, only: see `AuditOptions`. rows: maximum number of rows of each
    split. revision, encoding, separator, device: as in `evaluation.standalone.evaluate`.

    Returns the entry "audit" of results.json. Raises `ValueError` for a source without heads or processors, without a
    labelled set, and for columns that it lacks."""
    folder = str(brought(source, revision, LOADED, [*registry.names("modalities"), POOLING]))
    given, of_the_run = {}, dataset is None
    if of_the_run:
        dataset, label, given = evaluated_on(folder, source, label)
    model, results = load(folder, dtype=torch.float32), results_of(folder)
    device = torch.device(device or torch.accelerator.current_accelerator(check_available=True) or "cpu")
    labelled = LabelledSet(
        dataset,
        inputs_of(model, folder, str(source), results.get("image_white")),
        label,
        columns={kind: given.get(kind) for kind in model.inputs},
        limit=rows or given.get("limit"),
        kind_labels=given.get("kind_labels"),
        reading=Reading(encoding=encoding or given.get("encoding"), separator=separator or given.get("separator")),
    )
    ran = results.get("transfer", {})
    seen = seen_in_training(results) if of_the_run or relative(labelled.name) == ran.get("dataset") else {}
    options = AuditOptions(nuisance, same, only, device, dtypes_of(labelled, results, device), **seen)
    layout = FORMATS[results.get("layout", "contiguous")]

    def built(build: Callable[..., PretextModel], *arguments, **settings) -> PretextModel:
        return build(*arguments, **settings).to(memory_format=layout)

    by_who = {
        TRAINED: [partial(built, load, each, dtype=torch.float32) for each in seeds_of(folder)],
        RANDOM: [partial(built, fresh, model, seed) for seed in ran.get("random_seeds", SEEDS)],
    }
    return Audit(labelled, options).entry(by_who)


def results_of(folder: str) -> dict:
    """Returns the results.json of a run; `{}` for a folder without one."""
    path = Path(folder) / RESULTS
    return read_json(path) if path.exists() else {}


def evaluated_on(folder: str, source: str | os.PathLike, label: str | None) -> tuple[str, str, dict[str, Any]]:
    """Returns the labelled set and the label of a run, and how the set was opened (see `LabelledRows.opened_with`),
    from its results.json. Raises `ValueError` without one, and if only the name of its folder is known."""
    transfer = results_of(folder).get("transfer", {})
    if "dataset" not in transfer:
        raise ValueError(f"{source} does not say on what it was evaluated. Give a labelled set with --dataset.")
    try:
        dataset = opened(transfer["dataset"])
    except ValueError as error:
        raise ValueError(
            f"{source} was evaluated on a set that is not found: {error} Give it with --dataset."
        ) from error
    return dataset, label or transfer["label"], transfer.get("opened_with", {})


def seen_in_training(results: Mapping) -> dict[str, bool]:
    """Returns whether a run saw the train and the test split of its labelled set, as arguments of `AuditOptions`."""
    transfer, trained_on = results["transfer"], results["data"]["dataset"].split(" + ")
    return {"trained_on": transfer["dataset"] in trained_on, "test_seen": transfer["test_seen_in_pretraining"]}


def dtypes_of(labelled: LabelledSet, results: Mapping, device: torch.device) -> dict[str, torch.dtype | None]:
    """Returns the dtype of autocast for features by kind, as in the run: bf16 where it was asked for and is fast."""
    in_bf16 = results.get("settings", {}).get("bf16", False) and has_bf16(device.type == "cpu")
    return {
        kind: torch.bfloat16 if in_bf16 and modality.features_in_bf16 else None
        for kind, modality in labelled.inputs.by_name.items()
    }


def seeds_of(folder: str) -> list[str]:
    """Returns the folders of all seeds of a run."""
    others = sorted(Path(folder).glob("seed-*/config.json"))
    return [folder, *(str(path.parent) for path in others)]


def inputs_of(model: PretextModel, folder: str, source: str, white: int | None = None) -> Inputs:
    """Returns the inputs of the encoders of a saved model, without augmentation. white: value of white in images of
    more than 8 bits. Raises `ValueError` if it has no processors."""
    views, made = model.views_of(model.task), []
    kinds = [kind for kind in model.inputs if kind in model.readers]  # others have no processor
    classes = modality_classes(kinds, views, model.one_text_a_row)
    for kind, modality in classes.items():
        modality.check_packages()
        made.append(modality.from_saved(processor_folder(folder, kind), model.readers[kind], source, None, white))
    return Inputs(*made, views=views)


def fresh(model: PretextModel, seed: int) -> PretextModel:
    """Returns a randomly initialised model of the same architecture and settings."""
    set_seed(seed)
    takes_parts = "parts" in inspect.signature(type(model).from_encoder).parameters
    parts = {"parts": model.parts} if takes_parts else {}  # of models that may be far away: teachers, visual words
    return type(model).from_encoder(model.full_model.config, **parts, **dataclasses.asdict(model.task))
