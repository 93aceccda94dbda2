"""Correspondence: accuracy at predicting whether a sound belongs to the frames of a clip.

clips (n), each with its sound and with a wrong one -> matching scores (n,), (n,); threshold -> accuracy, standard error

A wrong sound is of a clip of another class, of another clip of the same class, or of the same clip at another time.
Wrong sounds do not depend on the model.
"""

from functools import partial
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from transformers.utils import logging

from ..modalities import Batch, Modality
from ..modeling import PretextModel
from ..modules.shifted import MIN_SHIFT, near
from .labelled_set import LabelledSet
from .matching import accuracy, threshold
from .measure import Measure, Metrics, Subject

SEED = 0
START, END = 0.0, 1.0  # the two times of a clip
LEAST = 2  # clips with a wrong sound, in validation and in test
ERROR = "_error"  # end of the names of standard errors
WORDS = {
    "other_class": "sound of another class",
    "same_class": "sound of the same class",
    "shifted": "sound of another time",
}
MISSING = {
    "other_class": "the validation or test split has fewer than two clips of different classes",
    "same_class": "the validation or test split has fewer than two clips of one class",
    "shifted": "the validation or test split has fewer than two clips whose sounds at the start and at the end differ "
    f"and start at least {MIN_SHIFT:g} seconds apart; give longer clips, or a shorter part of them (--seconds)",
}
PREFIX = "correspondence_"
log = logging.get_logger(__name__)
_times: WeakKeyDictionary[LabelledSet, dict[str, np.ndarray]] = WeakKeyDictionary()  # results of `times`
Scores = tuple[np.ndarray, np.ndarray]  # of right pairs and wrong pairs, (n, t) each: of n clips at t times


def of_other_class(classes: np.ndarray) -> np.ndarray:
    """Returns, for each clip, a clip of another class, `(n,)`; -1 for clips that are left out. Always the same draw.

    Clips are ordered by class, in random order, and the order is rotated by the size of the largest class. So a clip is
    the wrong one of at most one other. If more than half of the clips are of one class, as many of them have a wrong
    clip as there are others."""
    random = np.random.default_rng(SEED)
    shuffled = random.permutation(len(classes))
    names, sizes = np.unique(classes, return_counts=True)
    place = random.permutation(names.max() + 1)  # the order of classes
    order = shuffled[np.argsort(place[classes[shuffled]], kind="stable")]
    partner = np.empty_like(order)
    partner[order] = np.roll(order, -sizes.max())
    return np.where(classes[partner] == classes, -1, partner)


def of_same_class(classes: np.ndarray) -> np.ndarray:
    """Returns, for each clip, another clip of its class, `(n,)`; -1 for the only clip of a class. Always the same draw,
    in which a clip is the wrong one of one other."""
    random, partner = np.random.default_rng(SEED), np.full(len(classes), -1)
    for name in np.unique(classes):
        members = random.permutation(np.flatnonzero(classes == name))
        if len(members) > 1:
            partner[members] = np.roll(members, -1)
    return partner


WRONG = {"other_class": of_other_class, "same_class": of_same_class}


def kinds(labelled: LabelledSet) -> list[str]:
    """Returns the kinds of wrong sounds that a labelled set has in validation and test."""
    return [kind for kind in WORDS if min(clips_of(labelled, kind, split) for split in ("validation", "test")) >= LEAST]


def clips_of(labelled: LabelledSet, kind: str, split: str) -> int:
    """Returns the number of clips of a split that have a wrong sound of a kind."""
    if kind == "shifted":
        return int(times(labelled, split).sum())
    return int((WRONG[kind](labelled.labels.splits[split]) >= 0).sum())


def times(labelled: LabelledSet, split: str) -> np.ndarray:
    """Returns True for clips whose sounds at the start and at the end differ, and start at least `MIN_SHIFT` seconds
    apart: bool `(n,)`."""
    known, audio = _times.setdefault(labelled, {}), labelled.inputs.by_name["audio"]
    if split not in known:
        pairs = zip(*(labelled.at(time).examples(split, "audio") for time in (START, END)), strict=True)
        starts = [audio.of_views(together(audio, *pair))["sound_start"] for pair in pairs]
        known[split] = ~near(torch.cat(starts), MIN_SHIFT).numpy()
    return known[split]


def together(audio: Modality, first: Batch, second: Batch) -> Batch:
    """Stacks sounds of two batches, before `finish`, and their starts: `(n, 2, ...)`. Shorter sounds are padded."""
    name = audio.encoder_input
    values = [batch[name] for batch in (first, second)]
    longest = max(each.shape[1] for each in values)
    padded = [F.pad(each, (0, 0) * (each.ndim - 2) + (0, longest - each.shape[1])) for each in values]
    starts = [batch["sound_start"] for batch in (first, second)]
    return {name: torch.stack(padded, dim=1), "sound_start": torch.stack(starts, dim=1)}


def exchanged_scores(subject: Subject, split: str, partner: np.ndarray) -> Scores:
    """Returns the scores of `match` for the frames of each clip with its sound, and with that of its partner, `(n, 1)`
    each. partner (`(m,)`): a clip of the split; -1 for clips that are left out."""
    labelled, clips = subject.labelled, np.flatnonzero(partner >= 0)
    frames = labelled.reordered(split, clips)
    return tuple(
        pair_scores(subject, split, frames, labelled.reordered(split, order))[:, None]
        for order in (clips, partner[clips])
    )


def shifted_scores(subject: Subject, split: str) -> Scores:
    """Returns the scores of `match` for the frames at two times of each clip with the sound of that time, and of the
    other, `(n, 2)` each. Clips without another time are left out."""
    first, second = (subject.labelled.at(time) for time in (START, END))
    score, clips = partial(pair_scores, subject, split), times(subject.labelled, split)
    right = np.stack([score(first, first), score(second, second)], axis=1)
    wrong = np.stack([score(first, second), score(second, first)], axis=1)
    return right[clips], wrong[clips]


def pair_scores(subject: Subject, split: str, frames: LabelledSet, sounds: LabelledSet) -> np.ndarray:
    """Returns the score of `match` for the frames of each clip of one set with the sound of another: `(n,)`."""
    inputs, scores = subject.labelled.inputs, []
    for of_frames, of_sounds in zip(frames.batches(split, "video"), sounds.batches(split, "audio"), strict=True):
        batch = inputs.renamed("audio", of_sounds) | inputs.renamed("video", of_frames)
        scores.append(subject.model.match(**subject.moved(batch)).float().cpu())
    return torch.cat(scores).numpy()


def scores_of(subject: Subject, kind: str, split: str) -> Scores:
    """Returns the scores of right pairs and of wrong pairs of one kind."""
    if kind == "shifted":
        return shifted_scores(subject, split)
    return exchanged_scores(subject, split, WRONG[kind](subject.labelled.labels.splits[split]))


def standard_error(right: np.ndarray, wrong: np.ndarray, at: float) -> float:
    """Returns the standard error of `accuracy`, over clips: the pairs of one clip are not independent."""
    share = ((right > at).mean(1) + (wrong <= at).mean(1)) / 2
    return float(share.std(ddof=1) / np.sqrt(len(share)))


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Computes accuracy and standard error on right and wrong pairs, in equal numbers, for each of `kinds`. The
    threshold is chosen on validation."""
    metrics = {}
    for kind in kinds(subject.labelled):
        chosen, asked = (scores_of(subject, kind, part) for part in ("validation", split))
        at = threshold(*(scores.ravel() for scores in chosen))
        metrics[f"{PREFIX}{kind}"] = accuracy(*(scores.ravel() for scores in asked), at)
        metrics[f"{PREFIX}{kind}{ERROR}"] = standard_error(*asked, at)
    return metrics


def chance_of(labelled: LabelledSet, model: PretextModel | type[PretextModel]) -> Metrics:
    """Chance levels of `compute`: 0.5, and the standard error of guessing each pair."""
    levels = {}
    for kind in kinds(labelled):
        pairs = (4 if kind == "shifted" else 2) * clips_of(labelled, kind, "test")
        levels |= {f"{PREFIX}{kind}": 0.5, f"{PREFIX}{kind}{ERROR}": float(0.5 / np.sqrt(pairs))}
    for kind in WORDS:
        if f"{PREFIX}{kind}" not in levels:
            log.warning(f"Correspondence with a wrong {WORDS[kind]} is not measured: {MISSING[kind]}.")
    return levels


def words(name: str) -> str | None:
    """Wording of a metric: "correspondence, sound of another class" for "correspondence_other_class"."""
    if not name.startswith(PREFIX):
        return None
    kind = name.removeprefix(PREFIX)
    return f"correspondence, {WORDS[kind.removesuffix(ERROR)]}" + ", standard error" * kind.endswith(ERROR)


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    measured = results["measures"]["trained"]
    missing = [
        f" A wrong {WORDS[kind]} is not measured: {MISSING[kind]}."
        for kind in WORDS
        if f"{PREFIX}{kind}" not in measured
    ]
    return (
        "Correspondence: accuracy at classifying pairs of a sound and the frames of a clip as of one clip or not. Half "
        "of the pairs are wrong. Every model gets the same pairs. The wrong sound is of a clip of another class, of "
        "another clip of the same class, or of the same clip at another time: the frames at the start of the clip with "
        f"the sound of its end, and vice versa, for clips in which these sounds start at least {MIN_SHIFT:g} seconds "
        "apart. Thresholds are chosen on validation. The standard error is over clips; "
        "for chance it is that of a random answer to each pair." + "".join(missing)
    )


MEASURE = Measure(
    needs=("match",),
    kinds=("audio", "video"),
    compute=compute,
    chance=chance_of,
    words=words,
    protocol=protocol,
    headlines=tuple(f"{PREFIX}{kind}" for kind in WORDS),
    least_kinds=2,
    order=4,
)
