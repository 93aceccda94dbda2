"""What a run of a recipe is asked for, besides what its objective, its data and `TrainingArguments` have."""

from dataclasses import dataclass, field
from typing import ClassVar

NO_DATASET = "none"


@dataclass
class RunArguments:
    """What is pretrained on what, and what it is judged by.

    dataset: What to pretrain on, no labels needed: a Hub id (streamed), a folder, or files (a folder or a glob of
        images, Parquet, WebDataset tars, Arrow, JSON lines, CSV or plain text). Several are mixed.
    mixture_weights: How often each of several datasets is drawn from; by their rows where nothing is said.
    split: Their split.
    encoder: Start from this one (a Hub id or folder) instead of the recipe's own fresh one. A folder with a config.json
        alone gives a fresh encoder of that shape.
    eval_dataset: A labelled set for transfer, given as --dataset is; `none` leaves it out.
    eval_label: The column of labels in it.
    eval_rows: Rows of each of its splits at most.
    eval_fractions: Shares of its labels that linear probes know, as 0.01 0.1 1. Default: all of them; of texts,
        sounds and videos these three.
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
    eval_fractions: list[float] | None = None
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    smoke: bool = False
    license: str | None = None
    language: list[str] = field(default_factory=list)
    limits: str | None = None
