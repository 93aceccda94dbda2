"""Command line of a recipe, from dataclasses. Given options override `--smoke`, which overrides the recipe's defaults.

[RunArguments, Augmentation, RotationTask, TrainingArguments] + a recipe's settings + argv -> their values
"""

import argparse
import dataclasses
import difflib
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from ..utils.paths import relative, without_query
from ..utils.settings import field_docs, make_settings

# The options that --help shows first, and the groups of which it shows only names; --help_all shows all.
FIRST = (
    "dataset", "encoder", "output_dir", "eval_dataset", "eval_label", "num_train_epochs", "max_steps",
    "per_device_train_batch_size", "learning_rate", "seeds", "resume_from_checkpoint", "smoke", "push_to_hub",
)  # fmt: skip
FURTHER_GROUPS = (
    "data and encoder", "stream", "pairs", "encoders", "zero-shot classification", "order of frames",
    "temporal localization",
)  # fmt: skip
FURTHER = (  # of TrainingArguments, whose other options only --help_all names
    "gradient_accumulation_steps", "weight_decay", "warmup_steps", "lr_scheduler_type", "seed", "bf16", "use_cpu",
    "torch_compile", "dataloader_num_workers", "logging_steps", "save_strategy", "save_steps", "save_total_limit",
    "eval_strategy", "report_to",
)  # fmt: skip
HELP = {
    "output_dir": "Output folder for checkpoints, results and the model card.",
    "resume_from_checkpoint": "Continue an interrupted run: `last`, or the path of a checkpoint folder.",
    "seed": "Random seed: train only this seed instead of all --seeds.",
    "num_train_epochs": "Number of training epochs.",
    "max_steps": "Number of training steps. If positive, overrides --num_train_epochs.",
    "per_device_train_batch_size": "Batch size per device.",
    "gradient_accumulation_steps": "Number of batches per optimizer step.",
    "learning_rate": "Peak learning rate.",
    "lr_scheduler_type": "Learning rate schedule after the warmup: linear, cosine, constant, ...",
    "warmup_steps": "Number of warmup steps; below 1, a fraction of all steps.",
    "weight_decay": "Weight decay of matrices and convolutions. Biases and norms get none.",
    "bf16": "Train in bfloat16. Default: on for GPUs and for CPUs with AMX.",
    "logging_steps": "Number of steps between two logs of the metrics.",
    "save_strategy": "When to save a checkpoint.",
    "save_steps": "Number of steps between two checkpoints.",
    "save_total_limit": "Maximum number of checkpoints to keep; older ones are deleted.",
    "eval_strategy": "When to evaluate during training: pretext metrics, features, and with labels kNN accuracy.",
    "use_cpu": "Train on the CPU, even if a GPU is available.",
    "torch_compile": "Compile the encoders with torch.compile.",
    "dataloader_num_workers": "Number of worker processes that decode and augment. Default: 0 if the model trains on "
    "the same CPU cores, else up to 8.",
    "report_to": "Experiment trackers to log to: wandb, tensorboard, trackio, ...",
}
MISSING = object()
WIDTH = 110  # of the help, in characters
BY_MACHINE = ("bf16", "dataloader_num_workers")  # their defaults depend on the machine


class CommandLine:
    """Parser of the options of several dataclasses.

    prog: name of the program in `--help`. description: text above the options in `--help`. settings: default values of
    a recipe, by option name. smoke: values that `--smoke` changes. Raises `ValueError` if a recipe sets an unknown
    option.
    """

    def __init__(self, types: Sequence[type], prog: str, description: str, settings: dict, smoke: dict):
        self.types, self.settings, self.smoke = types, settings, smoke
        kinds = {field: field.type for type_ in types for field in dataclasses.fields(type_)}
        self.parser = HfArgumentParser(
            types, prog=prog, description=description, formatter_class=Formatter, allow_abbrev=False, add_help=False
        )
        for field, kind in kinds.items():  # the parser replaces `int | None` by `int` in the dataclass
            field.type = kind
        self.parser.add_argument("--help", "-h", action="store_true", help="Show this help message and exit.")
        everything = "Show this help message with all TrainingArguments and exit."
        self.parser.add_argument("--help_all", action="store_true", help=everything)
        unknown = [name for name in {**settings, **smoke} if name not in self._names()]
        if unknown:
            raise ValueError(f"The recipe sets unknown options: {', '.join(unknown)}. Remove or rename them.")

    def parse(self, argv: Sequence[str] | None = None) -> dict:
        """Returns the values of all options that the recipe, `--smoke` or the command line sets. Stores the options of
        the command line in `given`. Exits like `read`."""
        return self.with_defaults(self.read(argv))

    def read(self, argv: Sequence[str] | None = None) -> dict:
        """Returns the options of the command line, by name. Exits after `--help`, and with status 2 for an unknown
        option or a wrong value."""
        blank = argparse.Namespace(**dict.fromkeys(self._names(), MISSING))
        namespace, rest = self.parser.parse_known_args(argv, blank)
        given = {name: value for name, value in vars(namespace).items() if value is not MISSING}
        if given.pop("help", False) or given.pop("help_all", False):
            self.show_help("--help_all" in (sys.argv[1:] if argv is None else argv))
            self.parser.exit()
        if rest:
            near = self._near(rest[0].split("=")[0])
            self.parser.exit(
                2, f"error: unknown option {rest[0]}.{near or ' See --help, and --help_all for all options.'}\n"
            )
        return given

    def with_defaults(self, given: Mapping[str, Any]) -> dict:
        """Returns the values of all options that the recipe, `--smoke` or the user sets. Stores `given`, the options of
        the user. Raises `ValueError` for an unknown option."""
        unknown = next((name for name in given if name not in self._names()), None)
        if unknown is not None:
            raise ValueError(f"There is no option {unknown}.{self._near(f'--{unknown}')}")
        self.given = dict(given)
        return {**self.settings, **(self.smoke if given.get("smoke") else {}), **given}

    def build(self, type_: type, values: dict):
        """Builds one of the dataclasses from its fields in `values`. Raises `ValueError` for a wrong value."""
        fields = {field.name: values[field.name] for field in dataclasses.fields(type_) if field.name in values}
        return make_settings(type_, **fields)

    def show_help(self, everything: bool) -> None:
        """Prints the help, with the recipe's values: the most used options, those of the objective and of the data, and
        the names of further ones. everything: explains all options, with all `TrainingArguments`."""
        words = {**{k: v for t in self.types for k, v in field_docs(t).items()}, **HELP}
        for action in self.parser._actions:
            if action.dest in self.settings:
                action.default, action.of_recipe = relative(self.settings[action.dest]), True
            elif action.dest in BY_MACHINE:
                action.default = None
            if action.dest in words:
                action.help = words[action.dest].replace("%", "%%")
            if any(option.startswith("--no_") for option in action.option_strings):
                action.help = argparse.SUPPRESS
        self.parser._optionals.title = "training (transformers' TrainingArguments)"
        if not everything:
            self._shorten()
        groups = self.parser._action_groups
        groups.append(groups.pop(groups.index(self.parser._optionals)))
        self.parser.print_help()

    def _shorten(self) -> None:
        """Moves the most used options to the top of the help, and hides those of which only the names are shown."""
        framework = {field.name for field in dataclasses.fields(self.types[-1])}
        actions = {action.dest: action for action in reversed(self.parser._actions)}  # --no_x is after --x
        first = [actions[name] for name in FIRST if name in actions]
        hidden = []
        for group in self.parser._action_groups:
            further = group is self.parser._optionals or group.title in FURTHER_GROUPS
            for action in list(group._group_actions):
                if action in first:
                    group._group_actions.remove(action)
                elif further and action.help != argparse.SUPPRESS and action.dest not in ("help", "help_all"):
                    hidden += [action.dest] if action.dest not in framework or action.dest in FURTHER else []
                    action.help = argparse.SUPPRESS
        top = self.parser.add_argument_group("most used options")
        top._group_actions = first
        self.parser._action_groups.insert(0, self.parser._action_groups.pop())
        names = ", ".join(f"--{name}" for name in hidden)
        self.parser.epilog = textwrap.fill(f"Further options, explained by --help_all: {names}.", WIDTH)

    def _names(self) -> list[str]:
        return [action.dest for action in self.parser._actions]

    def _near(self, option: str) -> str:
        options = [option for action in self.parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(option, options, 1)
        return f" Did you mean {near[0]}?" if near else ""


def resume_command(command: str, processes: int) -> str:
    """Returns the command that resumes the run of this process; in words, if a launcher or a program started it.

    command: of the recipe, e.g. "python recipes/rotation_emoji.py" or "hf-pretext train rotation". processes: of the
    run."""
    option, started = ["--resume_from_checkpoint", "last"], Path(sys.argv[0]).name
    if started not in {Path(word).name for word in command.split()[:2]} or processes > 1:
        return f"the same command with {' '.join(option)}"
    arguments = sys.orig_argv if command.startswith("python") else [started, *sys.argv[1:]]
    arguments = list(map(without_query, arguments))
    return shlex.join(arguments + option * (arguments[-2:] != option))  # the last of two values counts


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Formats the help: the recipe's docstring unchanged, no long lists of choices. Omits the defaults None, False
    and []."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=34, width=WIDTH)

    def _get_help_string(self, action: argparse.Action) -> str:
        nothing = any(action.default is value for value in (None, False, argparse.SUPPRESS, MISSING))
        if nothing or action.default == [] or action.dest == "seed":
            return action.help
        of_recipe = getattr(action, "of_recipe", False)
        return f"{action.help} (this recipe: %(default)s)" if of_recipe else super()._get_help_string(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Shows one spelling of each option. The parser also accepts the other, `--with-dashes`."""
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
