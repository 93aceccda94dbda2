"""Dataclasses to a command line: what a recipe says gives way to `--smoke`, and that to an option given.

[RunArguments, Augmentation, RotationTask, TrainingArguments] + a recipe's settings + argv -> their values
"""

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Sequence

from transformers import HfArgumentParser

from ..utils.paths import relative
from ..utils.settings import field_docs, make_settings

# The options of TrainingArguments that --help shows; --help_all shows every one.
COMMON = (
    "output_dir", "resume_from_checkpoint", "num_train_epochs", "max_steps", "per_device_train_batch_size",
    "gradient_accumulation_steps", "learning_rate", "weight_decay", "warmup_steps", "lr_scheduler_type", "seed", "bf16",
    "use_cpu", "torch_compile", "dataloader_num_workers", "logging_steps", "save_strategy", "save_steps",
    "save_total_limit", "eval_strategy", "report_to",
)  # fmt: skip
HELP = {
    "output_dir": "Where checkpoints, results and the card go.",
    "resume_from_checkpoint": "`last`, or a checkpoint folder: resume a run that was stopped.",
    "seed": "Train this one seed instead of all of --seeds.",
    "num_train_epochs": "Passes over the data.",
    "max_steps": "Stop after so many steps, whatever --num_train_epochs says.",
    "per_device_train_batch_size": "Samples of a batch, on each device.",
    "gradient_accumulation_steps": "Batches that make one step.",
    "learning_rate": "The highest learning rate.",
    "lr_scheduler_type": "How it falls: linear, cosine, constant, ...",
    "warmup_steps": "Steps in which it rises; below 1, a share of all steps.",
    "weight_decay": "Of matrices and kernels; vectors get none.",
    "bf16": "Train in bfloat16 (the default where the machine has instructions for it).",
    "logging_steps": "Steps between two lines of metrics.",
    "save_strategy": "When to write a checkpoint.",
    "save_steps": "Steps between two checkpoints.",
    "save_total_limit": "Checkpoints to keep.",
    "eval_strategy": "When to measure kNN and the pretext task on validation, while training.",
    "use_cpu": "Leave the GPU alone.",
    "torch_compile": "Compile the model with torch.compile.",
    "dataloader_num_workers": "Processes that decode and augment. Default: none where the model computes on the "
    "same cores, else up to 8.",
    "report_to": "Trackers: tensorboard, wandb, trackio, ...; none by default.",
}
MISSING = object()
BY_MACHINE = ("bf16", "dataloader_num_workers")  # chosen by what the machine has, where nothing is said


class CommandLine:
    """A parser over dataclasses.

    description: what `--help` says above the options. settings: a recipe's values, by option name; smoke: those that
    `--smoke` changes.
    """

    def __init__(self, types: Sequence[type], prog: str, description: str, settings: dict, smoke: dict):
        self.types, self.settings, self.smoke = types, settings, smoke
        kinds = {field: field.type for type_ in types for field in dataclasses.fields(type_)}
        self.parser = HfArgumentParser(
            types, prog=prog, description=description, formatter_class=Formatter, allow_abbrev=False, add_help=False
        )
        for field, kind in kinds.items():  # the parser turns `int | None` into `int` in the dataclass itself
            field.type = kind
        self.parser.add_argument("--help", "-h", action="store_true", help="Show this and exit.")
        self.parser.add_argument("--help_all", action="store_true", help="The same with all of TrainingArguments.")
        unknown = [name for name in {**settings, **smoke} if name not in self._names()]
        if unknown:
            raise ValueError(f"The recipe sets {', '.join(unknown)}, but there is no such option.")

    def parse(self, argv: Sequence[str] | None = None) -> dict:
        """Values of all options that a recipe, `--smoke` or the command line sets.

        Exits after `--help`, and with the usual status 2 for an unknown option or a bad value.
        """
        blank = argparse.Namespace(**dict.fromkeys(self._names(), MISSING))
        namespace, rest = self.parser.parse_known_args(argv, blank)
        given = {name: value for name, value in vars(namespace).items() if value is not MISSING}
        if given.pop("help", False) or given.pop("help_all", False):
            self.show_help("--help_all" in (sys.argv[1:] if argv is None else argv))
            self.parser.exit()
        if rest:
            self._refuse(rest[0])
        self.given = given
        return {**self.settings, **(self.smoke if given.get("smoke") else {}), **given}

    def build(self, type_: type, values: dict):
        """One of the dataclasses from the values that are its own. Raises `ValueError` for a bad one."""
        fields = {field.name: values[field.name] for field in dataclasses.fields(type_) if field.name in values}
        return make_settings(type_, **fields)

    def show_help(self, everything: bool) -> None:
        """Prints the help, with the recipe's own values as the defaults."""
        words = {**{k: v for t in self.types for k, v in field_docs(t).items()}, **HELP}
        framework = {field.name for field in dataclasses.fields(self.types[-1])}
        for action in self.parser._actions:
            if action.dest in self.settings:
                action.default = relative(self.settings[action.dest])
            elif action.dest in BY_MACHINE:
                action.default = None
            if action.dest in words:
                action.help = words[action.dest].replace("%", "%%")
            switched_off = any(option.startswith("--no_") for option in action.option_strings)
            if switched_off or (action.dest in framework and action.dest not in COMMON and not everything):
                action.help = argparse.SUPPRESS
        self.parser._optionals.title = "training (of transformers' TrainingArguments)"
        groups = self.parser._action_groups
        groups.append(groups.pop(groups.index(self.parser._optionals)))
        self.parser.print_help()

    def _names(self) -> list[str]:
        return [action.dest for action in self.parser._actions]

    def _refuse(self, argument: str) -> None:
        options = [option for action in self.parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(argument.split("=")[0], options, 1)
        hint = f" Did you mean {near[0]}?" if near else " See --help, and --help_all for every option."
        self.parser.exit(2, f"error: there is no option {argument}.{hint}\n")


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Keeps the recipe's docstring as written; says defaults where there are any; no clutter of choices."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=110)

    def _get_help_string(self, action: argparse.Action) -> str:
        nothing = any(action.default is value for value in (None, False, argparse.SUPPRESS, MISSING))
        return action.help if nothing or action.dest == "seed" else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """One spelling of each option; the other (`--with-dashes`) is understood too."""
        spellings, action.option_strings = action.option_strings, action.option_strings[:1]
        try:
            return super()._format_action_invocation(action)
        finally:
            action.option_strings = spellings

    def _format_usage(self, usage, actions, groups, prefix) -> str:
        return f"usage: {self._prog} [options]\n\n"

    def _metavar_formatter(self, action, default_metavar):
        if action.choices is not None and len(action.choices) > 6:
            return super()._metavar_formatter(argparse.Action([], action.dest), default_metavar)
        return super()._metavar_formatter(action, default_metavar)
