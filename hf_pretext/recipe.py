"""A recipe: encoder + objective + data + settings + evaluation, and the `main()` that turns it into a checkpoint.

    argv -> checks -> train each seed -> evaluate beside baselines -> results.json, README.md, report.png

Everything is checked before anything is trained or written, so that a mistake costs seconds.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedConfig, TrainingArguments
from transformers.utils import logging

from .registry import objective_class
from .run.command_line import CommandLine
from .run.settings import RunArguments
from .stream.settings import ARGUMENTS, StreamSettings

BESIDE = ("images_alone", "texts_alone")  # data beside --dataset


@dataclass
class Recipe:
    """What a recipe's file says; `main()` does it.

    name: its file's name. objective: the objective's. doc: the file's docstring, shown by `--help`.
    encoder, smoke_encoder: config of the fresh encoder, from the image size; for texts from the size of the
    vocabulary, the longest sequence and the padding token's id; for both from all four and the id of the token that
    texts end with. settings: values of options, by their names on the command line; smoke: those that `--smoke`
    changes. fetch: what gives a value that takes a download, by option: asked only where neither the command line nor
    `--smoke` gives that option.
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
        types = (
            RunArguments,
            *ARGUMENTS["_".join(objective.inputs)],
            StreamSettings,
            objective.task_class,
            TrainingArguments,
        )
        command_line = CommandLine(types, f"{self.name}.py", self.doc, self.settings, self.smoke)
        values = command_line.parse(argv)
        from accelerate import PartialState
        from datasets import disable_progress_bars

        from .run.experiment import Run  # what evaluates takes seconds to import; --help and typing errors end before

        if values.get("log_level", "passive") == "passive":  # what matters we say ourselves
            logging.set_verbosity_error()
            logging.disable_progress_bar()
            disable_progress_bars()  # of datasets, which makes a table of each file
        try:
            own = BESIDE if "dataset" in command_line.given else ()  # who brings pairs wants no others beside them
            missing = [name for name in self.fetch if name not in {*values, *own}]
            if missing:
                with PartialState().main_process_first():  # the others find what it has fetched
                    values |= {name: self._fetched(name) for name in missing}
            run = Run(self, objective, command_line, values)
            return run.results() if run.train() else None
        except ValueError as error:
            sys.exit(f"error: {error}")
