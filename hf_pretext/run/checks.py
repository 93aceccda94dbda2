"""Checks of a run before anything is trained or written: whatever would fail later is one `ValueError` now.

options -> output folder, start, encoder on noise, a checkpoint that loads again
"""

import inspect
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import AutoConfig, AutoModel
from transformers.trainer_utils import get_last_checkpoint

from ..cards import CARD, RESULTS
from ..encoders import is_shape_alone
from ..features import last_hidden
from ..modalities import Context, Inputs
from ..modeling import PretextModel, read_objective
from ..stream.state import STREAM_STATE
from .build import Blueprint

if TYPE_CHECKING:
    from .experiment import Experiment, Request

FINISHED = "run.json"  # written when all else is


def finished(folder: str) -> bool:
    """Whether a run of one seed came to its end in this folder."""
    return (Path(folder) / FINISHED).exists()


def checkpoint(folder: str) -> str | None:
    """The newest checkpoint in a folder, if any."""
    return get_last_checkpoint(folder) if os.path.isdir(folder) else None


def check_output(request: "Request") -> None:
    """Raises `ValueError` where the output folder holds another model or run, or there is nothing to resume from."""
    folder, resume = Path(request.first.output_dir), request.first.resume_from_checkpoint
    check_holds_same(folder, request.objective.objective)
    if resume and resume != "last":
        if len(request.arguments) > 1:
            raise ValueError(
                f"--resume_from_checkpoint {resume} is of one seed, but --seeds are {list(request.arguments)}. Give "
                "that seed alone, as --seed 0, or --resume_from_checkpoint last to resume all."
            )
        if not (Path(resume) / STREAM_STATE).exists():
            raise ValueError(
                f"--resume_from_checkpoint {resume}: there is no such checkpoint. Give a checkpoint-* folder, or "
                "`last`."
            )
    elif resume:
        if not folder.is_dir():
            raise ValueError(f"--resume_from_checkpoint last: there is no folder {folder} to resume in. Leave it out.")
    elif (folder / CARD).exists() and not (folder / RESULTS).exists():
        raise ValueError(f"--output_dir {folder} holds a {CARD} that is not ours to replace. Give another folder.")
    else:
        check_not_begun([args.output_dir for args in request.arguments.values()])


def check_holds_same(folder: Path, objective: str) -> None:
    """Raises `ValueError` for a folder that holds a model, but no run of this objective."""
    if not (folder / "config.json").exists():
        return
    try:
        holds = read_objective(AutoConfig.from_pretrained(folder), folder)
    except (ValueError, OSError):
        holds = None
    if holds != objective:
        what = f"a run of the objective {holds!r}" if holds else "another model"
        raise ValueError(f"--output_dir {folder} holds {what}. Give another folder.")


def check_not_begun(folders: list[str]) -> None:
    """Raises `ValueError` for a folder in which a run was begun."""
    begun = [folder for folder in folders if finished(folder) or checkpoint(folder)]
    if begun:
        state = "a finished run" if finished(begun[0]) else "an unfinished run"
        raise ValueError(
            f"--output_dir {begun[0]} holds {state}. Resume it with --resume_from_checkpoint last, or start in another "
            "folder (or remove this one)."
        )


def check_writable(request: "Request") -> None:
    """Raises `ValueError` for an output folder that can't be written to."""
    folder = Path(request.first.output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"--output_dir {folder} can't be written to: {error.strerror}. Give another.") from error


def check_finished(experiment: "Experiment") -> None:
    """Raises `ValueError` for a finished run with other settings: a card would show settings that never ran."""
    for seed, args in experiment.request.arguments.items():
        if not finished(args.output_dir):
            continue
        before = json.loads((Path(args.output_dir) / FINISHED).read_text())["identity"]
        changed = [
            f"{name} {before.get(name)}, not {value}"
            for name, value in experiment.identity(seed).items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"--output_dir {args.output_dir} holds a finished run with {'; '.join(changed[:3])}. Give another "
                "folder, or the same options."
            )


def check_start(request: "Request", blueprint: Blueprint) -> None:
    """Raises `ValueError` for encoders that contradict each other, a batch with nothing to compare, and a frozen
    encoder that would stay random."""
    start, kinds = blueprint.start, request.objective.inputs
    if start.encoder and start.towers:
        options = " and ".join(f"--{kind}_encoder" for kind in start.towers)
        raise ValueError(f"--encoder {start.encoder} brings all encoders, so leave out {options}.")
    if len(kinds) > 1 and request.first.per_device_train_batch_size * request.first.world_size < 2:
        raise ValueError("A global batch needs at least 2 rows to compare. Give --per_device_train_batch_size 2.")
    frozen = getattr(blueprint.task, "frozen", None)
    path = frozen and start.of(frozen)
    if frozen and (not path or is_shape_alone(path)):
        raise ValueError(f"--frozen {frozen} would keep an encoder at random: give it a --{frozen}_encoder.")


class Trial(NamedTuple):
    """What a trial of a model has shown.

    convolutional: whether its first encoder is. encoder_classes: of each, by kind. parameters: how many the model has
    that the checkpoint is of, without a head of its own."""

    convolutional: bool
    encoder_classes: dict[str, str]
    parameters: int


def try_out(request: "Request", blueprint: Blueprint, inputs: Inputs) -> Trial:
    """A forward and a backward pass on noise, and a checkpoint that is loaded again: what fails shows in seconds.

    Raises `ValueError` for what does not fit."""
    model, missing = blueprint.fresh(request.first.seed)
    batches = inputs.noise(kinds_alone(request))
    takes = set(inspect.signature(model.encoder.forward).parameters)
    first = inputs.modalities[0].noise()
    try:
        unused = model.freeze_unused(*batches)
        encoder_inputs = {name: value for name, value in first.items() if name in takes}
        hidden = last_hidden(model.encoder.eval(), model.encoder(**encoder_inputs))
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        sizes = " with ".join(modality.largest() for modality in inputs.modalities)
        encoder, hint = blueprint.start.encoder or "the encoder", size_hint(blueprint)
        raise ValueError(f"{sizes} do not fit {encoder}: {reason}{hint}") from error
    lost = sorted(name for name in missing if f"full_model.{name}" not in unused)
    if lost:
        raise ValueError(f"--encoder {blueprint.start} lacks weights that training needs: {', '.join(lost[:5])}.")
    if request.main_process:
        check_reloads(model)
    classes = {kind: type(encoder).__name__ for kind, encoder in model.encoders.items()}
    bare = model.full_model if model.auto_class is AutoModel else model.encoder
    return Trial(hidden.ndim == 4, classes, sum(parameter.numel() for parameter in bare.parameters()))


def size_hint(blueprint: Blueprint) -> str:
    """What the config of an encoder says of images, where it says anything."""
    side = Context(config=blueprint.config).image_size
    return f" Its config says image_size={side}: give --image_size {side}." if side else ""


def kinds_alone(request: "Request") -> list[str]:
    """The kinds of data that also come by themselves (--images_alone, --texts_alone)."""
    options = vars(request.pairs) if request.pairs else {}
    return [kind for kind in request.objective.inputs if options.get(f"{kind}s_alone")]


def check_reloads(model: PretextModel) -> None:
    """Saves a model in a temporary folder and loads it: what can't be stored must not show after the training.

    Raises `ValueError` where it can't be saved or loaded, or has other weights afterwards."""
    name = type(model).__name__
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
            loaded = type(model).from_pretrained(folder, dtype=model.dtype).state_dict()
        except Exception as error:  # an objective may do anything
            raise ValueError(
                f"A checkpoint of {name} can't be saved and loaded again: {type(error).__name__}: {error}"
            ) from error
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value.cpu(), loaded[key].cpu())]
    if changed:
        raise ValueError(f"A checkpoint of {name} loads with other values of {', '.join(changed[:5])}.")
