"""`hf-pretext`: looks at data, pretrains an encoder, evaluates it, writes its card, pushes it, checks the machine.

hf-pretext look | train | objectives | card | push | evaluate | audit | compare | info | doctor
"""

import argparse
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import __version__


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command. For a wrong argument, exits with status 1 and a one-line error with the fix."""
    options = parser().parse_args(argv)
    if options.run is train:  # it has options of its own, and prints its errors
        train(options)
        return
    if options.run is not doctor:  # doctor must also run if transformers can't be imported
        from transformers.utils import logging

        logging.set_verbosity_error()  # the commands print errors themselves
        logging.disable_progress_bar()
    try:
        sys.exit(options.run(options))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands. The docstring of a command's function is its description in `--help`."""
    root = argparse.ArgumentParser(
        "hf-pretext", description="Pretrain an encoder on unlabelled data, evaluate it, and push it to the Hub."
    )
    root.add_argument("--version", action="version", version=__version__)
    commands = root.add_subparsers(required=True, metavar="command")
    for name, (run, example, options) in COMMANDS.items():
        says = f"{run.__doc__}\n\n  hf-pretext {name} {example}".rstrip()
        formatter = argparse.RawDescriptionHelpFormatter
        made = commands.add_parser(
            name,
            help=run.__doc__.partition("\n")[0],
            description=says,
            formatter_class=formatter,
            add_help=name != "train",
        )
        made.set_defaults(run=run)
        for option, settings in options.items():
            made.add_argument(option, **settings)
    return root


def train(options: argparse.Namespace) -> None:
    """Pretrain an encoder with an objective, on your data or on a bundled set."""
    from .registry import OBJECTIVES, names

    known = names(OBJECTIVES)
    if options.objective not in known:
        asks = options.objective in (None, "--help", "-h")
        print(f"usage: hf-pretext train OBJECTIVE [options]\n\nObjectives: {', '.join(known)}")
        print("\nWhat each is for: hf-pretext objectives. The options of one: hf-pretext train rotation --help")
        near = difflib.get_close_matches(options.objective or "", known, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        sys.exit(0 if asks else f"error: no objective {options.objective!r}.{hint}")
    from .recipe import train_main

    train_main(options.objective, options.options)


def objectives(options: argparse.Namespace) -> None:
    """List the objectives: the task, its data, and what was measured."""
    from .cards.terminal import show_objectives

    show_objectives(options.kind)


def card(options: argparse.Namespace) -> None:
    """Write the model card of a run again from its results."""
    from .cards.refresh import refresh_card

    print(refresh_card(options.folder, options.license, options.language, options.limits))


def push_command(options: argparse.Namespace) -> int:
    """Push a run to the Hub: weights, model card and results, in one commit."""
    from .cards.dry_run import dry_run
    from .cards.push import push

    given = {name: value for name, value in vars(options).items() if name not in ("run", "dry_run")}
    if options.dry_run:
        return 0 if dry_run(**given) else 1
    print(push(**given))
    return 0


def evaluate_command(options: argparse.Namespace) -> None:
    """Evaluate an encoder on a labelled dataset (kNN, linear probes, fine-tuning), compared with random encoders."""
    from .cards.terminal import show_transfer
    from .evaluation.labelled_rows import OR_SKIP
    from .evaluation.standalone import evaluate
    from .utils.files import write_json

    given = {name: value for name, value in vars(options).items() if name not in ("run", "output")}
    check_output(options.output)
    try:
        transfer = evaluate(**given)
    except ValueError as error:  # the error names a recipe's options
        raise ValueError(str(error).replace(OR_SKIP, "").replace("--eval_", "--")) from error
    show_transfer(transfer)
    if options.output:
        write_json(options.output, transfer)


def check_output(path: str | None) -> None:
    """Raises `ValueError` for a file that can't be written, before hours of evaluation."""
    place = path and Path(path).absolute()
    if place and (place.is_dir() or not os.access(place.parent, os.W_OK)):
        raise ValueError(f"--output {path} can't be written. Give a file in an existing, writable folder.")


def audit_command(options: argparse.Namespace) -> None:
    """Audit a trained model: by what it learned, what its encoder knows, and what it ignores."""
    from .audit.standalone import audit
    from .cards.refresh import refresh_audit
    from .cards.terminal import show_audit
    from .evaluation.labelled_rows import OR_SKIP
    from .utils.files import write_json

    given = {name: v for name, v in vars(options).items() if name not in ("run", "output") and v is not None}
    check_output(options.output)
    try:
        entry = audit(**given)
    except ValueError as error:  # the error names a recipe's options
        raise ValueError(str(error).replace(OR_SKIP, "").replace("--eval_", "--").replace("--audit_", "--")) from error
    show_audit(entry)
    if options.output:
        write_json(options.output, entry)
    elif written := refresh_audit(options.source, entry):
        print(f"Written to {written}")


def compare_command(options: argparse.Namespace) -> None:
    """Compare runs by five criteria: cues, what the encoder knows, over-fitting, transfer, cost.

    With --dataset, names are objectives: each trains an encoder on the data, with as many samples. The dataset needs
    labels, which no objective sees."""
    from .cards.compare import check_sorted, compare, draw
    from .cards.terminal import show_comparison

    of_training = {name: getattr(options, name) for name in TRAINING if getattr(options, name) is not None}
    check_sorted(options.sort)
    runs, failed, image = options.runs, [], options.output
    if of_training:
        if "dataset" not in of_training or "samples" not in of_training:
            raise ValueError(f"--{next(iter(of_training))} trains objectives: give --dataset and --samples, too.")
        from .recipe import pretrain_each

        folder = of_training.setdefault("output_dir", "runs/compare")
        image = image or os.path.join(folder, "compare.png")
        runs, failed = pretrain_each(runs, **of_training)
    if runs:
        rows = compare(runs, options.sort)
        show_comparison(rows)
        if image:
            draw(image, rows)
            print(f"Image: {image}")
    if failed:
        raise ValueError("\n".join(["not trained:", *failed]))


def look_command(options: argparse.Namespace) -> None:
    """Look at a dataset before a long run: sizes, duplicates, unreadable rows, classes, a contact sheet."""
    from .look import look
    from .look.terminal import show

    show(look(**{name: value for name, value in vars(options).items() if name != "run"}))


def info(options: argparse.Namespace) -> None:
    """Show the encoder, objective, steps, samples and metrics of a folder or Hub repository."""
    from .cards.info import show_info

    show_info(options.source, options.revision)


def doctor(options: argparse.Namespace) -> int:
    """Check the machine: versions, devices, disk and Hub access, with a fix for each problem."""
    from .doctor import examine, show

    return show(examine())


def positive(text: str) -> int:
    """Parses a positive integer, for argparse. Raises `ValueError` for anything else."""
    if int(text) < 1:
        raise ValueError
    return int(text)


TRAINING = ("dataset", "samples", "seeds", "encoder", "eval_dataset", "eval_label", "output_dir")  # of `compare`
RUN = {"help": "Output folder (--output_dir) of a run."}
SOURCE = {"metavar": "folder_or_repository", "help": "Folder or Hub id of an encoder."}
REVISION = {"help": "Branch, tag or commit of the Hub repository."}
ENCODING = {"help": "Encoding of JSON, CSV and text files, e.g. cp1252. Default: UTF-8."}
SEPARATOR = {"help": "Character between the fields of CSV files. Default: detected."}
COMMANDS = {  # name: (function, arguments of the example in --help, options)
    "look": (
        look_command,
        "path/to/images --output sheet.png",
        {
            "dataset": {"help": "Dataset: a Hub id, a folder, files, or a bundled one, e.g. emoji."},
            "--split": {"help": "Look only at this split. Default: train, validation and test."},
            "--column": {"help": "Column of the images, audio or videos, or of texts alone. Default: detected."},
            "--text_column": {"help": "Column of the texts. Default: detected."},
            "--label": {"help": "Column of the labels. Default: detected."},
            "--rows": {
                "type": positive,
                "help": "Maximum number of rows of each split, evenly spaced. Default: 4000; of audio or videos, 400.",
            },
            "--encoding": ENCODING,
            "--separator": SEPARATOR,
            "--output": {"help": "PNG file of the contact sheet. Default: look.png in the current folder."},
            "--json": {"metavar": "FILE", "dest": "json_file", "help": "JSON file to write the report to."},
        },
    ),
    "train": (
        train,
        "rotation --dataset path/to/images",
        {"objective": {"nargs": "?"}, "options": {"nargs": argparse.REMAINDER}},
    ),
    "objectives": (
        objectives,
        "--kind image",
        {"--kind": {"choices": ("image", "text", "audio", "video"), "help": "Only objectives of this kind of data."}},
    ),
    "card": (
        card,
        "runs/mine --license apache-2.0 --limits 'Trained on drawings: photographs were not tried.'",
        {
            "folder": RUN,
            "--license": {"help": "License of the weights, by its name on the Hub, e.g. apache-2.0."},
            "--language": {"nargs": "+", "help": "Language codes of the data, e.g. en."},
            "--limits": {"help": "Known limits of the model, in your own words."},
        },
    ),
    "push": (
        push_command,
        "runs/mine you/your-encoder --private",
        {
            "folder": RUN,
            "repository": {"help": "Hub repository, user/name. It is created if it does not exist."},
            "--private": {"action": "store_true", "default": None, "help": "Create the repository as private."},
            "--revision": {"default": "main", "help": "Branch to commit to. Default: main."},
            "--checkpoints": {
                "choices": ("last", "all"), "default": "last",
                "help": "last: push the final weights. all: also push each checkpoint as a revision. Default: last.",
            },
            "--training_state": {
                "action": "store_true", "help": "Also push the training state, to resume the run on another machine.",
            },
            "--dry_run": {
                "action": "store_true",
                "help": "Only check and list what would be pushed. Needs no network and no token.",
            },
        },
    ),
    "evaluate": (
        evaluate_command,
        "you/your-encoder --dataset path/to/labelled --label species",
        {
            "source": SOURCE,
            "--dataset": {"required": True, "help": "Labelled dataset: a Hub id, a folder or files."},
            "--label": {"help": "Column of the labels. Default: detected."},
            "--column": {"help": "Column of the images, texts, audio or videos. Default: detected."},
            "--encoding": ENCODING,
            "--separator": SEPARATOR,
            "--rows": {"type": positive, "help": "Maximum number of rows of each split. Default: all."},
            "--image_size": {
                "type": positive, "help": "Side of the input images in pixels. Default: the size of its processor.",
            },
            "--fine_tune": {
                "type": positive, "default": 0, "metavar": "EPOCHS",
                "help": "Also fine-tune an image encoder for these epochs. Default: no fine-tuning.",
            },
            "--image_white": {
                "type": positive,
                "help": "Pixel value of white in images of more than 8 bits, as in training. Default: of the file.",
            },
            "--revision": REVISION,
            "--output": {"help": "JSON file to write the metrics to."},
        },
    ),
    "audit": (
        audit_command,
        "runs/mine --nuisance style",
        {
            "source": {"metavar": "folder_or_repository", "help": "Folder or Hub id of a checkpoint of hf_pretext."},
            "--dataset": {"help": "Labelled dataset: a Hub id, a folder or files. Default: that of the run."},
            "--label": {"help": "Column of the labels. Default: that of the run, or detected."},
            "--nuisance": {"nargs": "+", "help": "Columns that the encoder need not know, e.g. a style."},
            "--same": {"help": "Column whose equal values are the same thing in another form, e.g. a name."},
            "--only": {
                "nargs": "+", "choices": ("information", "transformations", "cues"),
                "help": "Parts to measure. Default: all.",
            },
            "--rows": {"type": positive, "help": "Maximum number of rows of each split. Default: all."},
            "--encoding": ENCODING,
            "--separator": SEPARATOR,
            "--revision": REVISION,
            "--output": {"help": "JSON file to write the audit to. Default: into the results and the card of the run."},
        },
    ),
    "compare": (
        compare_command,
        "runs/rotation runs/jigsaw --sort transfer --output compare.png",
        {
            "runs": {
                "nargs": "+",
                "help": "Output folders of runs that were evaluated on the same label; or objectives, with --dataset.",
            },
            "--sort": {"help": "Column to sort by, the best first, e.g. transfer, cue_share or label_bits."},
            "--output": {"help": "PNG file to draw the comparison to."},
            "--dataset": {"nargs": "+", "help": "Train the objectives on this data, and compare them."},
            "--samples": {
                "type": positive, "metavar": "N", "help": "Samples that each objective sees in training, with repeats.",
            },
            "--seeds": {"type": int, "nargs": "+", "help": "Seeds of training. Default: 0; three give a verdict."},
            "--encoder": {"help": "Pretrained encoder that training starts from. Default: a fresh one."},
            "--eval_dataset": {"help": "Labelled dataset, if it is another one."},
            "--eval_label": {"help": "Column of the labels. Default: detected."},
            "--output_dir": {"help": "Folder of the new runs. Default: runs/compare."},
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
