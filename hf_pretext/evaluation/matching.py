"""Matching: accuracy at predicting whether a caption belongs to an image.

images (n), each with its caption and with a wrong caption -> matching scores, or cosines; threshold -> accuracy

A wrong caption is the caption of any other image (shuffled), or of another image of the same class (hard). Wrong
captions do not depend on the model.
"""

from collections.abc import Sequence

import numpy as np
import torch

from ..data.captions import normalised
from ..modeling import PretextModel
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject

SEED = 0
KINDS = ("shuffled", "hard")


def other_captions(captions: Sequence[str], classes: np.ndarray | None = None) -> np.ndarray:
    """Returns, for each image, the index of an image with a different caption: `(n,)`. Always the same draw.

    classes (`(n,)`): draws from the same class, if it has a different caption. Captions that differ only in case or
    spaces count as equal. Raises `ValueError` if all captions are equal."""
    _, names = np.unique([normalised(caption) for caption in captions], return_inverse=True)
    if len(set(names)) < 2:
        raise ValueError(
            f"All {len(names)} captions are the same, so no image has a wrong caption. Give captions that differ, or "
            "skip the evaluation with --eval_dataset none."
        )
    random, everywhere = np.random.default_rng(SEED), np.arange(len(names))
    rows_shown = np.full(len(names), -1)
    for kind in np.unique(classes) if classes is not None else ():
        members = everywhere[classes == kind]
        if len(set(names[members])) > 1:  # otherwise a caption of any class is drawn
            rows_shown[members] = drawn_apart(members, members, names, random)
    left = everywhere[rows_shown < 0]
    rows_shown[left] = drawn_apart(left, everywhere, names, random)
    return rows_shown


def drawn_apart(rows: np.ndarray, among: np.ndarray, names: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draws, for each row, one of `among` with another name, uniformly: `(len(rows),)`. `among` must contain
    another name for each row, or the loop does not end."""
    rows_shown = random.choice(among, len(rows))
    while (same := names[rows_shown] == names[rows]).any():
        rows_shown[same] = random.choice(among, same.sum())
    return rows_shown


def captions_shown(labelled: LabelledSet, split: str) -> dict[str, np.ndarray]:
    """Returns the captions for each labelled image of a split, as indices of rows `(n,)`: `own`, the correct one, and a
    wrong one for each of `KINDS`."""
    classes = labelled.labels.splits[split]
    captions = labelled.captions(split)[: len(classes)]
    return {
        "own": np.arange(len(classes)),
        "shuffled": other_captions(captions),
        "hard": other_captions(captions, classes),
    }


def pair_scores(subject: Subject, split: str, shown: np.ndarray) -> np.ndarray:
    """Returns the score of `match` for each labelled image of a split with the caption of row `shown`: `(n,)`."""
    captions, scores, first = subject.labelled.captions(split), [], 0
    text = subject.labelled.inputs.by_name["text"]
    for batch in subject.labelled.batches(split, "image"):
        numbers = shown[first : first + len(next(iter(batch.values())))]
        texts = text.batch([captions[i] for i in numbers])
        scores.append(subject.model.match(**subject.moved({**batch, **texts})).float().cpu())
        first += len(numbers)
    return torch.cat(scores).numpy()


def cosines(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Returns the cosine of each labelled image with its captions of `captions_shown`, `{kind: (n,)}`."""
    shown = captions_shown(subject.labelled, split)
    count = len(shown["own"])
    images = subject.embeddings("image", split)[:count]
    texts = subject.embed("text", subject.text_batches(subject.labelled.captions(split)[:count]))
    return {kind: (images * texts[torch.from_numpy(numbers)]).sum(1).numpy() for kind, numbers in shown.items()}


def scores_of_match(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Returns the score of `match` for each labelled image with its captions of `captions_shown`, `{kind: (n,)}`."""
    shown = captions_shown(subject.labelled, split)
    return {kind: pair_scores(subject, split, numbers) for kind, numbers in shown.items()}


def threshold(right: np.ndarray, wrong: np.ndarray) -> float:
    """Returns the threshold with the highest accuracy on correct (`right`) and wrong pairs, weighted equally. Scores
    above it are classified as correct."""
    candidates = np.unique(np.concatenate([right, wrong]))
    below = [np.searchsorted(np.sort(scores), candidates, "right") / len(scores) for scores in (right, wrong)]
    return float(candidates[np.argmax(below[1] - below[0])])


def accuracy(right: np.ndarray, wrong: np.ndarray, at: float) -> float:
    """Returns the accuracy on correct (`right`) and wrong pairs of equal weight: scores above `at` are classified as
    correct, others as wrong."""
    return float(((right > at).mean() + (wrong <= at).mean()) / 2)


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Measures the accuracy on correct and wrong pairs of a split, in equal numbers.

    Pairs are classified by the cosine of the embeddings (`threshold_shuffled`, `threshold_hard`). If the model has
    `match`, also by its score (`matching_shuffled`, `matching_hard`); the differences are `matching_gain_shuffled` and
    `matching_gain_hard`. All thresholds are chosen on validation."""
    scores = {"threshold": [cosines(subject, part) for part in ("validation", split)]}
    if "match" in subject.model.capabilities:
        scores["matching"] = [scores_of_match(subject, part) for part in ("validation", split)]
    metrics = {
        f"{by}_{kind}": accuracy(asked["own"], asked[kind], threshold(chosen["own"], chosen[kind]))
        for by, (chosen, asked) in scores.items()
        for kind in KINDS
    }
    if "matching" in scores:
        gains = {kind: metrics[f"matching_{kind}"] - metrics[f"threshold_{kind}"] for kind in KINDS}
        metrics |= {f"matching_gain_{kind}": gain for kind, gain in gains.items()}
    return metrics


def chance_of(labelled: LabelledSet, model_class: type[PretextModel]) -> Metrics:
    """Chance level of `compute`: 0.5 for an accuracy, 0 for a gain."""
    metrics = {f"threshold_{kind}": 0.5 for kind in KINDS}
    if "match" in model_class.capabilities:
        metrics |= {f"matching_{kind}": 0.5 for kind in KINDS} | {f"matching_gain_{kind}": 0.0 for kind in KINDS}
    return metrics


WORDS = {
    "matching_shuffled": "matching, any captions",
    "matching_hard": "matching, captions of one class",
    "threshold_shuffled": "matching by cosine, any captions",
    "threshold_hard": "matching by cosine, captions of one class",
    "matching_gain_shuffled": "matching's gain over cosine, any captions",
    "matching_gain_hard": "matching's gain over cosine, captions of one class",
}


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    by = "the matching score of the model, and by " if "matching_hard" in results["measures"]["trained"] else ""
    return (
        "Matching: accuracy at classifying image-caption pairs as correct or wrong. Half of the pairs are wrong. Every "
        "model gets the same pairs. 'Any captions': the wrong caption comes from any other image. 'Captions of one "
        "class': it comes from another image of the same class, or of any class if all captions of its class are "
        f"equal. Pairs are classified by {by}the cosine of the embeddings, with thresholds chosen on validation."
    )


MEASURE = Measure(
    needs=("embed",),
    kinds=("image", "text"),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=protocol,
    headlines=("matching_shuffled", "threshold_shuffled", "matching_hard", "threshold_hard"),
    order=3,
)
