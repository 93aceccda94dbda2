"""Order of frames: whether a model needs the frames of a video in their order, or more of them than the last one.

videos (n, F, ...) with their frames in order, in a random order, and the last frame F times -> R@1 of video to text, or
for models without embeddings, which of two captions of one class matches better
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers.utils import logging

from ..modeling import PretextModel
from .labelled_rows import OR_SKIP
from .labelled_set import LabelledSet
from .matching import captions_shown, match_scores
from .measure import Measure, Metrics, Subject, distinct
from .retrieval import ids, numbered, ranks

SEED = 0  # of the random orders, which are the same for all models
PREFIX, CHOSEN = "frames_", "_chosen"  # begin, and end on rows of chosen classes, of the names of metrics
ORDERS = {"in_order": "frames in order", "shuffled": "frames shuffled", "last": "last frame alone"}
BY = {"r1": "video to caption, R@1", "match": "better of two captions"}
log = logging.get_logger(__name__)


@strict
@dataclass
class FrameOrderArguments:
    """Settings of the measure of the order of frames.

    order_classes: Classes of --eval_label whose videos need the order of their frames, e.g. those of two actions after
        each other. The metrics with frames in order, shuffled frames and the last frame alone are measured on their
        rows, too. If not set: only on all rows.
    """

    _argument_group_name: ClassVar[str] = "order of frames"

    order_classes: list[str] | None = None


def chosen_classes(options: Mapping[type, Any]) -> list[str]:
    """Returns the classes of --order_classes. options: by class, see `Subject`."""
    return (options.get(FrameOrderArguments) or FrameOrderArguments()).order_classes or []


def check(labelled: LabelledSet, options: Mapping[type, Any]) -> None:
    """Raises `ValueError` for classes that no row of the test split has."""
    present = {labelled.labels.names[i] for i in set(labelled.labels.splits["test"].tolist())}
    if missing := [name for name in chosen_classes(options) if name not in present]:
        raise ValueError(
            f"--order_classes {missing[0]}: no row of the test split of {labelled.name} has this class. Its classes "
            f"({labelled.label}) are {', '.join(sorted(present))}. Give some of these{OR_SKIP}."
        )


def rows_of(labelled: LabelledSet, options: Mapping[type, Any], split: str) -> dict[str, np.ndarray]:
    """Returns the places of rows in a split, by the end of the names of their metrics: all rows, and those of the
    chosen classes if there are any."""
    numbers = [i for i, name in enumerate(labelled.labels.names) if name in chosen_classes(options)]
    chosen = np.flatnonzero(np.isin(labelled.labels.splits[split], numbers))
    return {"": np.arange(len(labelled.captions(split))), **({CHOSEN: chosen} if len(chosen) else {})}


def reordered(batches: Iterator[Mapping[str, Tensor]]) -> Iterator[dict[str, dict[str, Tensor]]]:
    """Yields each batch of videos (columns `(B, F, ...)`) three times, by the names of `ORDERS`. The random order is
    another one for each video."""
    random = torch.Generator().manual_seed(SEED)
    for batch in batches:
        count, frames = next(iter(batch.values())).shape[:2]
        shuffled = torch.rand(count, frames, generator=random).argsort(1)
        last = torch.full((count, frames), frames - 1)
        yield {"in_order": dict(batch), "shuffled": frames_at(batch, shuffled), "last": frames_at(batch, last)}


def frames_at(batch: Mapping[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    """Returns the frames of videos at some places, `(B, F)`, of all columns."""
    rows = torch.arange(len(places))[:, None]
    return {name: value[rows, places] for name, value in batch.items()}


def nearest_is_right(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Returns whether the nearest of the different captions is that of the video, for all rows of a split: bool `(n,)`,
    by the names of `ORDERS`. Embeddings of frames in order are those of retrieval."""
    embedded: dict[str, list[Tensor]] = {order: [] for order in ORDERS if order != "in_order"}
    for batches in reordered(subject.labelled.all_batches(split, "video")):
        for order, parts in embedded.items():
            parts.append(subject.embed("video", [batches[order]]))
    videos = {"in_order": subject.embeddings("video", split), **{k: torch.cat(parts) for k, parts in embedded.items()}}
    _, texts = subject.caption_embeddings(split)
    of_videos, of_texts = numbered(*ids(subject.labelled, split))
    return {order: (ranks(each, texts, of_videos, of_texts) == 1).numpy() for order, each in videos.items()}


def better_is_right(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Returns whether the caption of a video has a higher score of `match` than one of another video of its class, for
    the labelled rows of a split: bool `(n,)`, by the names of `ORDERS`. Ties are wrong."""
    captions, shown = subject.labelled.captions(split), captions_shown(subject.labelled, split)
    right: dict[str, list[Tensor]] = {order: [] for order in ORDERS}
    first = 0
    for batches in reordered(iter(subject.batches("video", split))):
        part = slice(first, first + len(next(iter(batches["last"].values()))))
        for order, batch in batches.items():
            scores = [match_scores(subject, batch, [captions[i] for i in shown[k][part]]) for k in ("own", "hard")]
            right[order].append(scores[0] > scores[1])
        first = part.stop
    return {order: torch.cat(parts).numpy() for order, parts in right.items()}


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Measures R@1 of video to text among the different captions of a split (`frames_shuffled_r1`), or the accuracy of
    `match` at choosing between two captions (`frames_shuffled_match`), for each of `ORDERS`."""
    if subject.labelled.inputs.by_name["video"].frames < 2:
        return {}
    by = way(subject.model)
    right = (nearest_is_right if by == "r1" else better_is_right)(subject, split)
    rows = rows_of(subject.labelled, subject.options, split)
    return {
        f"{PREFIX}{order}_{by}{end}": float(right[order][places[places < len(right[order])]].mean())
        for end, places in rows.items()
        for order in ORDERS
    }


def way(model: PretextModel | type[PretextModel]) -> str:
    """Returns the key of `BY` by which a model is measured."""
    return "r1" if "embed" in model.capabilities else "match"


def chance_of(
    labelled: LabelledSet, model: PretextModel | type[PretextModel], options: Mapping[type, Any], split: str = "test"
) -> Metrics:
    """Chance levels of `compute`: of a random caption. {} with a warning for videos of one frame."""
    if labelled.inputs.by_name["video"].frames < 2:
        log.warning("The order of frames is not measured: videos have one frame. Give --num_frames 2 or more.")
        return {}
    by = way(model)
    level = 1 / len(distinct(labelled.captions(split))) if by == "r1" else 0.5
    return {f"{PREFIX}{order}_{by}{end}": level for end in rows_of(labelled, options, split) for order in ORDERS}


WORDS = {
    f"{PREFIX}{order}_{by}{end}": f"{words}, {in_order}{', chosen classes' * (end == CHOSEN)}"
    for by, words in BY.items()
    for end in ("", CHOSEN)
    for order, in_order in ORDERS.items()
}


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    measured, classes = results["measures"]["trained"], results.get("eval_order_classes")
    chosen = f" Chosen classes are {', '.join(f'`{name}`' for name in classes)}." if classes else ""
    how = "R@1 of video to caption among all different captions of the test split"
    if not any(f"{PREFIX}{order}_r1" in measured for order in ORDERS):
        how = (
            "the share of videos for which the caption has a higher matching score than that of another video of the "
            "same class. What is shuffled are the parts of a video that the model encodes separately"
        )
    return (
        f"Order of frames: {how}. The frames of each video are given in order, in a random order (the same for every "
        f"model), and as the last frame alone, repeated.{chosen}"
    )


MEASURE = Measure(
    needs=(("embed", "match"),),
    kinds=("video", "text"),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=protocol,
    headlines=tuple(f"{PREFIX}{order}_{by}{CHOSEN}" for by in BY for order in ORDERS),
    options=(FrameOrderArguments,),
    chance_takes_options=True,
    check=check,
    least_kinds=2,
    order=2,
)
