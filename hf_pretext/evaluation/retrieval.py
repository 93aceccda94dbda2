"""Retrieval: how often the nearest text of an image is one that belongs to it, and the nearest image of a text.

    images (n, d), texts (m, d), an id for each -> cosine (n, m), a chunk at a time -> R@k and median rank, both ways

The protocol of Karpathy & Fei-Fei 2015, https://huggingface.co/papers/1412.2306: R@k is the share of queries with a
right answer among their k nearest.
"""

import re
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.captions import normalised
from ..modeling import PretextModel
from .knn import DIVERGED
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject, distinct

KS = (1, 5, 10)
CHUNK = 512  # queries at a time
TIE = 1e-6  # cosines that differ by less are equal: equal vectors' own come out up to 3e-7 apart in float32


def retrieval(
    images: Tensor,
    texts: Tensor,
    image_ids: Sequence[int] | Sequence[str] | Tensor | np.ndarray,
    text_ids: Sequence[int] | Sequence[str] | Tensor | np.ndarray,
    ks: Sequence[int] = KS,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """R@k and median rank of texts as answers to images, and of images as answers to texts.

    images (`(n, d)`), texts (`(m, d)`): embeddings in one space, of any length: compared by cosine, in float32.
    image_ids (`(n,)`), text_ids (`(m,)`): all integers or all strings; an image and a text belong together where they
    are equal, so that an image may have several texts and a text several images. Nothing is merged: texts that read
    the same are to be given once, or they take the places before one another.

    A query's rank is that of its best right answer (see `ranks`), from 1. One with no right answer can't be answered:
    it is left out of that direction's metrics and counted in `left_out`, but stays a wrong answer to all others.
    Returns, for both directions::

        {"image_to_text_r1", ..., "image_to_text_median_rank", "image_to_text_left_out", "text_to_image_r1", ...}

    R@k lies in 0..1, and is always 1.0 from k = all candidates on: show it next to `chance`. Raises `ValueError` for
    shapes or lengths that don't fit, features that are not finite, ids of mixed types, no pair at all, and k or chunk
    below 1.
    """
    check_features(images=images, texts=texts)
    for name, features, ids in (("image", images, image_ids), ("text", texts, text_ids)):
        if len(features) != len(ids):
            raise ValueError(f"{len(features)} {name}s have {len(ids)} {name}_ids: give each {name} one id.")
    check_ks(ks)
    of_images, of_texts = (ids.to(images.device) for ids in numbered(image_ids, text_ids))
    texts = texts.to(images.device)
    forward, backward = (
        ranks(images, texts, of_images, of_texts, chunk),
        ranks(texts, images, of_texts, of_images, chunk),
    )
    return {
        **_metrics("image_to_text", forward, answerable(of_images, of_texts), ks),
        **_metrics("text_to_image", backward, answerable(of_texts, of_images), ks),
    }


def _metrics(direction: str, rank: Tensor, answered: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    rank = rank.cpu().numpy()[answered]
    recalls = {f"{direction}_r{k}": float((rank <= k).mean()) for k in ks}
    median = float(np.median(rank))  # torch's is the lower of two
    return {**recalls, f"{direction}_median_rank": median, f"{direction}_left_out": int((~answered).sum())}


@torch.no_grad()
def ranks(queries: Tensor, candidates: Tensor, wanted: Tensor, given: Tensor, chunk: int = CHUNK) -> Tensor:
    """The rank of each query's best right answer, from 1: one more than the wrong answers that are at least as near.

    So a tie counts against the query, or an encoder that gives everything the same vector would find everything.

    queries (`(n, d)`), candidates (`(m, d)`), wanted (`(n,)`, integers): the number that a right answer has in given
    (`(m,)`). Holds no more than `(chunk, m)` at a time. Returns `(n,)`, m + 1 where no answer is right. Raises
    `ValueError` for a chunk below 1.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, but is {chunk}.")
    bank, rank = F.normalize(candidates.float(), dim=1), []
    for part, numbers in zip(queries.split(chunk), wanted.split(chunk), strict=True):
        similarity = F.normalize(part.float(), dim=1) @ bank.T  # (chunk, m)
        right = numbers[:, None] == given  # (chunk, m)
        best = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        rank.append(((similarity >= best - TIE) & ~right).sum(1) + 1)
    return torch.cat(rank)


def chance(
    image_ids: Sequence[int] | Sequence[str] | Tensor | np.ndarray,
    text_ids: Sequence[int] | Sequence[str] | Tensor | np.ndarray,
    ks: Sequence[int] = KS,
) -> dict[str, float]:
    """What embeddings drawn at random get in `retrieval`, under the same names (but for `left_out`).

    R@k is the exact expectation: with r right answers among m, none of the first k is right with the hypergeometric
    probability C(m - r, k) / C(m, k). The median rank is that of the ranks' distribution over all queries, which the
    median of many queries comes to. Raises `ValueError` as `retrieval` does.
    """
    check_ks(ks)
    of_images, of_texts = numbered(image_ids, text_ids)
    return {
        **_chance("image_to_text", of_images, of_texts, ks),
        **_chance("text_to_image", of_texts, of_images, ks),
    }


def _chance(direction: str, wanted: Tensor, given: Tensor, ks: Sequence[int]) -> dict[str, float]:
    candidates, size = len(given), 1 + int(torch.cat([wanted, given]).max())
    rights = torch.bincount(given, minlength=size)[wanted]  # right answers of each query
    kinds, queries = (part.numpy() for part in rights[rights > 0].unique(return_counts=True))
    first = np.arange(candidates)
    # of those whose first k were all wrong, the share whose next one is wrong too
    missed = sum(
        count * np.cumprod(np.maximum(candidates - right - first, 0) / (candidates - first))
        for right, count in zip(kinds, queries, strict=True)
    )
    within = 1 - missed / queries.sum()  # (candidates,): R@1, R@2, ...
    lower, upper = (1 + int(np.argmax(within >= 0.5 + side)) for side in (-1e-9, 1e-9))
    recalls = {f"{direction}_r{k}": float(within[min(k, candidates) - 1]) for k in ks}
    return {**recalls, f"{direction}_median_rank": (lower + upper) / 2}


def numbered(image_ids, text_ids) -> tuple[Tensor, Tensor]:
    """Ids as integers from 0, `(n,)` and `(m,)`, equal where the ids are. Raises `ValueError` for ids that are not all
    integers or all strings (1 would never meet "1"), and where no image's id is one of a text."""
    images, texts = plain(image_ids), plain(text_ids)
    kinds = {type(one) for one in (*images, *texts)}
    if len(kinds) > 1 or not kinds <= {int, str}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"Ids must be all integers or all strings, but are of these types: {names}.")
    numbers = {one: number for number, one in enumerate(dict.fromkeys(images + texts))}
    if set(images).isdisjoint(texts):
        raise ValueError(
            f"None of {len(images)} image_ids (such as {images[:3]}) is among the {len(texts)} text_ids (such as "
            f"{texts[:3]}): give an image and its text the same id."
        )
    return torch.tensor([numbers[one] for one in images]), torch.tensor([numbers[one] for one in texts])


def plain(ids: Iterable) -> list:
    """Ids as Python's own values, whether they came in a list, an array or a tensor."""
    return [one.item() if hasattr(one, "item") else one for one in (ids.tolist() if hasattr(ids, "tolist") else ids)]


def answerable(wanted: Tensor, given: Tensor) -> np.ndarray:
    """Which queries have a right answer: `(n,)`, booleans."""
    return torch.isin(wanted, given).cpu().numpy()


def check_ks(ks: Sequence[int]) -> None:
    """Raises `ValueError` for ranks below 1, or none."""
    if not len(ks) or min(ks) < 1:
        raise ValueError(f"ks must be ranks from 1, such as {KS}, but are {tuple(ks)}.")


def check_features(**sides: Tensor) -> None:
    """Raises `ValueError` unless all are `(examples, channels)`, of one width and finite."""
    for name, features in sides.items():
        if features.ndim != 2:
            raise ValueError(f"{name} must be (examples, channels), but have the shape {tuple(features.shape)}.")
        if not torch.isfinite(features).all():
            raise ValueError(DIVERGED)
    widths = {name: features.shape[1] for name, features in sides.items()}
    if len(set(widths.values())) > 1:
        named = " and ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(f"Channels differ ({named}): take both from one space, behind the model's projections.")


# the measure


def compute(subject: Subject, split: str = "test") -> Metrics:
    """`retrieval` between the two kinds of data of a split. Captions that read the same are one candidate."""
    first, second = ordered(subject.model)
    if second != "text":
        left, right = (subject.embeddings(kind, split) for kind in (first, second))
        rows = range(len(left))
        return renamed(retrieval(left, right, [*rows], [*rows]), first, second)
    _, texts = subject.caption_embeddings(split)
    return renamed(retrieval(subject.embeddings(first, split), texts, *ids(subject.labelled, split)), first, second)


def chance_of(labelled: LabelledSet, model_class: type[PretextModel], split: str = "test") -> Metrics:
    """What embeddings drawn at random get in `compute`."""
    first, second = ordered(model_class)
    if second != "text":
        rows = [*range(len(labelled.labels.splits[split]))]
        return renamed(chance(rows, rows), first, second)
    return renamed(chance(*ids(labelled, split)), first, second)


def ordered(model: PretextModel | type[PretextModel]) -> tuple[str, str]:
    """The two kinds of data that are searched by each other; text comes last."""
    first, second = sorted(model.inputs[:2], key="text".__eq__)
    return first, second


def renamed(metrics: Metrics, first: str, second: str) -> Metrics:
    """Metrics of images and texts under the names of the kinds that were compared."""
    names = {"image_to_text": f"{first}_to_{second}", "text_to_image": f"{second}_to_{first}"}
    return {name.replace(old, new): v for name, v in metrics.items() for old, new in names.items() if old in name}


def ids(labelled: LabelledSet, split: str) -> tuple[list[str], list[str]]:
    """Which rows of a split and which of its distinct captions belong together: equal ids."""
    captions = labelled.captions(split)
    return [normalised(caption) for caption in captions], [normalised(caption) for caption in distinct(captions)]


def words(name: str) -> str | None:
    """ "image_to_text_r10" as "image to caption, R@10"."""
    match = re.fullmatch(r"([a-z]+)_to_([a-z]+)_(r(\d+)|median_rank)", name)
    if match is None:
        return None
    first, second = ("caption" if kind == "text" else kind for kind in match.group(1, 2))
    return f"{first} to {second}, " + (f"R@{match[4]}" if match[4] else "median rank")


def protocol(results: dict) -> str:
    """How it is measured, of the results of a run, in sentences for a card."""
    captioned = "text" in results["inputs"]
    among = ", with a label or without, and their distinct captions" if captioned else ""
    return (
        f"Retrieval among the rows of the test split{among}: R@k is the share of queries with a correct answer among "
        "the k nearest; a tie counts against the query."
    )


MEASURE = Measure(
    needs=("embed",),
    kinds=(),
    compute=compute,
    chance=chance_of,
    words=words,
    protocol=protocol,
    headlines=("image_to_text_r1", "image_to_text_r10"),
    least_kinds=2,
    order=1,
)
