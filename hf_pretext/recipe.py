"""A recipe: encoder + objective + data + settings + evaluation, and the `main()` that turns it into a checkpoint.

    argv -> checks -> train each seed -> evaluate next to baselines -> results.json, README.md, report.png

Everything is checked before anything is trained or written, so that a mistake costs seconds.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, TrainingArguments
from transformers.utils import logging

from .evaluation.measure import fitting
from .modalities import inputs_options
from .modeling import PretextModel
from .registry import objective_class
from .run.command_line import CommandLine
from .run.settings import RunArguments
from .stream.settings import StreamSettings

ALONE = ("images_alone", "texts_alone")  # data next to --dataset


@dataclass
class Recipe:
    """What a recipe's file says; `main()` does it.

    name: its file's name. objective: the objective's. doc: the file's docstring, shown by `--help`.
    encoder, smoke_encoder: config of the fresh full model, from the sizes that it names: image_size; vocab_size,
    max_length, pad_token_id, eos_token_id; and so on (see `Modality.shape`). settings: values of options, by their
    names on the command line; smoke: those that `--smoke` changes. fetch: what gives a value that takes a download, by
    option: asked only where neither the command line nor `--smoke` gives that option.
    """

    name: str
    objective: str
    doc: str
    encoder: Callable[..., PreTrainedConfig]
    smoke_encoder: Callable[..., PreTrainedConfig]
    settings: dict[str, Any] = field(default_factory=dict)
    smoke: dict[str, Any] = field(default_factory=dict)
    fetch: Mapping[str, Callable[[], Any]] = field(default_factory=dict)

    def _fetched(self, name: str) -> Any:
        """Raises `ValueError` where it can't be had."""
        try:
            return self.fetch[name]()
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"--{name} is fetched where it is not given, but: {error} Or give --{name}.") from error

    def main(self, argv: list[str] | None = None) -> dict | None:
        """Runs the recipe with the options of the command line.

        Returns what results.json holds (None on all but the main process). Exits with status 1 and one line that says
        what to do when something given is wrong.
        """
        objective = objective_class(self.objective)
        command_line = CommandLine(option_types(objective), f"{self.name}.py", self.doc, self.settings, self.smoke)
        values = command_line.parse(argv)
        if values.get("log_level", "passive") == "passive":  # what matters we say ourselves
            silence_libraries()
        try:
            from .run import run  # what trains and evaluates takes seconds to import; typing errors end before

            return run(self, objective, command_line, self._with_fetched(values, command_line.given))
        except ValueError as error:
            sys.exit(f"error: {error}")

    def _with_fetched(self, values: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of options, with those that are fetched where nothing gives them."""
        from accelerate import PartialState

        others = ALONE if "dataset" in given else ()  # who brings pairs wants no others with them
        missing = [name for name in self.fetch if name not in {*values, *others}]
        if not missing:
            return values
        with PartialState().main_process_first():  # the others use what it has fetched
            return values | {name: self._fetched(name) for name in missing}


def option_types(objective: type[PretextModel]) -> tuple[type, ...]:
    """The dataclasses of all options of an objective's runs, `TrainingArguments` last."""
    of_measures = [options for measure in fitting(objective) for options in measure.options]
    kinds = inputs_options(objective.inputs, objective.views)
    return (RunArguments, *kinds, *of_measures, StreamSettings, objective.task_class, TrainingArguments)


def silence_libraries() -> None:
    """Turns off the bars and notes of transformers and datasets, which makes a table of each file."""
    from datasets import disable_progress_bars

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
