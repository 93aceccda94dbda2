"""Labelled pictures with captions: embedded by both towers, asked for by each other, told by the names of classes.

test split -> pictures (n, d), captions (m, d) -> R@k both ways; class names in sentences -> zero-shot top-1
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..data.captions import normalised
from .labelled import LabelledImages, without_labels
from .retrieval import chance, retrieval
from .zero_shot import classifier, templates_of, zero_shot

TEXTS_AT_ONCE = 256


class LabelledPairs(LabelledImages):
    """Pictures with labels and captions (see `LabelledImages`); rows without a caption are left out, too. Those without
    a label take part in retrieval, after the others.

    processing: that of evaluation, without an augmentation.
    """

    def __init__(
        self,
        dataset,
        processing,
        label: str | None = None,
        image_column: str | None = None,
        text_column: str | None = None,
        batch_size: int = 256,
        workers: int = 0,
        limit: int | None = None,
    ):
        """Raises `ValueError` as `LabelledImages` does, and for a set without a column of captions."""
        self.pairs = processing
        super().__init__(
            dataset,
            processing.images,
            label,
            image_column,
            batch_size,
            workers,
            limit,
            also={"text": text_column},
            unlabelled=True,
        )
        self.left_out["rows without a label, but for retrieval within their split"] = len(self) - sum(
            map(len, self.labels.splits.values())
        )
        self.left_out = +self.left_out

    def captions(self, split: str) -> list[str]:
        """The captions of a split, in the order of `all_batches`."""
        return [also["text"] for part in self._parts(split) for _, _, _, also in self._rows[part]]

    def all_batches(self, split: str) -> Iterator[dict[str, Tensor]]:
        """The pictures of a split as model inputs: those with a label, in order, then those without."""
        return itertools.chain.from_iterable(self.batches(part) for part in self._parts(split))

    def all_pixels(self, split: str) -> Tensor:
        """The same as uint8 `(n, 3, H, W)`, of a set that fits in memory."""
        return torch.cat([self.pixels[part] for part in self._parts(split)])

    def _parts(self, split: str) -> list[str]:
        return [part for part in (split, without_labels(split)) if part in self._rows]

    def pretext_batches(self, split: str) -> "PairBatches":
        """Pictures that have a label with the tokens of their captions, as the objective wants them."""
        return PairBatches(self, split)


class PairBatches:
    """What `LabelledPairs.pretext_batches` gives: can be gone through again, knows its length."""

    def __init__(self, labelled: LabelledPairs, split: str):
        self.labelled, self.split = labelled, split

    def __len__(self) -> int:
        return len(self.labelled.batches(self.split))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        size, captions = self.labelled.batch_size, self.labelled.captions(self.split)
        for number, batch in enumerate(self.labelled.batches(self.split)):
            first = number * size
            yield {**batch, **self.labelled.pairs.texts(captions[first : first + len(batch["pixel_values"])])}


@torch.no_grad()
def embedded(embed: Callable[..., Tensor], batches: Iterable[dict[str, Tensor]], device: torch.device) -> Tensor:
    """What one tower makes of its inputs, `(examples, d)`, in float32 on the CPU."""
    return torch.cat([embed(**{k: v.to(device) for k, v in batch.items()}).float().cpu() for batch in batches])


def pair_figures(
    model: nn.Module,
    labelled: LabelledPairs,
    prompts: Sequence[str] = ("en",),
    device: torch.device | str = "cpu",
    split: str = "test",
) -> dict[str, float]:
    """Retrieval both ways among all pictures and the different captions of a split, and zero-shot classification of its
    labels by their names.

    model: with `embed`. prompts: templates, or languages (see `zero_shot.templates_of`).
    Returns the figures of `retrieval`, and `zero_shot_top1`, `zero_shot_top5`, `zero_shot_mean_class`.
    """
    training = model.training
    model.to(device).eval()
    images, _, texts = embeddings(model, labelled, device, split)
    figures = retrieval(images, texts, *ids(labelled, split))
    classes = classifier(
        lambda sentences: embedded(partial(model.embed, "text"), text_batches(labelled.pairs, sentences), device),
        labelled.labels.names,
        templates_of(prompts),
    )
    model.train(training)
    labels = labelled.labels.splits[split]
    told = zero_shot(images[: len(labels)], classes, labels)
    return {**figures, **{f"zero_shot_{name}": value for name, value in told.items()}}


def embeddings(
    model: nn.Module, labelled: LabelledPairs, device: torch.device | str, split: str
) -> tuple[Tensor, list[str], Tensor]:
    """Pictures of a split as embeddings, its different captions, and what the text tower makes of those."""
    captions = different(labelled.captions(split))
    images = embedded(partial(model.embed, "image"), labelled.all_batches(split), device)
    return images, captions, embedded(partial(model.embed, "text"), text_batches(labelled.pairs, captions), device)


def different(captions: Iterable[str]) -> list[str]:
    """Captions, one of those that read the same (see `normalised`)."""
    return list({normalised(caption): caption for caption in captions}.values())


def ids(labelled: LabelledPairs, split: str) -> tuple[list[str], list[str]]:
    """What tells which pictures of a split and which of its different captions belong together."""
    captions = labelled.captions(split)
    return [normalised(caption) for caption in captions], [normalised(caption) for caption in different(captions)]


def text_batches(pairs, texts: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Texts as a text tower's inputs, some at a time."""
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        yield pairs.texts(texts[first : first + TEXTS_AT_ONCE], labels=False)


def chance_figures(labelled: LabelledPairs, split: str = "test") -> dict[str, float]:
    """What guessing gets in `pair_figures`, under the same names."""
    classes = len(labelled.labels.names)
    guessed = {"top1": 1 / classes, "top5": min(5 / classes, 1.0), "mean_class": 1 / classes}
    return {**chance(*ids(labelled, split)), **{f"zero_shot_{name}": value for name, value in guessed.items()}}
