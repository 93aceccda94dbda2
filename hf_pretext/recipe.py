"""A recipe: encoder + objective + data + settings + evaluation, and the `main()` that turns it into a checkpoint.

    argv -> checks -> train each seed -> evaluate beside baselines -> results.json, README.md, report.png

Everything is checked before anything is trained or written, so that a mistake costs seconds.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import PreTrainedConfig, TrainingArguments
from transformers.utils import logging

from .command_line import CommandLine, task_class
from .data.settings import ARGUMENTS, StreamSettings
from .objectives import told_of

NO_DATASET = "none"
BESIDE = ("images_alone", "texts_alone")  # data beside --dataset


@dataclass
class RunArguments:
    """What is pretrained on what, and what it is judged by.

    dataset: What to pretrain on, no labels needed: a Hub id (streamed), a folder, or files (a folder or a glob of
        pictures, Parquet, WebDataset tars, Arrow, JSON lines, CSV or plain text). Several are mixed.
    mixture_weights: How often each of several datasets is drawn from; by their rows where nothing is said.
    split: Their split.
    encoder: Start from this one (a Hub id or folder) instead of the recipe's own fresh one. A folder with a config.json
        alone gives a fresh encoder of that shape.
    eval_dataset: A labelled set for the transfer figures, given as --dataset is; `none` leaves the figures out.
    eval_label: The column of labels in it.
    eval_rows: Rows of each of its splits at most.
    seeds: Train one run for each: means, spreads and the verdict need three.
    smoke: A tiny encoder and a few steps, to see that everything works.
    license: The card's: the licence of the weights, by its name on the Hub, as `apache-2.0`.
    language: The card's: the languages of the data, by their codes, as `en`.
    limits: The card's: what else its readers should know of the model's limits, in your words.
    """

    _argument_group_name: ClassVar[str] = "data and encoder"

    dataset: list[str] = field(default_factory=list)
    mixture_weights: list[float] | None = None
    split: str = "train"
    encoder: str | None = None
    eval_dataset: str | None = None
    eval_label: str | None = None
    eval_rows: int | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    smoke: bool = False
    license: str | None = None
    language: list[str] = field(default_factory=list)
    limits: str | None = None


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
        own = ARGUMENTS[told_of(self.objective)["modality"]]
        types = (RunArguments, *own, StreamSettings, task_class(self.objective), TrainingArguments)
        command_line = CommandLine(types, f"{self.name}.py", self.doc, self.settings, self.smoke)
        values = command_line.parse(argv)
        from accelerate import PartialState
        from datasets import disable_progress_bars

        from .modeling import objective_class  # from here on it takes seconds; --help and typing errors end before
        from .run import Run

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
            run = Run(self, objective_class(self.objective), command_line, values)
            return run.results() if run.train() else None
        except ValueError as error:
            sys.exit(f"error: {error}")
