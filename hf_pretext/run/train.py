"""Trains every unfinished seed of an experiment.

Experiment -> a checkpoint for each seed -> a record of each run, for results.json
"""

import math
from collections.abc import Callable
from pathlib import Path

from accelerate.utils import release_memory
from transformers import TrainingArguments

from ..cards import RESULTS
from ..evaluation.comparison import encoder_transfer, pretext_metrics
from ..evaluation.transfer import METHODS
from ..features import width
from ..interop.sentence_transformers import write_modules
from ..modeling import PretextModel
from ..stream.branch import LAST, last_checkpoint, step_of
from ..stream.length import length_of
from ..stream.sample_log import BAD_SAMPLES, read_lines
from ..stream.saving import explained_write
from ..trainer import PretextTrainer
from ..utils.files import write_json
from ..utils.machine import energy, keep_freed_memory
from ..utils.ranks import leave_group
from . import health
from .checks import FINISHED, finished, is_longer, read_finished
from .command_line import resume_command
from .experiment import Experiment, announcement
from .inputs import TEXT

QUICK = {"knn": METHODS["knn"]}  # evaluation during training
SHOWN = 5  # number of bad samples that are printed


def train(experiment: Experiment) -> dict[int, dict]:
    """Trains every seed that is not finished. Returns the record of each run, by seed."""
    request = experiment.request
    if request.first.device.type == "cpu":
        keep_freed_memory()
    request.say(announcement(experiment))
    records = {}
    for seed, args in request.arguments.items():
        records[seed] = train_seed(experiment, seed, args)
        release_memory()  # the trainer and its callbacks reference each other and keep the model in memory
    leave_group()
    return records


def train_seed(experiment: Experiment, seed: int, args: TrainingArguments) -> dict:
    """Trains one seed and returns its record. For a finished seed, reads the record from its folder, unless the options
    ask for more steps or epochs."""
    say, folder = experiment.request.say, Path(args.output_dir)
    if finished(args.output_dir) and not is_longer(args):
        say(f"seed {seed}: already finished, in {args.output_dir}")
        return read_finished(args.output_dir)
    resume = args.resume_from_checkpoint
    if resume == LAST:
        resume = LAST if last_checkpoint(folder) else None
        begins = "resumes from its last checkpoint" if resume else "no checkpoint yet, starts at step 0"
        say(f"seed {seed}: {begins}")
    trainer, frozen = make_trainer(experiment, seed, args)
    with energy() as drawn:
        trainer.train(resume)
    if experiment.request.main_process:
        for name in (FINISHED, RESULTS):  # of a run that was lengthened: they belong to other weights
            (folder / name).unlink(missing_ok=True)
    with explained_write(folder, "The model"):
        trainer.save_model(_internal_call=True)  # without a push, which needs the results
    if experiment.request.main_process:
        write_pooling(experiment, trainer.accelerator.unwrap_model(trainer.model), args.output_dir)
        say_notes(experiment)
    account = trainer.account()
    say_bad_samples(experiment, seed, account["bad_samples"], folder)
    result = {
        "seed": seed,
        "steps": trainer.state.global_step,
        "samples_seen": trainer.samples_seen,
        "epochs": None if experiment.data.endless else trainer.samples_seen / len(experiment.data),
        "seconds": trainer.seconds,
        "samples_per_second": trainer.samples_seen / trainer.seconds,
        **account,
        "weights": weights_of(trainer),
        "length": length_of(args),
        "lengthened": trainer.lengthening.history,
        "resumed": trainer.resumed,
        **({} if trainer.resumed else drawn),  # the energy of a resumed part is incomplete
        "frozen": frozen,
        **trainer.collapse.record(),
        "prepared": trainer.accelerator.unwrap_model(trainer.model).prepared(),
        "history": [finite(entry) for entry in trainer.state.log_history if "loss" in entry],
        "identity": experiment.identity(seed),
        "repository": trainer.hub_model_id,
    }
    trainer.save_state()
    if experiment.request.main_process:
        write_json(folder / FINISHED, result)  # last, since it marks the run as finished
    return result


def weights_of(trainer: PretextTrainer) -> dict:
    """Returns the step that the final weights are of. If --load_best_model_at_end chose it, also the metric, its value
    and whether the largest or the smallest value was chosen."""
    state, args = trainer.state, trainer.args
    if not args.load_best_model_at_end or state.best_model_checkpoint is None:
        return {"step": state.global_step}
    metric = f"eval_{args.metric_for_best_model.removeprefix('eval_')}"
    chosen = "largest" if args.greater_is_better else "smallest"
    step = step_of(state.best_model_checkpoint)
    return {"step": step, "metric": metric, "value": state.best_metric, "chosen": chosen}


def make_trainer(experiment: Experiment, seed: int, args: TrainingArguments) -> tuple[PretextTrainer, list[str]]:
    """Returns the trainer of a seed, and the names of the parameters that get no gradient, which are frozen."""
    model, _ = experiment.blueprint.fresh(seed)
    frozen = model.freeze_unused(*experiment.noise())
    idle = [name for name in frozen if "pooler" not in name]
    if idle:
        more = ", and more" if len(idle) > 3 else ""
        experiment.request.say(
            f"seed {seed}: {len(idle)} weights get no gradient and are frozen: {', '.join(idle[:3])}{more}"
        )
    model, evaluation = experiment.as_fast_layout(model), while_training(experiment)
    stream = experiment.request.stream
    trainer = PretextTrainer(model, args, experiment.data, experiment.inputs, evaluation=evaluation, stream=stream)
    experiment.request.trackers.follow(trainer)
    trainer.interruption.resume = resume_command(experiment.request.recipe.command, args.world_size)
    return trainer, frozen


def write_pooling(experiment: Experiment, model: PretextModel, folder: str) -> None:
    """For text encoders, writes the files with which `SentenceTransformer(folder)` pools like this package."""
    if model.inputs == (TEXT,):
        length, pooling = experiment.inputs.by_name[TEXT].max_length, getattr(model.task, "pooling", "mean")
        write_modules(folder, width(model.encoder), length, pooling)


def say_notes(experiment: Experiment) -> None:
    """Prints what the kinds of data noticed during training."""
    for modality in experiment.inputs.modalities:
        if note := modality.end_of_training():
            experiment.request.say(note)


def say_bad_samples(experiment: Experiment, seed: int, reasons: dict[str, int], folder: str) -> None:
    """Prints how many bad samples were replaced, and the file and row of the first ones."""
    if not reasons:
        return
    counts, path = ", ".join(f"{reason}: {count}" for reason, count in reasons.items()), Path(folder) / BAD_SAMPLES
    experiment.request.say(f"seed {seed}: samples that could not be used were replaced ({counts}). See {path}:")
    for line in read_lines(path)[:SHOWN]:
        experiment.request.say(f"  {line.get('path') or line['shard']}:{line['row']}: {line['reason']}")


def while_training(experiment: Experiment) -> Callable[[PretextModel], dict[str, float]] | None:
    """Returns the evaluation for `--eval_strategy`, None without one: metrics without labels, and with a labelled set
    quick metrics on validation, never on test."""
    if experiment.request.first.eval_strategy == "no":
        return None
    device, splits = experiment.request.first.device, ("train", "validation")

    def evaluate(model: PretextModel) -> dict[str, float]:
        labelled, kind = experiment.labelled, model.inputs[0]
        metrics = health.while_training(experiment, model)
        if labelled is None:
            return metrics
        metrics |= pretext_metrics(model, labelled.pretext_batches("validation"), device)
        pooling = getattr(model.task, "pooling", "mean")
        transfer = encoder_transfer(model.encoder, labelled, kind, QUICK, pooling, device=device, splits=splits)
        return {**metrics, "knn_top1": transfer["knn"]["validation"]["top1"]}

    return evaluate


def finite(entry: dict) -> dict:
    """Returns a log entry without NaN and infinity, which JSON does not support. A gradient norm may overflow."""
    return {name: v for name, v in entry.items() if not isinstance(v, float) or math.isfinite(v)}
