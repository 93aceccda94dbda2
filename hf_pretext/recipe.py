"""`Recipe`: encoder + objective + data + settings + evaluation, and the `main()` that pretrains and evaluates it.

    argv -> checks -> train each seed -> evaluate next to baselines -> results.json, README.md, report.png

All options are checked before training starts and before any file is written.
"""

import dataclasses
import errno
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig, TrainingArguments
from transformers.utils import logging

from .encoders import is_shape_alone
from .evaluation.measure import fitting
from .modalities import inputs_options
from .modeling import PretextModel
from .presets import LARGE_ROWS, SMOKE
from .registry import described, objective_class, preset
from .run.command_line import CommandLine, resume_command
from .run.settings import RunArguments
from .samples import DATA_SETS
from .stream.settings import StreamSettings
from .utils.progress import shows_bars

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Recipe:
    """Content of a recipe file. `main()` runs it.

    name: name of the recipe's file. objective: name of the objective. doc: docstring of the file, shown by `--help`.
    encoder, smoke_encoder: functions that return the config of the fresh full model. Their arguments are any of the
    sizes image_size, vocab_size, max_length, pad_token_id, eos_token_id, ... (see `Modality.shape`).
    settings: default values of options, by option name. smoke: values that `--smoke` changes.
    fetch: functions that download data and return the value of an option, by option name. They are called only if
    neither the command line nor `--smoke` sets the option. command: that runs it; default: of the recipe's file.
    """

    name: str
    objective: str
    doc: str
    encoder: Callable[..., PreTrainedConfig]
    smoke_encoder: Callable[..., PreTrainedConfig]
    settings: dict[str, Any] = field(default_factory=dict)
    smoke: dict[str, Any] = field(default_factory=dict)
    fetch: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    command: str = ""

    def __post_init__(self):
        self.command = self.command or f"python recipes/{self.name}.py"

    def _fetched(self, name: str) -> Any:
        """Returns the downloaded value of an option. Raises `ValueError` if the download fails."""
        try:
            return self.fetch[name]()
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"The default of --{name} can't be downloaded: {error} Or give --{name}.") from error

    def main(self, argv: list[str] | None = None) -> dict | None:
        """Runs the recipe with the options of the command line.

        argv: arguments; default: those of the process. Returns the content of results.json on the main process, None
        on the others. Ends the process like `exits`."""
        given = self.read(argv)
        with exits(self.command):
            return self.run(given)

    def read(self, argv: Sequence[str] | None = None) -> dict[str, Any]:
        """Returns the options of the command line, by name. Exits like `CommandLine.read`."""
        return self._command_line().read(argv)

    def values(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of all options that the user, `--smoke` or the recipe sets."""
        return self._command_line().with_defaults(given)

    def run(self, given: Mapping[str, Any]) -> dict | None:
        """Runs the recipe with the user's options, by name. Returns the content of results.json on the main process,
        None on the others. Raises `ValueError` for a wrong option or value, before training and before any file is
        written."""
        command_line = self._command_line()
        values = command_line.with_defaults(given)
        if values.get("log_level", "passive") == "passive":  # the run prints its own messages
            silence_libraries()
        from .run import run  # imports take seconds, and a typing error needs none of them

        return run(self, objective_class(self.objective), command_line, self._with_fetched(values, given))

    def _command_line(self) -> CommandLine:
        objective = objective_class(self.objective)
        fixed = {name: value for name, (value, _) in objective.fixed_options.items()}
        program = Path(self.command).name if self.command.startswith("python") else self.command
        return CommandLine(option_types(objective), program, self.doc, {**fixed, **self.settings}, self.smoke)

    def _with_fetched(self, values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values of all options, after downloading those that have no value."""
        from accelerate import PartialState

        missing = [name for name in self.fetch if name not in values]
        if not missing:
            return values
        from .run.experiment import out_of_place

        unused = out_of_place(given)  # the recipe's other data belongs to its own dataset
        missing = [name for name in missing if name not in unused]
        with PartialState().main_process_first():  # the other processes use the downloaded files
            return values | {name: self._fetched(name) for name in missing}


@contextmanager
def exits(command: str) -> Iterator[None]:
    """Ends the process for an error of the user: for a wrong option or value and a full disk with a one-line error with
    the fix, after Ctrl-C with status 130, and after SIGTERM during training with 143. command: that runs the recipe."""
    try:
        yield
    except ValueError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
        sys.exit(f"error: {error}. Make room, and resume with --resume_from_checkpoint last.")
    except KeyboardInterrupt:  # while nothing is trained; training handles it (stream/interruption.py)
        print(f"Interrupted. Resume, if it trained before: {resume_command(command, 1)}", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def train_main(objective: str, argv: Sequence[str]) -> dict | None:
    """Runs `hf-pretext train`. objective: its name. argv: the options. Returns and ends like `Recipe.main`."""
    command = f"hf-pretext train {objective}"
    with exits(command):
        given = default_recipe(objective).read(argv)
        return default_recipe(objective, given).run(given)


def pretrain(objective: str, dataset: Any = None, encoder: str | None = None, output_dir: str | None = None, **options):
    """Pretrains and evaluates an encoder, as `hf-pretext train` does, from a script or a notebook.

    objective: name, e.g. "rotation". dataset: training data: a folder, files, a Hub id or a `datasets` object, or a
        list of these; default: the bundled data set of the objective. encoder: folder or Hub id of a pretrained
        encoder to start from; default: a fresh one. output_dir: default: runs/OBJECTIVE. options: those of the command,
        e.g. `num_train_epochs=3`.
    Returns the `Results` on the main process, None on the others. Raises `ValueError` for a wrong option or value, with
    the fix, before training and before any file is written.

    Example:
        >>> results = hf_pretext.pretrain("masked_image", dataset="path/to/images", output_dir="runs/mine")
        >>> encoder = AutoModel.from_pretrained("runs/mine")
    """
    from .cards.notebook import Results

    datasets = dataset if isinstance(dataset, list) or dataset is None else [dataset]
    named = {"dataset": datasets, "encoder": encoder, "output_dir": output_dir}
    given = {**options, **{name: value for name, value in named.items() if value is not None}}
    recipe = default_recipe(objective, given)
    if recipe.run(given) is None:
        return None
    return Results(recipe.values(given)["output_dir"])


def pretrain_each(objectives: Sequence[str], samples: int, output_dir: str, **options) -> tuple[list[str], list[str]]:
    """Pretrains an encoder with each of several objectives, on the same data and as many samples, and audits it.

    samples: that each sees in training, repeats included: rows, or packed sequences of texts. output_dir: has a folder
        for each objective. options: of all objectives, as of `pretrain`, e.g. `dataset`.
    Returns the folders of the finished runs, and a line about each objective that could not be trained; the others are.
    Raises `ValueError`, before anything is trained, for objectives that repeat, have a folder already, or do not take
    the options or the data."""
    if repeated := [name for name in objectives if objectives.count(name) > 1]:
        raise ValueError(f"{repeated[0]} is named twice. Name each objective once.")
    recipes = {}
    for name in objectives:
        folder = Path(output_dir, name)
        if folder.exists():
            raise ValueError(
                f"{folder} exists. Give another --output_dir, or compare finished runs by their folders, without "
                "--dataset."
            )
        given = {**options, "audit": True, "output_dir": str(folder)}
        try:
            recipe = default_recipe(name, given)
            values = recipe.values(given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        batch = values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1)
        recipes[name] = recipe, {**given, "max_steps": max(samples // batch, 1)}
    finished, failed = [], []
    for name, (recipe, given) in recipes.items():
        try:
            recipe.run(given)
            finished.append(given["output_dir"])
        except ValueError as error:  # hours of the other objectives are not lost
            failed.append(f"{name}: {error}")
    return finished, failed


def default_recipe(name: str, given: Mapping[str, Any] | None = None) -> Recipe:
    """Returns the recipe that `hf-pretext train` runs: an objective with the defaults of its file (see
    `presets.Preset`).

    name: of the objective. given: the user's options, by name; None: for the help, without opening data. Without
    `dataset`, the data is the bundled set of the defaults, which is also the labelled set. Raises `ValueError` for an
    unknown objective, and for data that can't be opened."""
    objective, defaults = objective_class(name), preset(name)
    embedded, large = defaults.dataset, False
    data = {"dataset": [embedded], "eval_dataset": embedded, **DATA_SETS[embedded]}
    options = defaults.options(None, large)
    if given is not None:
        from .run.default import samples_of

        data = {} if "dataset" in given else data
        rows = samples_of(objective, {**options, **data, **given})
        accelerated = torch.accelerator.is_available() and not given.get("use_cpu")
        large = rows is not None and rows >= LARGE_ROWS and accelerated
        options = defaults.options(rows, large, is_continued(objective, given))
    known = {field.name for type_ in option_types(objective) for field in dataclasses.fields(type_)}
    settings = {**options, **data, "output_dir": f"runs/{name}"}
    smoke = {**SMOKE, **defaults.smoke, "output_dir": f"runs/{name}-smoke"}
    return Recipe(
        name=name,
        objective=name,
        doc=description(name),
        encoder=defaults.large if large else defaults.encoder,
        smoke_encoder=defaults.tiny,
        settings={option: value for option, value in settings.items() if option in known},
        smoke={option: value for option, value in smoke.items() if option in known},
        command=f"hf-pretext train {name}",
    )


def is_continued(objective: type[PretextModel], given: Mapping[str, Any]) -> bool:
    """Returns True if all encoders start from pretrained weights."""
    full = given.get("encoder")
    starts = [full] if full else [given.get(f"{kind}_encoder") for kind in objective.inputs]
    return all(start and not is_shape_alone(start) for start in starts)


def description(name: str) -> str:
    """Returns the text above the options in `hf-pretext train NAME --help`."""
    facts, defaults = described(name), preset(name)
    command = f"hf-pretext train {name} {defaults.needs}".strip()
    return (
        f"{facts['summary']}\n{facts['sources']}\n\n"
        f"{command:<56} # on the bundled data set {defaults.dataset}\n"
        f"{f'{command} --dataset path/to/data':<56} # on your own data; no labels needed\n"
        f"{command} --encoder path/or/id --dataset path/to/data\n"
        f"accelerate launch -m hf_pretext.cli train {name} ...     # on several GPUs\n\n"
        f"Defaults are of small data. From {LARGE_ROWS:,} samples on, an accelerator trains a larger encoder\n"
        "(docs/presets.md)."
    )


def option_types(objective: type[PretextModel]) -> tuple[type, ...]:
    """Returns the dataclasses of all options of a run with this objective, `TrainingArguments` last."""
    of_measures = [options for measure in fitting(objective) for options in measure.options]
    kinds = inputs_options(objective.inputs, objective.views, objective.one_text_a_row)
    return (RunArguments, *kinds, *of_measures, StreamSettings, objective.task_class, TrainingArguments)


def silence_libraries() -> None:
    """Turns off the progress bars and warnings of transformers and datasets, which would fill the screen. Bars of
    downloads are shown where bars are."""
    from datasets import disable_progress_bars
    from huggingface_hub.utils import disable_progress_bars as disable_download_bars

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    if not shows_bars():
        disable_download_bars()
