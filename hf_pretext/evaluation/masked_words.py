"""Masked words: accuracy on masked caption tokens, given the caption's image, another image, or no image.

captions (n), tokens masked in the same way for every model -> logits (M, vocabulary) -> accuracy
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..modeling import PretextModel
from ..modules.masking import IGNORED, draw_units, without_special
from .labelled_set import LabelledSet
from .matching import captions_shown
from .measure import Measure, Metrics, Subject

SEED = 0
DRAWS = 4  # masks of each caption: a caption has few tokens
MASKED = 0.15  # share of masked tokens of a caption, at least one token


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Measures the accuracy on masked tokens: given the image of the caption (`masked_text_own`), the image of another
    caption (`masked_text_other`), and no image (`masked_text_none`). `masked_text_gain` is the first minus the higher
    of the other two."""
    correct, count = dict.fromkeys(("own", "other", "none"), 0), 0
    images = torch.cat([batch["pixel_values"] for batch in subject.labelled.batches(split, "image")])
    others = torch.from_numpy(captions_shown(subject.labelled, split)["shuffled"])
    for seen, labels, rows in masked_captions(subject, split):
        masked, inputs = (labels != IGNORED).to(subject.device), subject.moved(seen)
        for kind, shown in {"own": rows, "other": others[rows], "none": None}.items():
            pixels = {} if shown is None else {"pixel_values": images[shown].to(subject.device)}
            predicted = subject.model.predict_tokens(masked, **inputs, **pixels).argmax(-1).cpu()
            correct[kind] += int((predicted == labels[labels != IGNORED]).sum())
        count += int((labels != IGNORED).sum())
    shares = {f"masked_text_{kind}": value / count for kind, value in correct.items()}
    best = max(shares["masked_text_other"], shares["masked_text_none"])
    return {**shares, "masked_text_gain": shares["masked_text_own"] - best}


def masked_captions(subject: Subject, split: str) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """Yields batches of the captions of a split's labelled images, `DRAWS` times.

    A batch is: text inputs with some tokens replaced by the mask token; labels `(B, L)`, the original ids of these
    tokens, `IGNORED` elsewhere; indices of the images, `(B,)`."""
    random, task = torch.Generator().manual_seed(SEED), subject.model.task
    captions = subject.labelled.captions(split)[: len(subject.labelled.labels.splits[split])]
    for _ in range(DRAWS):
        first = 0
        for batch in subject.text_batches(captions):
            ids = batch["input_ids"]
            allowed = without_special(ids, batch["attention_mask"].bool(), task.special_token_ids)
            masked = draw_units(allowed, torch.ones_like(allowed), MASKED, random)
            seen = {**batch, "input_ids": ids.masked_fill(masked, task.mask_token_id)}
            yield seen, ids.masked_fill(~masked, IGNORED), torch.arange(first, first + len(ids))
            first += len(ids)


def chance_of(labelled: LabelledSet, model_class: type[PretextModel]) -> Metrics:
    """Chance level of `compute`: the accuracy of a uniformly random token of the vocabulary."""
    vocabulary = len(labelled.inputs.by_name["text"].processor)
    return {f"masked_text_{kind}": 1 / vocabulary for kind in ("own", "other", "none")} | {"masked_text_gain": 0.0}


WORDS = {
    "masked_text_own": "masked words, with the image",
    "masked_text_other": "masked words, with another image",
    "masked_text_none": "masked words, without an image",
    "masked_text_gain": "masked words, gain by the image",
}


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    apart = ", which came from another dataset" if (results.get("alone") or {}).get("texts") else ""
    return (
        f"Masked words: accuracy on masked caption tokens ({MASKED:.0%} of each caption, {DRAWS} draws, the same for "
        "every model), given the image of the caption, the image of another caption, or no image. Without an image, "
        f"the model predicts as it learned from texts alone{apart}. The gain is the accuracy with the caption's image "
        "minus the higher of the other two."
    )


MEASURE = Measure(
    needs=("predict_tokens",),
    kinds=("image", "text"),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=protocol,
    headlines=("masked_text_own", "masked_text_gain"),
    order=4,
)
