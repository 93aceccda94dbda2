"""Masked words: accuracy on masked caption tokens, given the caption's image or video, another one, or none.

captions (n), tokens masked in the same way for every model -> logits (M, vocabulary) -> accuracy
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..modeling import PretextModel
from ..modules.masking import IGNORED, draw_units, without_special
from .labelled_set import LabelledSet
from .matching import captions_shown
from .measure import Measure, Metrics, Subject
from .retrieval import ordered

SEED = 0
DRAWS = 4  # masks of each caption: a caption has few tokens
SHOWN = ("own", "other", "none")  # images or videos next to a caption
VIDEO = "_video"  # end of the names of metrics with videos
MASKED = 0.15  # share of masked tokens of a caption, at least one token


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Measures the accuracy on masked tokens: given the image of the caption (`masked_text_own`), the image of another
    caption (`masked_text_other`), and no image (`masked_text_none`). `masked_text_gain` is the first minus the higher
    of the other two. With videos, the names end with `VIDEO`. Images or videos of the split are in memory at once,
    or what the model condenses them to."""
    correct, count = dict.fromkeys(SHOWN, 0), 0
    kind, _ = ordered(subject.model)
    batches = list(subject.batches(kind, split))
    columns = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    others = torch.from_numpy(captions_shown(subject.labelled, split)["shuffled"])
    for seen, labels, rows in masked_captions(subject, split):
        masked, inputs = (labels != IGNORED).to(subject.device), subject.moved(seen)
        for which, shown in {"own": rows, "other": others[rows], "none": None}.items():
            given = {} if shown is None else subject.moved({name: v[shown] for name, v in columns.items()})
            predicted = subject.model.predict_tokens(masked, **inputs, **given).argmax(-1).cpu()
            correct[which] += int((predicted == labels[labels != IGNORED]).sum())
        count += int((labels != IGNORED).sum())
    shares = {which: value / count for which, value in correct.items()}
    return named(kind, {**shares, "gain": shares["own"] - max(shares["other"], shares["none"])})


def named(kind: str, metrics: Mapping[str, float]) -> Metrics:
    """Returns the metrics with their full names. kind: of what is shown with the caption, "image" or "video"."""
    return {f"masked_text_{name}{VIDEO if kind == 'video' else ''}": value for name, value in metrics.items()}


def masked_captions(subject: Subject, split: str) -> Iterator[tuple[dict[str, Tensor], Tensor, Tensor]]:
    """Yields batches of the captions of a split's labelled rows, `DRAWS` times.

    A batch is: text inputs with some tokens replaced by the mask token; labels `(B, L)`, the original ids of these
    tokens, `IGNORED` elsewhere; indices of the rows, `(B,)`."""
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


def chance_of(labelled: LabelledSet, model: PretextModel | type[PretextModel]) -> Metrics:
    """Chance level of `compute`: the accuracy of a uniformly random token of the vocabulary."""
    vocabulary = len(labelled.inputs.by_name["text"].processor)
    return named(ordered(model)[0], {**dict.fromkeys(SHOWN, 1 / vocabulary), "gain": 0.0})


WORDS = {
    name: words.format(kind)
    for kind, article in (("image", "an image"), ("video", "a video"))
    for name, words in named(
        kind,
        {
            "own": "masked words, with the {}",
            "other": "masked words, with another {}",
            "none": f"masked words, without {article}",
            "gain": "masked words, gain by the {}",
        },
    ).items()
}


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    alone = (results.get("alone") or {}).get("texts") or []
    pairs = results.get("data", {}).get("dataset", "").split(" + ")[: 1 if alone else None]
    learned = f"as it learned from texts alone{'' if {*alone} <= {*pairs} else ', which came from another dataset'}"
    learned = learned if alone else "without having been trained so"
    name, without = ("video", "a video") if "video" in results["inputs"] else ("image", "an image")
    return (
        f"Masked words: accuracy on masked caption tokens ({MASKED:.0%} of each caption, {DRAWS} draws, the same for "
        f"every model), given the {name} of the caption, the {name} of another caption, or no {name}. Without "
        f"{without}, the model predicts {learned}. The gain is the accuracy with the "
        f"caption's {name} minus the higher of the other two."
    )


MEASURE = Measure(
    needs=("predict_tokens",),
    kinds=(("image", "video"), "text"),
    compute=compute,
    chance=chance_of,
    words=WORDS.get,
    protocol=protocol,
    headlines=("masked_text_own", "masked_text_gain", *named("video", {"own": 0, "gain": 0})),
    order=4,
)
