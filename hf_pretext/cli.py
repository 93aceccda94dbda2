"""`hf-pretext`: what is done with a finished run: its card, a push to the Hub, an evaluation, a look into it; and a
check-up of the machine.

hf-pretext card | push | evaluate | info | doctor
"""

import argparse
import sys
from collections.abc import Sequence

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
    except ValueError as error:
        sys.exit(f"error: {error}")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser("hf-pretext", description="Card, push, evaluation and more of a finished run.")
    found.add_argument("--version", action="version", version=__version__)
    commands = found.add_subparsers(required=True, metavar="command")

    def command(run, name: str, says: str, example: str) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=says, description=f"{says}\n\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
        )
        made.set_defaults(run=run)
        return made

    made = command(
        card,
        "card",
        "Write the card of a run again, from its results.",
        "hf-pretext card runs/mine --license apache-2.0 --limits 'Trained on drawings: photographs were not tried.'",
    )
    made.add_argument("folder", help="The --output_dir of a run.")
    made.add_argument("--license", help="The licence of the weights, by its name on the Hub.")
    made.add_argument("--language", nargs="+", help="The languages of the data, by their codes.")
    made.add_argument("--limits", help="What else readers should know of the model's limits, in your words.")

    made = command(
        push_command,
        "push",
        "Publish a run on the Hub: weights, card and results, in one commit.",
        "hf-pretext push runs/mine you/your-encoder --private",
    )
    made.add_argument("folder", help="The --output_dir of a run.")
    made.add_argument("repository", help="user/name; made where it is not there.")
    made.add_argument("--private", action="store_true", default=None, help="Make it a private one.")
    made.add_argument("--revision", default="main", help="The branch to commit to (default: main).")
    made.add_argument(
        "--checkpoints", choices=("last", "all"), default="last", help="all: each checkpoint as a revision, too."
    )
    made.add_argument(
        "--training_state", action="store_true", help="With the optimizer's state, to go on with the run elsewhere."
    )

    made = command(
        evaluate_command,
        "evaluate",
        "Measure what a frozen encoder knows of labels, beside random ones of its shape.",
        "hf-pretext evaluate you/your-encoder --dataset path/to/labelled --label species",
    )
    made.add_argument("source", metavar="folder_or_repository")
    made.add_argument("--dataset", required=True, help="A labelled set: a Hub id, a folder, or files.")
    made.add_argument("--label", help="Its column of labels.")
    made.add_argument("--column", help="Its column of pictures or texts.")
    made.add_argument("--rows", type=int, help="Rows of each of its splits at most.")
    made.add_argument("--image_size", type=int, help="In place of the processor's own.")
    made.add_argument("--output", help="A file for the figures, as JSON.")

    made = command(
        info,
        "info",
        "What is in a folder or repository: encoder, objective, steps, samples, figures.",
        "hf-pretext info you/your-encoder",
    )
    made.add_argument("source", metavar="folder_or_repository")
    made.add_argument("--revision", help="Of a repository: branch, tag or commit.")

    command(
        doctor,
        "doctor",
        "Check the machine: versions, devices, disk, the Hub; each with the mend.",
        "hf-pretext doctor",
    )
    return found


def card(options: argparse.Namespace) -> None:
    from .cards.again import card_again

    print(card_again(options.folder, options.license, options.language, options.limits))


def push_command(options: argparse.Namespace) -> None:
    from .cards.push import push

    print(push(**{name: value for name, value in vars(options).items() if name != "run"}))


def evaluate_command(options: argparse.Namespace) -> None:
    from .cards.terminal import show_transfer
    from .evaluation.anew import evaluate
    from .files import write_json

    given = {name: value for name, value in vars(options).items() if name not in ("run", "output")}
    found = evaluate(**given)
    if options.output:
        write_json(options.output, found)
    show_transfer(found)


def info(options: argparse.Namespace) -> None:
    from .cards.info import show_info

    show_info(options.source, options.revision)


def doctor(options: argparse.Namespace) -> int:
    from .doctor import examine, show

    return show(examine())


if __name__ == "__main__":
    main()
