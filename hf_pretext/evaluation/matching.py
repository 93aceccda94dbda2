"""Matching: how often it is told whether a caption belongs to a picture.

pictures (n), each with its own caption and with another's -> logits, or cosines and a threshold -> accuracy

Another's caption is any one (shuffled), or that of a picture of the same class (hard): which it is does not depend on
the model that is asked.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..data.pairs import normalised
from .labelled_pairs import LabelledPairs, embedded, text_batches

SEED = 0
KINDS = ("shuffled", "hard")


def another(captions: Sequence[str], classes: np.ndarray | None = None) -> np.ndarray:
    """For each picture the number of one with another caption, always the same; of the same class where classes are
    given and such a one there is. `(n,)`.

    Raises `ValueError` where all captions read the same."""
    _, names = np.unique([normalised(caption) for caption in captions], return_inverse=True)
    if len(set(names)) < 2:
        raise ValueError(f"All {len(names)} captions read the same, so that no picture has a wrong one.")
    random, everywhere = np.random.default_rng(SEED), np.arange(len(names))
    found = np.full(len(names), -1)
    for kind in np.unique(classes) if classes is not None else ():
        members = everywhere[classes == kind]
        if len(set(names[members])) > 1:  # else any other caption has to do
            found[members] = drawn_apart(members, members, names, random)
    left = everywhere[found < 0]
    found[left] = drawn_apart(left, everywhere, names, random)
    return found


def drawn_apart(rows: np.ndarray, among: np.ndarray, names: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """For each of some rows one of others with another name, which there must be, all alike: `(len(rows),)`."""
    found = random.choice(among, len(rows))
    while (same := names[found] == names[rows]).any():
        found[same] = random.choice(among, same.sum())
    return found


def captions_shown(labelled: LabelledPairs, split: str) -> dict[str, np.ndarray]:
    """Whose caption each labelled picture of a split is shown with: its own, or another's of each of `KINDS`."""
    classes = labelled.labels.splits[split]
    captions = labelled.captions(split)[: len(classes)]
    return {"own": np.arange(len(classes)), "shuffled": another(captions), "hard": another(captions, classes)}


@torch.no_grad()
def pair_scores(
    score: Callable[..., Tensor], labelled: LabelledPairs, split: str, shown: np.ndarray, device: torch.device | str
) -> np.ndarray:
    """What a function of pixel_values, input_ids and attention_mask says of each labelled picture of a split beside the
    caption of another, by its number: `(n,)`."""
    captions, found, first = labelled.captions(split), [], 0
    for batch in labelled.batches(split):
        numbers = shown[first : first + len(batch["pixel_values"])]
        texts = labelled.pairs.texts([captions[i] for i in numbers], labels=False)
        found.append(score(**{name: value.to(device) for name, value in {**batch, **texts}.items()}).float().cpu())
        first += len(numbers)
    return torch.cat(found).numpy()


def cosines(model: nn.Module, labelled: LabelledPairs, split: str, device: torch.device | str) -> dict[str, np.ndarray]:
    """Of the embeddings of each labelled picture and of the captions that it is shown with."""
    shown = captions_shown(labelled, split)
    captions = labelled.captions(split)[: len(shown["own"])]
    images = embedded(partial(model.embed, "image"), labelled.batches(split), device)
    texts = embedded(partial(model.embed, "text"), text_batches(labelled.pairs, captions), device)
    return {kind: (images * texts[torch.from_numpy(numbers)]).sum(1).numpy() for kind, numbers in shown.items()}


def logits(model: nn.Module, labelled: LabelledPairs, split: str, device: torch.device | str) -> dict[str, np.ndarray]:
    """What `match` says of each labelled picture and the captions that it is shown with."""
    shown = captions_shown(labelled, split)
    return {kind: pair_scores(model.match, labelled, split, numbers, device) for kind, numbers in shown.items()}


def threshold(right: np.ndarray, wrong: np.ndarray) -> float:
    """Above which scores are to be taken for right, so that most of as many right and wrong ones are told."""
    candidates = np.unique(np.concatenate([right, wrong]))
    below = [np.searchsorted(np.sort(scores), candidates, "right") / len(scores) for scores in (right, wrong)]
    return float(candidates[np.argmax(below[1] - below[0])])


def accuracy(right: np.ndarray, wrong: np.ndarray, at: float) -> float:
    """The share that is told of as many right pairs as wrong ones, by scores above or not above a threshold."""
    return float(((right > at).mean() + (wrong <= at).mean()) / 2)


def matching_figures(
    model: nn.Module, labelled: LabelledPairs, device: torch.device | str = "cpu", split: str = "test"
) -> dict[str, float]:
    """Accuracy on as many right pairs of a split as wrong ones: of the cosine of embeddings (`threshold_shuffled`,
    `threshold_hard`), and of a model's own `match`, where it has one (`matching_shuffled`, `matching_hard`); above a
    threshold that is chosen on validation, for both alike; and by how much the second is better
    (`matching_gain_shuffled`, `matching_gain_hard`).

    model: with `embed`, and perhaps `match`."""
    training = model.training
    model.to(device).eval()
    scores = {"threshold": [cosines(model, labelled, part, device) for part in ("validation", split)]}
    if "match" in model.capabilities:
        scores["matching"] = [logits(model, labelled, part, device) for part in ("validation", split)]
    model.train(training)
    found = {
        f"{by}_{kind}": accuracy(asked["own"], asked[kind], threshold(chosen["own"], chosen[kind]))
        for by, (chosen, asked) in scores.items()
        for kind in KINDS
    }
    if "match" in model.capabilities:
        found |= {f"matching_gain_{kind}": found[f"matching_{kind}"] - found[f"threshold_{kind}"] for kind in KINDS}
    return found
