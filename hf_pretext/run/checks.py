"""Checks a run before training starts and before any file is written: later failures become a `ValueError` now.

options -> output folder, start, encoder on noise, a checkpoint that loads again
"""

import inspect
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import AutoConfig, AutoModel, TrainingArguments

from ..cards import CARD, RESULTS
from ..encoders import is_shape_alone
from ..evaluation.fine_tune import check_fine_tuning
from ..evaluation.frame_order import chosen_classes
from ..evaluation.health import NEIGHBOURS, RANK
from ..evaluation.localization import LocalizationArguments
from ..evaluation.measure import fitting
from ..features import frames_as_images, last_hidden
from ..modalities import Context, Inputs
from ..modeling import PretextModel, read_objective
from ..stream.branch import LAST, checkpoint_to_resume, last_checkpoint
from ..stream.length import length_of, option_of
from ..stream.state import STREAM_STATE
from ..stream.trainer import check_unchanged
from .build import Blueprint

if TYPE_CHECKING:
    from .experiment import Experiment, Request

FINISHED = "run.json"  # written last


def finished(folder: str) -> bool:
    """Returns True if the folder contains a finished run of one seed."""
    return (Path(folder) / FINISHED).exists()


def check_evaluation(request: "Request") -> None:
    """Raises `ValueError` for options of the evaluation without a labelled set, or for another kind of data, and for a
    metric that can't choose the best weights."""
    epochs = request.options.fine_tune
    check_fine_tuning(epochs, request.objective.inputs)
    heldout = request.pairs and request.pairs.heldout_dataset
    asked = {
        "--fine_tune": epochs,
        "--audit": request.options.audit,
        "--heldout_dataset": heldout,
        "--order_classes": " ".join(chosen_classes(request.settings)),
        "--localization_dataset": getattr(request.settings.get(LocalizationArguments), "localization_dataset", None),
        "--report_dataset": request.options.report_dataset,
        **{f"--{name}": request.given[name] for name in ("eval_label", "eval_fractions") if name in request.given},
    }
    for option, value in asked.items():
        if value and not request.evaluated:
            reason = "--eval_dataset is none" if request.options.eval_dataset is not None else "there is none"
            raise ValueError(
                f"{option} {value} needs a labelled set, but {reason}. Give an --eval_dataset, or leave {option} out."
            )
    for name in ("audit_nuisance", "audit_same"):  # a recipe may name them for whoever gives --audit
        if (value := request.given.get(name)) and not request.options.audit:
            raise ValueError(f"--{name} {value} has no effect without --audit. Give --audit, or leave it out.")
    metric = request.first.metric_for_best_model or ""
    if RANK in metric:
        raise ValueError(
            f"--metric_for_best_model {metric}: the effective rank is a warning, not a score. Give loss, or "
            f"{NEIGHBOURS}_{request.objective.inputs[0]}."
        )
    if heldout and not fitting(request.objective):
        raise ValueError(
            f"--heldout_dataset {heldout}: {request.objective.objective} has no metrics of the full model, such as "
            "retrieval. Leave --heldout_dataset out."
        )


def check_output(request: "Request") -> None:
    """Raises `ValueError` if the output folder contains another model or run, or no intact checkpoint to resume from.

    Checkpoints are compared by names and sizes of their files here, and by their contents when training begins."""
    folder, resume = Path(request.first.output_dir), request.first.resume_from_checkpoint
    check_holds_same(folder, request.objective.objective)
    if resume and resume != LAST:
        if len(request.arguments) > 1:
            raise ValueError(
                f"--resume_from_checkpoint {resume} is a checkpoint of one seed, but --seeds are "
                f"{list(request.arguments)}. Add its seed, e.g. --seed 0, or give --resume_from_checkpoint last for "
                "all seeds."
            )
        if not (Path(resume) / STREAM_STATE).exists():
            raise ValueError(
                f"--resume_from_checkpoint {resume} is not a checkpoint folder. Give a checkpoint-* folder, or `last`."
            )
        checkpoint_to_resume(folder, resume, contents=False)
    elif resume:
        if not folder.is_dir():
            raise ValueError(f"--resume_from_checkpoint last: the folder {folder} does not exist. Leave it out.")
        for args in request.arguments.values():
            if last_checkpoint(args.output_dir) and not finished(args.output_dir):
                checkpoint_to_resume(args.output_dir, LAST, contents=False)
    elif (folder / CARD).exists() and not (folder / RESULTS).exists():
        raise ValueError(
            f"--output_dir {folder} contains a {CARD} that is not from a run, and is not replaced. Give another folder."
        )
    else:
        check_not_begun([args.output_dir for args in request.arguments.values()])


def check_holds_same(folder: Path, objective: str) -> None:
    """Raises `ValueError` for a folder with a model that is not from a run of this objective."""
    if not (folder / "config.json").exists():
        return
    try:
        holds = read_objective(AutoConfig.from_pretrained(folder, trust_remote_code=False), folder)
    except (ValueError, OSError):
        holds = None
    if holds != objective:
        what = f"a run of the objective {holds!r}" if holds else "another model"
        raise ValueError(f"--output_dir {folder} contains {what}. Give another folder.")


def check_not_begun(folders: list[str]) -> None:
    """Raises `ValueError` if one of the folders contains a started run."""
    begun = [folder for folder in folders if finished(folder) or last_checkpoint(folder)]
    if begun:
        state = "a finished run" if finished(begun[0]) else "an unfinished run"
        raise ValueError(
            f"--output_dir {begun[0]} contains {state}. Resume it with --resume_from_checkpoint last, give another "
            "folder, or delete this folder."
        )


def check_finished(experiment: "Experiment") -> None:
    """Raises `ValueError` for a finished run with other settings: the card would show settings that were not used.

    Its length may grow, if it has a checkpoint."""
    for seed, args in experiment.request.arguments.items():
        if not finished(args.output_dir):
            continue
        before = read_finished(args.output_dir)["identity"]
        changed = [
            f"{name} {before.get(name)}, not {value}"
            for name, value in experiment.identity(seed).items()
            if before.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"--output_dir {args.output_dir} contains a finished run with {'; '.join(changed[:3])}. Give another "
                "folder, or the same options."
            )
        if is_longer(args):
            if last_checkpoint(args.output_dir) is None:
                raise ValueError(
                    f"--output_dir {args.output_dir} contains a finished run without a checkpoint, so "
                    f"{option_of(length_of(args))} can't lengthen it. Start from its weights, in another --output_dir: "
                    f"--encoder {args.output_dir}"
                )
            checkpoint_to_resume(args.output_dir, args.resume_from_checkpoint, contents=False)


def read_finished(folder: str) -> dict:
    """Returns the record of a finished run of one seed."""
    return json.loads((Path(folder) / FINISHED).read_text())


def is_longer(args: TrainingArguments) -> bool:
    """Returns True if the options ask for more steps or epochs than the finished run in the output folder had.

    Raises `ValueError` if they ask for fewer, or for steps where the run had epochs."""
    record, asked = read_finished(args.output_dir), length_of(args)
    epochs = record["identity"].get("num_train_epochs", TrainingArguments.num_train_epochs)
    before = record.get("length", {"steps": record["steps"], "epochs": epochs})  # an earlier version had no entry
    ((unit, value),) = asked.items()
    if unit not in before or value < before[unit]:
        raise ValueError(
            f"--output_dir {args.output_dir} contains a finished run of {option_of(before)}, and {option_of(asked)} "
            f"can't lengthen it. Give {option_of(before)} or more, or another folder."
        )
    return value > before[unit]


def check_start(request: "Request", blueprint: Blueprint) -> None:
    """Raises `ValueError` for conflicting encoder options, a global batch that is too small for the objective, and a
    random frozen encoder."""
    start, least = blueprint.start, request.objective.least_batch_of(blueprint.task)
    rows, ranks = request.first.per_device_train_batch_size, request.first.world_size
    if start.encoder and start.towers:
        options = " and ".join(f"--{kind}_encoder" for kind in start.towers)
        raise ValueError(f"--encoder {start.encoder} contains all encoders. Leave out {options}.")
    if rows * ranks < least:
        raise ValueError(
            f"--per_device_train_batch_size {rows} gives a global batch of {rows * ranks} row, but "
            f"{request.objective.objective} needs at least {least} rows. Give --per_device_train_batch_size {least}."
        )
    frozen = getattr(blueprint.task, "frozen", None)
    path = frozen and start.of(frozen)
    if frozen and (not path or is_shape_alone(path)):
        raise ValueError(
            f"--frozen {frozen} would freeze a randomly initialised encoder. Give a pretrained --{frozen}_encoder."
        )


class Trial(NamedTuple):
    """Facts about a model from its trial run.

    convolutional: whether its first encoder is convolutional. encoder_classes: class of each encoder, by kind of data.
    parameters: number of parameters of the native model, without its head."""

    convolutional: bool
    encoder_classes: dict[str, str]
    parameters: int


def try_out(request: "Request", blueprint: Blueprint, inputs: Inputs, rows: int | None = None) -> Trial:
    """Runs a forward and a backward pass on noise, and saves and loads a checkpoint, which takes seconds.

    rows: of the training data, for an objective that needs the numbers of rows; None for others.

    Raises `ValueError` if one of these fails: the sizes, the encoder, its weights, gradient checkpointing if it is
    asked for, or the checkpoint."""
    model, missing = blueprint.fresh(request.first.seed)
    if rows is not None:
        check_unchanged(model.objective, request.stream)
        model.set_rows(rows)
    batches = inputs.noise(kinds_alone(request))
    takes = set(inspect.signature(model.encoder.forward).parameters)
    first = inputs.modalities[0].noise()
    try:
        unused = model.freeze_unused(*batches)
        encoder_inputs, _ = frames_as_images(model.encoder, {k: value for k, value in first.items() if k in takes})
        hidden = last_hidden(model.encoder.eval(), model.encoder(**encoder_inputs))
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        sizes = " with ".join(modality.largest() for modality in inputs.modalities)
        encoder, hint = blueprint.start.encoder or "the encoder", size_hint(blueprint, inputs)
        raise ValueError(f"{sizes} do not fit {encoder}: {reason}{hint}") from error
    if request.first.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    lost = sorted(name for name in missing if f"full_model.{name}" not in unused)
    if lost:
        raise ValueError(
            f"--encoder {blueprint.start} lacks weights that training needs: {', '.join(lost[:5])}. Give another."
        )
    if request.main_process:
        check_reloads(model)
    classes = {kind: type(encoder).__name__ for kind, encoder in model.encoders.items()}
    bare = model.full_model if model.auto_class is AutoModel else model.encoder
    return Trial(hidden.ndim == 4, classes, sum(parameter.numel() for parameter in bare.parameters()))


def size_hint(blueprint: Blueprint, inputs: Inputs) -> str:
    """Returns the hint for an error with the image size in the encoder's config; empty if images have this size."""
    side = Context(config=blueprint.config).image_size
    sizes = [modality.shape().get("image_size", side) for modality in inputs.modalities]
    return f" Its config has image_size={side}: give --image_size {side}." if side and {*sizes} != {side} else ""


def kinds_alone(request: "Request") -> list[str]:
    """Returns the kinds with additional datasets of one kind only (--images_alone, --videos_alone, --texts_alone)."""
    options = vars(request.pairs) if request.pairs else {}
    return [kind for kind in request.objective.inputs if options.get(f"{kind}s_alone")]


def check_reloads(model: PretextModel) -> None:
    """Saves a model to a temporary folder and loads it, so that a failure shows before training.

    Raises `ValueError` if it can't be saved or loaded, or if its weights change."""
    name = type(model).__name__
    with tempfile.TemporaryDirectory() as folder:
        try:
            model.save_pretrained(folder)
            loaded = type(model).from_pretrained(folder, dtype=model.dtype).state_dict()
        except Exception as error:  # code of an objective may raise any error
            raise ValueError(
                f"A checkpoint of {name} can't be saved and loaded again: {type(error).__name__}: "
                f"{str(error).rstrip('.')}. Check `__init__` and the config of {name}: `save_pretrained` and "
                "`from_pretrained` must work."
            ) from error
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value.cpu(), loaded[key].cpu())]
    if changed:
        raise ValueError(f"A checkpoint of {name} changes these weights when loaded: {', '.join(changed[:5])}.")
