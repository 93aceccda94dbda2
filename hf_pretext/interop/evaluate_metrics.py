"""Retrieval and zero-shot classification as metrics of `evaluate`, which collects batches over steps and ranks.

    add_batch(...), add_batch(...) -> rows on disk -> compute() -> result of `retrieval` or `zero_shot` for all rows

Create a metric directly, without a download: `Retrieval()`. Importing this module is slow, since it imports `evaluate`.
"""

import json
from collections.abc import Sequence

import datasets
import evaluate
import numpy as np
import torch
from torch import Tensor

from ..evaluation.retrieval import KS, plain, retrieval
from ..evaluation.zero_shot import zero_shot

EMBEDDING = datasets.List(datasets.Value("float32"))


class Retrieval(evaluate.Metric):
    """`retrieval` over batches.

        metric.add_batch(images=..., image_ids=..., texts=..., text_ids=...)
        metric.compute(ks=(1, 5, 10))

    A batch may contain different numbers of images and texts, or only one of the two.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="R@k and median rank of image-to-text and text-to-image retrieval.",
            citation="https://huggingface.co/papers/1412.2306",
            inputs_description=retrieval.__doc__,
            features=datasets.Features(
                images=EMBEDDING,
                image_ids=datasets.Value("string"),  # as JSON, so that 1 and "1" differ
                texts=EMBEDDING,
                text_ids=datasets.Value("string"),
            ),
        )

    def add_batch(self, *, images=None, image_ids=None, texts=None, text_ids=None) -> None:
        """Adds embeddings of images (`(B, d)`) and texts (`(C, d)`) with their ids.

        Each row has one image and one text. If one has fewer elements, the last rows have None. Raises `ValueError` if
        the numbers of embeddings and ids differ.
        """
        sides = {"image": (images, image_ids), "text": (texts, text_ids)}
        given = {
            name: (rows_of(features), plain([] if ids is None else ids)) for name, (features, ids) in sides.items()
        }
        longest = max(len(features) for features, _ in given.values())
        batch = {}
        for name, (features, ids) in given.items():
            if len(features) != len(ids):
                raise ValueError(f"{len(features)} {name}s have {len(ids)} {name}_ids. Give one id for each {name}.")
            lacking = [None] * (longest - len(features))
            batch |= {f"{name}s": features + lacking, f"{name}_ids": [json.dumps(one) for one in ids + lacking]}
        super().add_batch(**batch)

    def add(self, *, images=None, image_ids=None, texts=None, text_ids=None) -> None:
        """Adds the embedding of one image (`(d,)`), of one text (`(d,)`), or both, with their ids."""
        one = {"images": images, "image_ids": image_ids, "texts": texts, "text_ids": text_ids}
        self.add_batch(**{name: [value] for name, value in one.items() if value is not None})

    def _compute(self, images, image_ids, texts, text_ids, ks: Sequence[int] = KS) -> dict[str, float]:
        sides = ((images, image_ids), (texts, text_ids))
        pairs = [[(one, json.loads(key)) for one, key in zip(*side, strict=True) if one is not None] for side in sides]
        (images, image_ids), (texts, text_ids) = (zip(*side, strict=True) if side else ((), ()) for side in pairs)
        return retrieval(torch.tensor(images), torch.tensor(texts), image_ids, text_ids, ks)


class ZeroShot(evaluate.Metric):
    """`zero_shot` over batches.

        metric.add_batch(predictions=images, references=labels)
        metric.compute(classes=classes)

    classes (`(c, d)`): class embeddings, as `classifier` computes them from class names.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Top-1 and top-5 accuracy of zero-shot image classification.",
            citation="https://huggingface.co/papers/2103.00020",
            inputs_description=zero_shot.__doc__,
            features=datasets.Features(predictions=EMBEDDING, references=datasets.Value("int64")),
        )

    def _compute(self, predictions, references, classes: Tensor) -> dict[str, float]:
        return zero_shot(torch.tensor(predictions), torch.as_tensor(classes).cpu(), references)


def rows_of(features: Tensor | np.ndarray | Sequence | None) -> list:
    """Returns features (`(B, d)`) as a list of rows; empty for None."""
    if features is None:
        return []
    return list(features.detach().float().cpu().numpy() if isinstance(features, Tensor) else features)
