"""`hf-pretext`: what is done with a finished run: its card, a push to the Hub, an evaluation, a look into it; and a
check-up of the machine.

hf-pretext card | push | evaluate | info | doctor
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command. Exits with status 1 and one line that says what to do when something given is wrong."""
    options = parser().parse_args(argv)
    if options.run is not doctor:  # which must do without, where it is broken
        from transformers.utils import logging

        logging.set_verbosity_error()  # what matters we say ourselves
        logging.disable_progress_bar()
    try:
        sys.exit(options.run(options))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def parser() -> argparse.ArgumentParser:
    """The options of all commands. What a command is for is what its function's docstring says."""
    root = argparse.ArgumentParser("hf-pretext", description="Card, push, evaluation and more of a finished run.")
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(required=True, metavar="command")
    for name, (run, example, options) in COMMANDS.items():
        says = f"{run.__doc__}\n\n  hf-pretext {name} {example}".rstrip()
        formatter = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(name, help=run.__doc__, description=says, formatter_class=formatter)
        made.set_defaults(run=run)
        for option, settings in options.items():
            made.add_argument(option, **settings)
    return root


def card(options: argparse.Namespace) -> None:
    """Write the card of a run again, from its results."""
    from .cards.refresh import refresh_card

    print(refresh_card(options.folder, options.license, options.language, options.limits))


def push_command(options: argparse.Namespace) -> None:
    """Publish a run on the Hub: weights, card and results, in one commit."""
    from .cards.push import push

    print(push(**{name: value for name, value in vars(options).items() if name != "run"}))


def evaluate_command(options: argparse.Namespace) -> None:
    """Measure what a frozen encoder knows of labels, beside random ones of its shape."""
    from .cards.terminal import show_transfer
    from .evaluation.standalone import evaluate
    from .utils.files import write_json

    given = {name: value for name, value in vars(options).items() if name not in ("run", "output")}
    place = options.output and Path(options.output).absolute()
    if place and (place.is_dir() or not os.access(place.parent, os.W_OK)):  # or hours of measuring would be for nothing
        raise ValueError(f"--output {options.output} can't be written: give a file in a folder that is there.")
    try:
        transfer = evaluate(**given)
    except ValueError as error:  # in the words of a recipe's options
        raise ValueError(str(error).replace("--eval_", "--")) from error
    show_transfer(transfer)
    if options.output:
        write_json(options.output, transfer)


def info(options: argparse.Namespace) -> None:
    """What is in a folder or repository: encoder, objective, steps, samples, figures."""
    from .cards.info import show_info

    show_info(options.source, options.revision)


def doctor(options: argparse.Namespace) -> int:
    """Check the machine: versions, devices, disk, the Hub; each with the mend."""
    from .doctor import examine, show

    return show(examine())


def positive(text: str) -> int:
    """A whole number above 0, for argparse."""
    if int(text) < 1:
        raise ValueError
    return int(text)


RUN = {"help": "The --output_dir of a run."}
SOURCE = {"metavar": "folder_or_repository"}
REVISION = {"help": "Of a repository: branch, tag or commit."}
COMMANDS = {  # what runs, an example, and the options
    "card": (
        card,
        "runs/mine --license apache-2.0 --limits 'Trained on drawings: photographs were not tried.'",
        {
            "folder": RUN,
            "--license": {"help": "The licence of the weights, by its name on the Hub."},
            "--language": {"nargs": "+", "help": "The languages of the data, by their codes."},
            "--limits": {"help": "What else readers should know of the model's limits, in your words."},
        },
    ),
    "push": (
        push_command,
        "runs/mine you/your-encoder --private",
        {
            "folder": RUN,
            "repository": {"help": "user/name; made where it is not there."},
            "--private": {"action": "store_true", "default": None, "help": "Make it a private one."},
            "--revision": {"default": "main", "help": "The branch to commit to (default: main)."},
            "--checkpoints": {
                "choices": ("last", "all"), "default": "last", "help": "all: each checkpoint as a revision, too.",
            },
            "--training_state": {
                "action": "store_true", "help": "With the optimizer's state, to go on with the run elsewhere.",
            },
        },
    ),
    "evaluate": (
        evaluate_command,
        "you/your-encoder --dataset path/to/labelled --label species",
        {
            "source": SOURCE,
            "--dataset": {"required": True, "help": "A labelled set: a Hub id, a folder, or files."},
            "--label": {"help": "Its column of labels."},
            "--column": {"help": "Its column of images, texts, sounds or videos."},
            "--rows": {"type": positive, "help": "Rows of each of its splits at most."},
            "--image_size": {"type": positive, "help": "In place of the processor's own."},
            "--revision": REVISION,
            "--output": {"help": "A file for the figures, as JSON."},
        },
    ),
    "info": (
        info,
        "you/your-encoder",
        {"source": SOURCE, "--revision": REVISION},
    ),
    "doctor": (doctor, "", {}),
}  # fmt: skip

if __name__ == "__main__":
    main()
