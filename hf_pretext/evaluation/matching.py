"""Matching: accuracy at predicting whether a caption belongs to an image or video.

images or videos (n), each with its caption and with a wrong caption -> matching scores, or cosines; threshold
-> accuracy

A wrong caption is the caption of any other row (shuffled), or of another row of the same class (hard). Wrong captions
do not depend on the model.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..data.captions import normalised
from ..modeling import PretextModel
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject
from .retrieval import ordered

SEED = 0
KINDS = ("shuffled", "hard")


def other_captions(captions: Sequence[str], classes: np.ndarray | None = None) -> np.ndarray:
    """Returns, for each row, the index of a row with a different caption: `(n,)`. Always the same draw.

    classes (`(n,)`): draws from the same class, if it has a different caption. Captions that differ only in case or
    spaces count as equal. Raises `ValueError` if all captions are equal."""
    _, names = np.unique([normalised(caption) for caption in captions], return_inverse=True)
    if len(set(names)) < 2:
        raise ValueError(
            f"All {len(names)} captions are the same, so no row has a wrong caption. Give captions that differ, or "
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
    """Returns the captions for each labelled row of a split, as indices of rows `(n,)`: `own`, the correct one, and a
    wrong one for each of `KINDS`."""
    classes = labelled.labels.splits[split]
    captions = labelled.captions(split)[: len(classes)]
    return {
        "own": np.arange(len(classes)),
        "shuffled": other_captions(captions),
        "hard": other_captions(captions, classes),
    }


def scores_of_match(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Returns the score of `match` for each labelled row with its captions of `captions_shown`, `{kind: (n,)}`."""
    kind, _ = ordered(subject.model)
    captions, shown, first = subject.labelled.captions(split), captions_shown(subject.labelled, split), 0
    scores: dict[str, list[Tensor]] = {which: [] for which in shown}
    for batch in subject.batches(kind, split):
        part = slice(first, first + len(next(iter(batch.values()))))
        for which, numbers in shown.items():
            scores[which].append(match_scores(subject, batch, [captions[i] for i in numbers[part]]))
        first = part.stop
    return {which: torch.cat(parts).numpy() for which, parts in scores.items()}


def match_scores(subject: Subject, batch: Mapping[str, Tensor], texts: Sequence[str]) -> Tensor:
    """Returns the score of `match` for each row of a batch of images or videos with its text: `(B,)`, on the CPU."""
    tokens = subject.labelled.inputs.by_name["text"].batch(list(texts))
    return subject.model.match(**subject.moved({**batch, **tokens})).float().cpu()


def cosines(subject: Subject, split: str) -> dict[str, np.ndarray]:
    """Returns the cosine of each labelled row with its captions of `captions_shown`, `{kind: (n,)}`."""
    kind, _ = ordered(subject.model)
    shown = captions_shown(subject.labelled, split)
    count = len(shown["own"])
    rows = subject.embeddings(kind, split)[:count]
    texts = subject.embed("text", subject.text_batches(subject.labelled.captions(split)[:count]))
    return {which: (rows * texts[torch.from_numpy(numbers)]).sum(1).numpy() for which, numbers in shown.items()}


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


def ways(model: PretextModel | type[PretextModel]) -> dict[str, Callable[[Subject, str], dict[str, np.ndarray]]]:
    """Returns how the pairs of a model are scored, by the begin of the names of metrics: by the cosine of embeddings
    ("threshold"), and by `match` ("matching") unless that is the same."""
    scored = {"threshold": cosines} if "embed" in model.capabilities else {}
    if "match" in model.capabilities and not (scored and model.match_is_cosine):
        scored["matching"] = scores_of_match
    return scored


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Measures the accuracy on correct and wrong pairs of a split, in equal numbers.

    Pairs are classified by the cosine of the embeddings (`threshold_shuffled`, `threshold_hard`), if the model has
    them, and by the score of `match` (`matching_shuffled`, `matching_hard`), if it has one that is not the cosine. The
    differences are `matching_gain_shuffled` and `matching_gain_hard`. All thresholds are chosen on validation."""
    scores = {by: [score(subject, part) for part in ("validation", split)] for by, score in ways(subject.model).items()}
    metrics = {
        f"{by}_{kind}": accuracy(asked["own"], asked[kind], threshold(chosen["own"], chosen[kind]))
        for by, (chosen, asked) in scores.items()
        for kind in KINDS
    }
    if len(scores) > 1:
        gains = {kind: metrics[f"matching_{kind}"] - metrics[f"threshold_{kind}"] for kind in KINDS}
        metrics |= {f"matching_gain_{kind}": gain for kind, gain in gains.items()}
    return metrics


def chance_of(labelled: LabelledSet, model: PretextModel | type[PretextModel]) -> Metrics:
    """Chance level of `compute`: 0.5 for an accuracy, 0 for a gain."""
    metrics = {f"{by}_{kind}": 0.5 for by in ways(model) for kind in KINDS}
    return metrics | ({f"matching_gain_{kind}": 0.0 for kind in KINDS} if len(ways(model)) > 1 else {})


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
    measured, name = results["measures"]["trained"], "video" if "video" in results["inputs"] else "image"
    scores = {"matching_hard": "the matching score of the model", "threshold_hard": "the cosine of the embeddings"}
    by = ", and by ".join(words for metric, words in scores.items() if metric in measured)
    return (
        f"Matching: accuracy at classifying {name}-caption pairs as correct or wrong. Half of the pairs are wrong. "
        f"Every model gets the same pairs. 'Any captions': the wrong caption comes from any other {name}. 'Captions of "
        f"one class': it comes from another {name} of the same class, or of any class if all captions of its class are "
        f"equal. Pairs are classified by {by}, with thresholds chosen on validation."
    )


MEASURE = Measure(
    needs=(("embed", "match"),),
    kinds=(("image", "video"), "text"),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=protocol,
    headlines=("matching_shuffled", "threshold_shuffled", "matching_hard", "threshold_hard"),
    order=3,
)
