"""Training data is its own labelled set if no other is given: it may have a label, and rows are left out of training.

--dataset with a label column or class folders -> --eval_dataset, --eval_label, places of its validation and test rows
"""

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..data.hold_out import Cut
from ..data.sources import open_splits
from ..evaluation.labelled_rows import EVALUATION, SPLITS, LabelledRows
from ..modalities import Inputs
from ..utils.ranks import on_main_process
from .inputs import eval_columns, kind_labels
from .settings import training_index

if TYPE_CHECKING:
    from .experiment import Request

MOST_ROWS = 20_000  # of a split of training data that the user did not name as labelled set
MOST_UNASKED = 200_000  # rows of training data in which no label is looked for unless it is named as labelled set
MOST_CLASSES = 0.5  # classes for each row, above which a column names rows


def may_ask(request: "Request") -> bool:
    """Returns True if --dataset may be the labelled set: it is named as such, or no other set is and it is alone."""
    options = request.options
    if options.split != "train":
        return False
    if options.eval_dataset is not None:
        return training_index(options) is not None
    kinds = vars(request.pairs) if request.pairs else {}
    others = any(value for name, value in kinds.items() if name.endswith("s_alone"))
    return len(options.dataset) == 1 and options.held_out_rows is None and not others


def with_question(request: "Request", inputs: Inputs) -> tuple["Request", Cut | None]:
    """Looks for a label in the training data if no other labelled set is given. Returns the request with this set, and
    the rows to leave out of training; None for a labelled set of other data, and without one.

    All ranks call it together. Prints why data without a label is not judged by one. Raises `ValueError` for a set or a
    label that the user named and that can't be used."""
    if not may_ask(request):
        return request, None
    options, asked = request.options, request.options.eval_dataset is not None
    index = training_index(options) or 0
    limit = options.eval_rows if asked or options.eval_rows is not None else MOST_ROWS
    answer = on_main_process(lambda: cut_of(request, inputs, index, limit))
    if isinstance(answer, str):
        request.say(f"No transfer is measured: {answer.rstrip('.')}. --eval_dataset names a labelled set.")
        return request, None
    dataset = options.eval_dataset if asked else options.dataset[0]
    options = dataclasses.replace(options, eval_dataset=dataset, eval_label=answer.label, eval_rows=limit)
    return dataclasses.replace(request, options=options), answer


def cut_of(request: "Request", inputs: Inputs, index: int, limit: int | None) -> Cut | str:
    """Returns the rows of validation and test that are in the training split; a reason if the data has no label.

    index: of the data in --dataset. limit: most rows of a split. Data with all three splits is not read."""
    options, kinds, dataset = request.options, tuple(inputs.by_name), request.options.dataset[index]
    asked = options.eval_dataset is not None or options.eval_label is not None
    reading = dataclasses.replace(request.reading, sample_by=None)
    columns = eval_columns(request, dataset)
    try:
        sources = open_splits(
            dataset, {**columns, "label": options.eval_label}, (*inputs.needed, "label"), reading, EVALUATION
        )
        train = sources["train"]
        if train.endless:
            raise ValueError(f"{train.name} has no known length, so no rows can be left out of training.")
        if not asked and len(train) > MOST_UNASKED:
            return f"{train.name} has {len(train):,} rows, which are many to search for a label."
        if sources.keys() == {*SPLITS}:
            return Cut(index, train.columns["label"], [], list(train.counts))
        captions = "text" in kinds and len(kinds) > 1
        rows = LabelledRows(
            dataset, inputs.needed, options.eval_label, columns, limit, captions, reading, kind_labels(request)
        )
    except ValueError as error:
        if asked:
            raise ValueError(of_training(str(error), columns, request)) from error
        return str(error)
    labels = {row.label for split in SPLITS for row in rows.rows(split)}
    if not asked and not 2 <= len(labels) <= MOST_CLASSES * len(rows):
        if len(labels) == 1:
            return f"all {len(rows):,} rows of {rows.name} have the same {rows.label}"
        return f"the column {rows.label!r} of {rows.name} has {len(labels):,} values in {len(rows):,} rows"
    others = [row for split in rows.splits if split != "train" for row in rows.rows(split)]
    train = rows.rows("train")[0].source
    left_out = [row for row in others if row.source is train]
    return Cut(index, rows.label, sorted(row.place for row in left_out), list(train.counts))


def of_training(message: str, kinds: Iterable[str], request: "Request") -> str:
    """Returns a message that names `--image_column` where no `--eval_image_column` was given."""
    for kind in kinds:
        if f"eval_{kind}_column" not in request.given:
            message = message.replace(f"--eval_{kind}_column", f"--{kind}_column")
    return message
