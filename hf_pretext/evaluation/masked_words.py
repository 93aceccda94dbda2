"""Masked words: how often they are predicted with the image that they were written for, with another, and with none.

captions (n), some words masked, the same ones each time -> logits (M, vocabulary) -> shares predicted correctly
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
DRAWS = 4  # of what is masked: a caption has few words
MASKED = 0.15  # share of its tokens, and at least one


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Shares of masked tokens that are predicted: with the caption's own image (`masked_text_own`), with another's
    (`masked_text_other`) and with none (`masked_text_none`); and what its own adds to the better of both
    (`masked_text_gain`)."""
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
    """Captions of a split's labelled images, some at a time, `DRAWS` times, with tokens replaced by the mask token;
    what those were, `IGNORED` elsewhere; and the numbers of the images."""
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
    """What guessing any token gets in `compute`."""
    vocabulary = len(labelled.inputs.by_name["text"].processor)
    return {f"masked_text_{kind}": 1 / vocabulary for kind in ("own", "other", "none")} | {"masked_text_gain": 0.0}


WORDS = {
    "masked_text_own": "masked words, with the image",
    "masked_text_other": "masked words, with another image",
    "masked_text_none": "masked words, without an image",
    "masked_text_gain": "masked words, gain by the image",
}


def protocol(results: dict) -> str:
    """How it is measured, of the results of a run, in sentences for a card."""
    apart = ", which were of another kind" if (results.get("alone") or {}).get("texts") else ""
    return (
        "Masked words: the share of masked tokens that are predicted, the same ones each time, with the caption's own "
        f"image, with that of another caption and with none (by what texts alone taught{apart}); the gain is over the "
        "better of the last two."
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
