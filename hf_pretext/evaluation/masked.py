"""What a model of both kinds makes of one with the help of the other: hidden words are told with the picture that they
were written for, with another's, and with none.

captions (n), some words hidden, the same ones each time -> logits (M, vocabulary) -> shares that are told
"""

from typing import get_args

import torch
from torch import nn

from ..features import Pooling, extract
from ..modules.masking import IGNORED, draw_units, without_special
from .labelled import SPLITS
from .labelled_pairs import LabelledPairs, text_batches
from .matching import captions_shown
from .transfer import linear_probe, transfer

SEED = 0
DRAWS = 4  # of what is hidden: a caption has few words
HIDDEN = 0.15  # share of its tokens, and at least one


@torch.no_grad()
def masked_figures(
    model: nn.Module, labelled: LabelledPairs, device: torch.device | str = "cpu", split: str = "test"
) -> dict[str, float]:
    """Shares of hidden tokens that are told: with the own picture (`masked_text_own`), with another's
    (`masked_text_other`) and with none (`masked_text_none`); and what the own one is worth beside the better of both
    (`masked_text_gain`).

    model: with `predict_tokens`, and a task with `mask_token_id` and `special_token_ids`."""
    training = model.training
    model.to(device).eval()
    told, count = dict.fromkeys(("own", "other", "none"), 0), 0
    pictures = torch.cat([batch["pixel_values"] for batch in labelled.batches(split)])
    others = torch.from_numpy(captions_shown(labelled, split)["shuffled"])
    for seen, labels, rows in hidden_captions(model, labelled, split):
        hidden, inputs = (labels != IGNORED).to(device), {name: value.to(device) for name, value in seen.items()}
        for kind, of in {"own": rows, "other": others[rows], "none": None}.items():
            pixels = {} if of is None else {"pixel_values": pictures[of].to(device)}
            guessed = model.predict_tokens(hidden, **inputs, **pixels).argmax(-1).cpu()
            told[kind] += int((guessed == labels[labels != IGNORED]).sum())
        count += int((labels != IGNORED).sum())
    model.train(training)
    shares = {f"masked_text_{kind}": value / count for kind, value in told.items()}
    best = max(shares["masked_text_other"], shares["masked_text_none"])
    return {**shares, "masked_text_gain": shares["masked_text_own"] - best}


def hidden_captions(model: nn.Module, labelled: LabelledPairs, split: str):
    """Captions of a split's labelled pictures, some at a time, `DRAWS` times, with tokens hidden by the mask token;
    what those were, `IGNORED` elsewhere; and the numbers of the pictures."""
    random = torch.Generator().manual_seed(SEED)
    captions = labelled.captions(split)[: len(labelled.labels.splits[split])]
    for _ in range(DRAWS):
        first = 0
        for batch in text_batches(labelled.pairs, captions):
            ids, there = batch["input_ids"], batch["attention_mask"].bool()
            allowed = without_special(ids, there, model.task.special_token_ids)
            hidden = draw_units(allowed, torch.ones_like(allowed), HIDDEN, random)
            seen = {**batch, "input_ids": ids.masked_fill(hidden, model.task.mask_token_id)}
            yield seen, ids.masked_fill(~hidden, IGNORED), torch.arange(first, first + len(ids))
            first += len(ids)


def text_probe(model: nn.Module, labelled: LabelledPairs, device: torch.device | str = "cpu") -> dict[str, float]:
    """A linear probe of the labels on what the text encoder makes of captions alone (`text_probe`). Its layer, and
    whether that is read as the mean over tokens or at the first one, are chosen on validation.

    model: with an encoder of texts."""
    features = {}
    for split in SPLITS:
        batches = list(text_batches(labelled.pairs, labelled.captions(split)[: len(labelled.labels.splits[split])]))
        for pooling in get_args(Pooling):
            for layer, found in extract(
                model.encoders["text"], batches, "all", pooling, device, description=None
            ).items():
                features.setdefault((layer, pooling), {})[split] = found
    found = transfer(features, labelled.labels, {"text_probe": linear_probe})
    return {name: probed["test"]["top1"] for name, probed in found.items()}
