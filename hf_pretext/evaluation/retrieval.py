"""Retrieval of texts by images, and of images by texts.

    images (n, d), texts (m, d), an id for each -> cosine (n, m), in chunks -> R@k and median rank, in both directions

Protocol of Karpathy & Fei-Fei 2015, https://huggingface.co/papers/1412.2306: R@k is the share of queries with a correct
answer among the k nearest candidates.
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
TIE = 1e-6  # smaller differences of cosines count as ties: cosines of equal vectors differ by up to 3e-7 in float32


def retrieval(
    images: Tensor,
    texts: Tensor,
    image_ids: Sequence[int] | Sequence[str] | Tensor | np.ndarray,
    text_ids: Sequence[int] | Sequence[str] | Tensor | np.ndarray,
    ks: Sequence[int] = KS,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Computes R@k and median rank of image-to-text and text-to-image retrieval.

    images (`(n, d)`), texts (`(m, d)`): embeddings in one space, of any length; compared by cosine, in float32.
    image_ids (`(n,)`), text_ids (`(m,)`): all integers or all strings. An image and a text with equal ids are a correct
    pair; an image may have several texts, and a text several images. Give equal texts only once: a duplicate with
    another id is a wrong answer that ties with the correct one.

    The rank of a query is the rank of its best correct answer (see `ranks`), from 1. A query without a correct answer
    is excluded from the metrics of its direction and counted in `left_out`; it remains a candidate in the other
    direction. Returns, for both directions::

        {"image_to_text_r1", ..., "image_to_text_median_rank", "image_to_text_left_out", "text_to_image_r1", ...}

    R@k is in 0..1. It is 1.0 if k is at least the number of candidates, so compare it with `chance`.

    Raises `ValueError` for shapes or lengths that do not fit, features that are not finite, ids of mixed types, data
    without any pair, and k or chunk below 1.
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
    median = float(np.median(rank))  # torch.median returns the lower of the two middle values
    return {**recalls, f"{direction}_median_rank": median, f"{direction}_left_out": int((~answered).sum())}


@torch.no_grad()
def ranks(queries: Tensor, candidates: Tensor, wanted: Tensor, given: Tensor, chunk: int = CHUNK) -> Tensor:
    """Returns the rank of the best correct answer to each query: 1 + the number of wrong answers that are at least as
    near.

    Ties count against the query. Otherwise an encoder with the same embedding for all inputs would be perfect.

    queries (`(n, d)`), candidates (`(m, d)`). wanted (`(n,)`, integers): id of the correct answers to each query.
    given (`(m,)`, integers): ids of the candidates. Memory: `(chunk, m)` at a time. Returns `(n,)`, with m + 1 for
    a query without a correct answer. Raises `ValueError` for a chunk below 1.
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
    """Returns the chance levels of `retrieval` by the same names, without `left_out`: the metrics of random embeddings.

    R@k is the exact expectation. With r correct answers among m candidates, the first k contain none with the
    hypergeometric probability C(m - r, k) / C(m, k). The median rank is the median of the distribution of ranks over
    all queries: the limit of the median for many queries. Raises `ValueError` for the same ids and k as `retrieval`.
    """
    check_ks(ks)
    of_images, of_texts = numbered(image_ids, text_ids)
    return {
        **_chance("image_to_text", of_images, of_texts, ks),
        **_chance("text_to_image", of_texts, of_images, ks),
    }


def _chance(direction: str, wanted: Tensor, given: Tensor, ks: Sequence[int]) -> dict[str, float]:
    candidates, size = len(given), 1 + int(torch.cat([wanted, given]).max())
    rights = torch.bincount(given, minlength=size)[wanted]  # number of correct answers of each query
    kinds, queries = (part.numpy() for part in rights[rights > 0].unique(return_counts=True))
    first = np.arange(candidates)
    # cumulative product: probability that the first k are all wrong, for k = 1, 2, ...
    missed = sum(
        count * np.cumprod(np.maximum(candidates - right - first, 0) / (candidates - first))
        for right, count in zip(kinds, queries, strict=True)
    )
    within = 1 - missed / queries.sum()  # (candidates,): R@1, R@2, ...
    lower, upper = (1 + int(np.argmax(within >= 0.5 + side)) for side in (-1e-9, 1e-9))
    recalls = {f"{direction}_r{k}": float(within[min(k, candidates) - 1]) for k in ks}
    return {**recalls, f"{direction}_median_rank": (lower + upper) / 2}


def numbered(image_ids, text_ids) -> tuple[Tensor, Tensor]:
    """Maps ids to integers from 0, `(n,)` and `(m,)`; equal ids get equal integers. Raises `ValueError` if ids are not
    all integers or all strings, since 1 is not equal to "1", and if images and texts share no id."""
    images, texts = plain(image_ids), plain(text_ids)
    kinds = {type(one) for one in (*images, *texts)}
    if len(kinds) > 1 or not kinds <= {int, str}:
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"Ids must be all integers or all strings, but are of these types: {names}.")
    numbers = {one: number for number, one in enumerate(dict.fromkeys(images + texts))}
    if set(images).isdisjoint(texts):
        raise ValueError(
            f"None of {len(images)} image_ids (first: {images[:3]}) is among the {len(texts)} text_ids (first: "
            f"{texts[:3]}). Give an image and its text the same id."
        )
    return torch.tensor([numbers[one] for one in images]), torch.tensor([numbers[one] for one in texts])


def plain(ids: Iterable) -> list:
    """Converts ids from a list, an array or a tensor to a list of Python values."""
    return [one.item() if hasattr(one, "item") else one for one in (ids.tolist() if hasattr(ids, "tolist") else ids)]


def answerable(wanted: Tensor, given: Tensor) -> np.ndarray:
    """Returns True for each query with a correct answer: `(n,)`, booleans."""
    return torch.isin(wanted, given).cpu().numpy()


def check_ks(ks: Sequence[int]) -> None:
    """Raises `ValueError` if `ks` is empty or contains a rank below 1."""
    if not len(ks) or min(ks) < 1:
        raise ValueError(f"ks must be ranks from 1, for example {KS}, but are {tuple(ks)}.")


def check_features(**sides: Tensor) -> None:
    """Raises `ValueError` unless all features are `(examples, channels)`, finite, and have the same number of
    channels."""
    for name, features in sides.items():
        if features.ndim != 2:
            raise ValueError(f"{name} must be (examples, channels), but have the shape {tuple(features.shape)}.")
        if not torch.isfinite(features).all():
            raise ValueError(DIVERGED)
    widths = {name: features.shape[1] for name, features in sides.items()}
    if len(set(widths.values())) > 1:
        named = " and ".join(f"{name} {width}" for name, width in widths.items())
        raise ValueError(
            f"Channels differ ({named}). Give embeddings of one space, after the projections of the model."
        )


# measure


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Computes `retrieval` between the two kinds of data of a split. Captions with equal `normalised` text are one
    candidate."""
    first, second = ordered(subject.model)
    if second != "text":
        left, right = (subject.embeddings(kind, split) for kind in (first, second))
        rows = range(len(left))
        return renamed(retrieval(left, right, [*rows], [*rows]), first, second)
    _, texts = subject.caption_embeddings(split)
    return renamed(retrieval(subject.embeddings(first, split), texts, *ids(subject.labelled, split)), first, second)


def chance_of(labelled: LabelledSet, model_class: type[PretextModel], split: str = "test") -> Metrics:
    """Chance levels of `compute`: the metrics of random embeddings."""
    first, second = ordered(model_class)
    if second != "text":
        rows = [*range(len(labelled.labels.splits[split]))]
        return renamed(chance(rows, rows), first, second)
    return renamed(chance(*ids(labelled, split)), first, second)


def ordered(model: PretextModel | type[PretextModel]) -> tuple[str, str]:
    """Returns the two kinds of data of a model, with text last."""
    first, second = sorted(model.inputs[:2], key="text".__eq__)
    return first, second


def renamed(metrics: Metrics, first: str, second: str) -> Metrics:
    """Renames metrics of images and texts to the kinds of data that were compared."""
    names = {"image_to_text": f"{first}_to_{second}", "text_to_image": f"{second}_to_{first}"}
    return {name.replace(old, new): v for name, v in metrics.items() for old, new in names.items() if old in name}


def ids(labelled: LabelledSet, split: str) -> tuple[list[str], list[str]]:
    """Returns the ids of the rows of a split, and of its distinct captions: the normalised captions."""
    captions = labelled.captions(split)
    return [normalised(caption) for caption in captions], [normalised(caption) for caption in distinct(captions)]


def words(name: str) -> str | None:
    """Wording of a metric: "image to caption, R@10" for "image_to_text_r10"."""
    match = re.fullmatch(r"([a-z]+)_to_([a-z]+)_(r(\d+)|median_rank)", name)
    if match is None:
        return None
    first, second = ("caption" if kind == "text" else kind for kind in match.group(1, 2))
    return f"{first} to {second}, " + (f"R@{match[4]}" if match[4] else "median rank")


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    rows = results.get("transfer", {}).get("rows", {}).get("test")
    among = "rows of the test split, labelled and unlabelled, and their distinct captions"
    if "text" not in results["inputs"]:
        among = f"{f'{rows:,} ' if rows else ''}rows of the test split"
    return (
        f"Retrieval: candidates are the {among}. R@k is the share of queries with a correct "
        "answer among the k nearest candidates by cosine. Ties count against the query."
    )


MEASURE = Measure(
    needs=("embed",),
    kinds=(),
    compute=compute,
    chance=chance_of,
    words=words,
    protocol=protocol,
    headlines=(
        "image_to_text_r1",
        "image_to_text_r10",
        "audio_to_video_r10",
        "video_to_audio_r10",
        "video_to_text_r1",
        "video_to_text_r5",
        "text_to_video_r1",
        "text_to_video_r5",
    ),
    least_kinds=2,
    order=1,
)
