"""Training data is its own labelled set if no other is given: it may have a label, and rows are left out of training.

--dataset with a label column or class folders -> --eval_dataset, --eval_label, places of its validation and test rows
"""

import dataclasses
from typing import TYPE_CHECKING

from ..data.hold_out import Cut
from ..data.sources import open_splits
from ..evaluation.labelled_rows import EVALUATION, SPLITS, LabelledRows
from ..modalities import Inputs
from ..utils.ranks import on_main_process
from .inputs import eval_columns, kind_labels
from .settings import NO_DATASET

if TYPE_CHECKING:
    from .experiment import Request

MOST_ROWS = 20_000  # of a split of the user's data, if --eval_rows says no other number
MOST_CLASSES = 0.5  # classes for each row, above which a column names rows


def may_ask(request: "Request") -> bool:
    """Returns True if --dataset may be the labelled set: it is named as such, or no other set is and it is alone."""
    options, given = request.options, request.options.eval_dataset
    if given is not None:
        return given != NO_DATASET and given in options.dataset and options.split == "train"
    kinds = vars(request.pairs) if request.pairs else {}
    others = any(value for name, value in kinds.items() if name.endswith("s_alone"))
    return len(options.dataset) == 1 and options.split == "train" and not others


def with_question(request: "Request", inputs: Inputs) -> tuple["Request", Cut | None]:
    """Looks for a label in the training data if no other labelled set is given. Returns the request with this set, and
    the rows to leave out of training; None for a labelled set of other data, and without one.

    All ranks call it together. Prints why data without a label is not judged by one. Raises `ValueError` for a set or a
    label that the user named and that can't be used."""
    if not may_ask(request):
        return request, None
    options = request.options
    dataset = options.eval_dataset or options.dataset[0]
    if options.eval_dataset is not None and has_all_splits(request, inputs, dataset):
        return request, None
    limit = MOST_ROWS if options.eval_rows is None else options.eval_rows
    cut = on_main_process(lambda: cut_of(request, inputs, dataset, limit))
    if isinstance(cut, str):
        request.say(f"No transfer is measured: {cut} --eval_dataset names a labelled set.")
        return request, None
    options = dataclasses.replace(options, eval_dataset=dataset, eval_label=cut.label, eval_rows=limit)
    return dataclasses.replace(request, options=options), cut


def cut_of(request: "Request", inputs: Inputs, dataset: str, limit: int) -> Cut | str:
    """Returns the rows of validation and test that are in the training split; a reason if the data has no label."""
    options, kinds = request.options, tuple(inputs.by_name)
    reading = dataclasses.replace(request.reading, sample_by=None)
    try:
        rows = LabelledRows(
            dataset,
            inputs.needed,
            options.eval_label,
            eval_columns(request, dataset),
            limit,
            captions="text" in kinds and len(kinds) > 1,
            reading=reading,
            kind_labels=kind_labels(request),
        )
    except ValueError as error:
        if options.eval_dataset is not None or options.eval_label is not None:
            raise
        return str(error)
    classes = {row.label for some in rows._rows.values() for row in some}
    if options.eval_label is None and not 2 <= len(classes) <= MOST_CLASSES * len(rows):
        return f"the column {rows.label!r} of {rows.name} has {len(classes):,} values in {len(rows):,} rows."
    train = rows._rows["train"][0].source
    left_out = [row for split, some in rows._rows.items() if split != "train" for row in some if row.source is train]
    return Cut(rows.label, sorted(row.place for row in left_out), list(train.counts))


def has_all_splits(request: "Request", inputs: Inputs, dataset: str) -> bool:
    """Returns True if nothing has to be cut from train. Raises `ValueError` for a dataset that can't be opened."""
    reading = dataclasses.replace(request.reading, sample_by=None)
    return set(open_splits(dataset, eval_columns(request, dataset), inputs.needed, reading, EVALUATION)) == {*SPLITS}
