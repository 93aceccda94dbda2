"""Matching: how often it is predicted whether a caption belongs to an image.

images (n), each with its own caption and with another's -> logits, or cosines and a threshold -> accuracy

Another's caption is any one (shuffled), or that of an image of the same class (hard): which it is does not depend on
the model that is measured.
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
    """For each image the number of one with another caption, always the same; of the same class where classes are
    given and have one. `(n,)`.

    Raises `ValueError` where all captions read the same."""
    _, names = np.unique([normalised(caption) for caption in captions], return_inverse=True)
    if len(set(names)) < 2:
        raise ValueError(
            f"All {len(names)} captions read the same, so that no image has a wrong one. Leave the metrics out with "
            "--eval_dataset none, or give captions that differ."
        )
    random, everywhere = np.random.default_rng(SEED), np.arange(len(names))
    rows_shown = np.full(len(names), -1)
    for kind in np.unique(classes) if classes is not None else ():
        members = everywhere[classes == kind]
        if len(set(names[members])) > 1:  # else any other caption has to do
            rows_shown[members] = drawn_apart(members, members, names, random)
    left = everywhere[rows_shown < 0]
    rows_shown[left] = drawn_apart(left, everywhere, names, random)
    return rows_shown


def drawn_apart(rows: np.ndarray, among: np.ndarray, names: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each of some rows one of others with another name, which there must be, all alike: `(len(rows),)`."""
    rows_shown = random.choice(among, len(rows))
    while (same := names[rows_shown] == names[rows]).any():
        rows_shown[same] = random.choice(among, same.sum())
    return rows_shown


def captions_shown(labelled: LabelledSet, split: str) -> dict[str, np.ndarray]:
    """Whose caption each labelled image of a split is shown with: its own, or another's of each of `KINDS`."""
    classes = labelled.labels.splits[split]
    captions = labelled.captions(split)[: len(classes)]
    return {
        "own": np.arange(len(classes)),
        "shuffled": other_captions(captions),
        "hard": other_captions(captions, classes),
    }


def pair_scores(subject: Subject, split: str, shown: np.ndarray) -> np.ndarray:
    """What `match` says of each labelled image of a split with the caption of another row, by its number: `(n,)`."""
    captions, scores, first = subject.labelled.captions(split), [], 0
    text = subject.labelled.inputs.by_name["text"]
    for batch in subject.labelled.batches(split, "image"):
        numbers = shown[first : first + len(next(iter(batch.values())))]
        texts = text.batch([captions[i] for i in numbers])
        scores.append(subject.model.match(**subject.moved({**batch, **texts})).float().cpu())
        first += len(numbers)
    return torch.cat(scores).numpy()


def cosines(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Of the embeddings of each labelled image and of the captions that it is shown with."""
    shown = captions_shown(subject.labelled, split)
    count = len(shown["own"])
    images = subject.embeddings("image", split)[:count]
    texts = subject.embed("text", subject.text_batches(subject.labelled.captions(split)[:count]))
    return {kind: (images * texts[torch.from_numpy(numbers)]).sum(1).numpy() for kind, numbers in shown.items()}


def scores_of_match(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """What `match` says of each labelled image and the captions that it is shown with."""
    shown = captions_shown(subject.labelled, split)
    return {kind: pair_scores(subject, split, numbers) for kind, numbers in shown.items()}


def threshold(right: np.ndarray, wrong: np.ndarray) -> float:
    """Above which scores are to be taken for right, so that most of as many correct and wrong ones are classified."""
    candidates = np.unique(np.concatenate([right, wrong]))
    below = [np.searchsorted(np.sort(scores), candidates, "right") / len(scores) for scores in (right, wrong)]
    return float(candidates[np.argmax(below[1] - below[0])])


def accuracy(right: np.ndarray, wrong: np.ndarray, at: float) -> float:
    """The share of as many correct pairs as wrong ones that is classified, by scores above or not above a threshold."""
    return float(((right > at).mean() + (wrong <= at).mean()) / 2)


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Accuracy on as many correct pairs of a split as wrong ones: of the cosine of embeddings (`threshold_shuffled`,
    `threshold_hard`), and of a model's own `match`, where it has one (`matching_shuffled`, `matching_hard`); above a
    threshold that is chosen on validation, for both alike; and by how much the second is better
    (`matching_gain_shuffled`, `matching_gain_hard`)."""
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
    """What guessing gets in `compute`."""
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
    """How it is measured, of the results of a run, in sentences for a card."""
    by = "the model's own score and by " if "matching_hard" in results["measures"]["trained"] else ""
    return (
        "Matching: accuracy at distinguishing correct pairs from as many wrong ones, the same ones for every model; a "
        f"wrong caption is any other, or that of an image of the same class; by {by}the cosine of embeddings, above "
        "the threshold that is best on validation."
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
