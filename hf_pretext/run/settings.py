"""Options of every recipe. More options come from its objective, its kinds of data and `TrainingArguments`."""

import os
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, ClassVar

from ..samples import located

NO_DATASET = "none"


@dataclass
class RunArguments:
    """Options for the data, the encoder, the evaluation, the seeds and the model card.

    dataset: Training data, without labels: a Hub id (streamed), a folder, or files (images, Parquet, WebDataset tars,
        Arrow, JSON lines, CSV or plain text). Files may be URLs (https://, s3://, gs://, hf://), globs, or a list:
        @list.txt names a file with one path or URL a line. Several datasets are mixed.
    mixture_weights: Sampling weight of each dataset. If not set: its number of rows.
    split: Split of the training data.
    held_out_rows: Without --eval_dataset: rows to hold out of training and measure (default: 1%, 64 to 1,000).
    encoding: Encoding of JSON, CSV and plain text files, e.g. cp1252. If not set: UTF-8, or UTF-16 with a byte order
        mark.
    separator: Character between the fields of CSV files; `tab` for a tab. If not set: comma, semicolon or tab, as in
        the first lines.
    encoder: Pretrained encoder (Hub id or folder) to start from; a folder with only a config.json gives random weights.
        If not set, the recipe's encoder is used, with random weights.
    eval_dataset: Labelled dataset for the evaluation (kNN, linear probes), in any format of --dataset. If not set:
        --dataset, if it has a label; its validation and test rows are left out of training. `none` skips the
        evaluation.
    eval_label: Column of the labels in --eval_dataset. If not set, it is detected.
    eval_rows: Maximum number of rows of each split of --eval_dataset. If not set: all; 20,000 of --dataset, if that has
        the labels.
    report_dataset: Labelled dataset whose examples report.png shows. Default: --eval_dataset.
    eval_fractions: Fractions of the labels to train linear probes on, e.g. 0.01 0.1 1. If not set, all labels for
        images, and 0.01 0.1 1 for texts, audio and videos.
    fine_tune: Epochs of fine-tuning the image encoder on --eval_dataset.
    audit: Also measure by what the model learned: cues that solve the task, bits of the label, invariances.
    audit_nuisance: Columns of --eval_dataset that the encoder need not know, whose bits --audit measures, e.g. a style.
    audit_same: Column of --eval_dataset for --audit, whose equal values are the same thing in another form.
    seeds: Random seeds; one run is trained for each. Give at least three: fewer give no verdict on whether the encoder
        beats a random one.
    smoke: Test run of all steps with a tiny encoder and a few training steps.
    license: Written to the model card: license of the weights, by its name on the Hub, e.g. `apache-2.0`.
    language: Written to the model card: language codes of the data, e.g. `en`.
    limits: Written to the model card: known limits of the model, in your own words.
    """

    _argument_group_name: ClassVar[str] = "data and encoder"

    dataset: list[str] = field(default_factory=list)
    mixture_weights: list[float] | None = None
    split: str = "train"
    held_out_rows: int | None = None
    encoding: str | None = None
    separator: str | None = None
    encoder: str | None = None
    eval_dataset: str | None = None
    eval_label: str | None = None
    eval_rows: int | None = None
    report_dataset: str | None = None
    eval_fractions: list[float] | None = None
    fine_tune: int = 0
    audit: bool = False
    audit_nuisance: list[str] = field(default_factory=list)
    audit_same: str | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    smoke: bool = False
    license: str | None = None
    language: list[str] = field(default_factory=list)
    limits: str | None = None


def same_data(one: Any, other: Any) -> bool:
    """Returns True if two values of --dataset name the same data: one object, one path, one URL or one Hub id."""
    if not all(isinstance(each, (str, PathLike)) for each in (one, other)):
        return one is other
    one, other = (located(os.fspath(each)) for each in (one, other))
    return one == other or os.path.realpath(os.path.expanduser(one)) == os.path.realpath(os.path.expanduser(other))


def training_index(options: RunArguments) -> int | None:
    """Returns the position in --dataset of the data that is also the labelled set; None for other labelled data."""
    given = options.eval_dataset
    if given in (None, NO_DATASET):
        return None
    return next((i for i, dataset in enumerate(options.dataset) if same_data(dataset, given)), None)
