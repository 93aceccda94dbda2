"""`Recipe`: encoder + objective + data + settings + evaluation, and the `main()` that pretrains and evaluates it.

    argv -> checks -> train each seed -> evaluate next to baselines -> results.json, README.md, report.png

All options are checked before training starts and before any file is written.
"""

import errno
import signal
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
from .run.command_line import CommandLine, resume_command
from .run.settings import RunArguments
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
    neither the command line nor `--smoke` sets the option.
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
        """Returns the downloaded value of an option. Raises `ValueError` if the download fails."""
        try:
            return self.fetch[name]()
        except (ValueError, OSError, subprocess.CalledProcessError) as error:
            raise ValueError(f"The default of --{name} can't be downloaded: {error} Or give --{name}.") from error

    def main(self, argv: list[str] | None = None) -> dict | None:
        """Runs the recipe with the options of the command line.

        argv: arguments; default: those of the process. Returns the content of results.json on the main process, None
        on the others. For a wrong option or value, exits with a one-line error with the fix. After Ctrl-C, exits with
        status 130, and after SIGTERM during training with 143.
        """
        objective = objective_class(self.objective)
        fixed = {name: value for name, (value, _) in objective.fixed_options.items()}
        settings = {**fixed, **self.settings}
        command_line = CommandLine(option_types(objective), f"{self.name}.py", self.doc, settings, self.smoke)
        values = command_line.parse(argv)
        if values.get("log_level", "passive") == "passive":  # the run prints its own messages
            silence_libraries()
        try:
            from .run import run  # imports take seconds, and a typing error needs none of them

            return run(self, objective, command_line, self._with_fetched(values, command_line.given))
        except ValueError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            sys.exit(f"error: {error}. Make room, and resume with --resume_from_checkpoint last.")
        except KeyboardInterrupt:  # while nothing is trained; training handles it (stream/interruption.py)
            print(f"Interrupted. Resume, if it trained before: {resume_command(self.name, 1)}", file=sys.stderr)
            sys.exit(128 + signal.SIGINT)

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
