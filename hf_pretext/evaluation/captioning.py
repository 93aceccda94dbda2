"""Captioning: the bits that captions take given their images, the captions that a model generates, and retrieval by
likelihood.

images (n), captions (m) -> log p(caption | image) (n, m) -> bits per character, R@k; images (n) -> texts -> CIDEr-D

Retrieval by likelihood: Lin et al. 2024, https://huggingface.co/papers/2306.01879. A caption that is likely for every
image is ranked first for many, so captions are also ranked by pointwise mutual information: log p(caption | image)
- log p(caption), with p(caption) as the mean over images. For one caption, both rank images in the same order.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from ..data.captions import normalised
from ..modalities.text import Text
from ..modeling import PretextModel
from ..utils.places import evenly
from . import retrieval
from ._cider import cider_d
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject, distinct, places_among

ROWS, IMAGES = 1000, 200  # most rows of a split, and most images that are compared with every caption
PAIRS = 256  # most pairs of an image and a caption at a time
BEAMS = 4
KS = (1, 10)
SEED = 0
TIE = 1e-4  # smaller differences of log likelihoods count as ties: equal pairs of two batches differ by rounding
Batches = Sequence[Mapping[str, Tensor]]


def compute(subject: Subject, split: str = "test") -> Metrics:
    """Computes the metrics of up to `ROWS` labelled rows of a split, evenly spaced.

    - `caption_bits`: bits per character of the captions given their images. `caption_bits_baseline`: the same without
      the image: by the mean probability of the caption over up to `IMAGES` images of other captions.
      `caption_bits_gain`: the second minus the first.
    - `caption_exact`: share of the generated captions that equal the caption. `caption_cider`: mean CIDEr-D.
    - `likelihood_image_to_text_r1`, `likelihood_text_to_image_r1`, ...: retrieval among up to `IMAGES` images and all
      distinct captions. `pmi_image_to_text_r1`, ...: captions ranked by pointwise mutual information."""
    text, captions = subject.labelled.inputs.by_name["text"], captions_asked(subject.labelled, split)
    images = image_batches(subject, split, evenly(len(subject.labelled.labels.splits[split]), ROWS))
    shown = evenly(len(captions), IMAGES)
    candidates = distinct(captions)
    scores = likelihoods(subject, chosen(images, shown), candidates)
    same = matches([captions[i] for i in shown], candidates)
    alone = without_image(scores, same)[places_among(candidates, captions)]
    bits = bits_per_character(text, captions, pair_likelihoods(subject, images, captions))
    baseline = bits_per_character(text, captions, alone)
    return {
        "caption_bits": bits,
        "caption_bits_baseline": baseline,
        "caption_bits_gain": baseline - bits,
        **generated_metrics(text, generated(subject, images), captions),
        **by_likelihood(scores, same),
    }


def captions_asked(labelled: LabelledSet, split: str) -> list[str]:
    """Returns the captions of the rows that are measured."""
    texts = labelled.texts(split)
    return [texts[i] for i in evenly(len(texts), ROWS)]


# likelihoods


def image_batches(subject: Subject, split: str, rows: Sequence[int]) -> list[dict[str, Tensor]]:
    """Returns the images of some labelled rows of a split, see `condensed`."""
    return condensed(subject, subject.labelled.reordered(split, rows).batches(split, "image"))


def condensed(subject: Subject, batches: Iterable[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Returns batches of images as inputs of `log_likelihood` and `describe`. A model that can `condense` images
    encodes each of them only once."""
    condenses = "condense" in subject.model.capabilities
    return [subject.model.condense("image", **batch) if condenses else batch for batch in map(subject.moved, batches)]


def chosen(images: Batches, rows: Sequence[int]) -> Batches:
    """Returns some rows of batches, in batches of the same images."""
    batches, first = [], 0
    for batch in images:
        size = size_of(batch)
        inside = [row - first for row in rows if first <= row < first + size]
        batches += [{name: value[inside] for name, value in batch.items()}] if inside else []
        first += size
    return batches


def size_of(batch: Mapping[str, Tensor]) -> int:
    """Returns the number of rows of a batch."""
    return len(next(iter(batch.values())))


def pair_likelihoods(subject: Subject, images: Batches, captions: Sequence[str]) -> Tensor:
    """Returns the log likelihood of each caption given its image, `(n,)`, in nats."""
    text, scores, first = subject.labelled.inputs.by_name["text"], [], 0
    for batch in images:
        tokens = subject.moved(text.batch(captions[first : first + size_of(batch)]))
        scores.append(subject.model.log_likelihood(**tokens, **batch).double().cpu())
        first += size_of(batch)
    return torch.cat(scores)


def likelihoods(subject: Subject, images: Batches, captions: Sequence[str]) -> Tensor:
    """Returns the log likelihood of each caption given each image, `(images, captions)`, in nats. Needs one pass of the
    decoder for each pair."""
    text, rows = subject.labelled.inputs.by_name["text"], []
    order = sorted(range(len(captions)), key=lambda i: len(captions[i]))  # captions of one batch need little padding
    for batch in images:
        size, columns = size_of(batch), []
        at_once = max(PAIRS // size, 1)
        for part in (order[i : i + at_once] for i in range(0, len(order), at_once)):
            pairs = {name: value.repeat_interleave(len(part), 0) for name, value in batch.items()}
            tokens = subject.moved(text.batch([captions[i] for i in part]))
            repeated = {name: value.repeat(size, 1) for name, value in tokens.items()}
            columns.append(subject.model.log_likelihood(**repeated, **pairs).double().cpu().view(size, len(part)))
        rows.append(torch.cat(columns, 1)[:, np.argsort(order)])
    return torch.cat(rows)


def matches(wanted: Sequence[str], given: Sequence[str]) -> Tensor:
    """Returns True where two captions are equal, `(wanted, given)`."""
    names = [np.array([normalised(caption) for caption in captions]) for captions in (wanted, given)]
    return torch.from_numpy(names[0][:, None] == names[1])


def without_image(scores: Tensor, same: Tensor) -> Tensor:
    """Returns the log of the mean probability of each caption over the images with another caption, `(captions,)`.

    scores: log likelihoods, `(images, captions)`. same: True for the caption of an image, same shape. NaN for a caption
    that all images have."""
    others = (~same).sum(0)
    return torch.where(others > 0, scores.masked_fill(same, -torch.inf).logsumexp(0) - others.log(), torch.nan)


def bits_per_character(text: Text, captions: Sequence[str], likelihood: Tensor) -> float:
    """Returns the bits of captions divided by their number of characters (of the `normalised` captions).

    likelihood: log likelihoods in nats, `(n,)`, of all tokens of a caption and its end. Captions that are longer than
    the maximum length are left out, because their likelihood is of a part. NaN if all are."""
    complete = torch.tensor([not text.tokenised(caption)["cut"] for caption in captions])
    characters = torch.tensor([len(normalised(caption)) for caption in captions])[complete].sum()
    return float(-likelihood[complete].sum() / math.log(2) / characters)


def unigram_likelihoods(text: Text, train: Sequence[str], captions: Sequence[str]) -> Tensor:
    """Returns the log likelihood of captions by the frequency of tokens in other captions, `(n,)`, in nats. Each
    caption has an end. Add-one smoothing over the vocabulary, which contains the end."""
    size, end = len(text.tokenizer), -1
    counts = Counter({end: len(train)})
    for tokens in content(text, train):
        counts.update(tokens)
    everything = math.log(counts.total() + size)
    scores = [
        sum(math.log(counts[token] + 1) - everything for token in (*each, end)) for each in content(text, captions)
    ]
    return torch.tensor(scores, dtype=torch.double)


def content(text: Text, captions: Sequence[str]) -> list[list[int]]:
    """Returns the tokens of captions, without special tokens."""
    encoded = text.tokenizer(list(captions), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return encoded["input_ids"]


# generated captions


def generated(subject: Subject, images: Batches) -> list[str]:
    """Returns a caption for each image, by beam search, in the language of the main captions: without the tokens of
    other languages (--caption_languages). It has at most as many tokens as the longest train caption with
    its end: a model that never ends a caption would take most of the time of the evaluation."""
    text, captions = subject.labelled.inputs.by_name["text"], []
    longest = 1 + max(map(len, content(text, subject.labelled.texts("train"))))
    options = {"max_new_tokens": min(longest, text.max_length), "num_beams": BEAMS}
    options |= {"suppress_tokens": tokens} if (tokens := added_tokens(text.tokenizer)) else {}
    for batch in images:
        ids = subject.model.describe(**options, **batch)
        captions += text.tokenizer.batch_decode(ids, skip_special_tokens=True)
    return captions


def added_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Returns the ids of special tokens without a role, as those of languages."""
    roles = {*tokenizer.convert_tokens_to_ids([*tokenizer.special_tokens_map.values()])}
    return [i for i, token in tokenizer.added_tokens_decoder.items() if token.special and i not in roles]


def as_tokenised(text: Text, captions: Sequence[str]) -> list[str]:
    """Returns captions as the tokenizer decodes them, for example in lower case: no other form can be generated.
    Unknown words remain as the token for them, which generated captions do not contain."""
    return text.tokenizer.batch_decode(content(text, captions))


def correct(text: Text, proposed: Sequence[str], captions: Sequence[str]) -> list[bool]:
    """Returns whether each proposed caption equals its caption, both `normalised`."""
    wanted = as_tokenised(text, captions)
    return [normalised(each) == normalised(other) for each, other in zip(proposed, wanted, strict=True)]


def generated_metrics(text: Text, proposed: Sequence[str], captions: Sequence[str]) -> Metrics:
    """Compares proposed captions with captions: share of equal ones, and mean CIDEr-D."""
    scores = cider_d(proposed, [[each] for each in as_tokenised(text, captions)])
    return {
        "caption_exact": float(np.mean(correct(text, proposed, captions))),
        "caption_cider": float(np.mean(scores)),
    }


# retrieval


def by_likelihood(scores: Tensor, same: Tensor) -> Metrics:
    """Computes R@k of both directions from log likelihoods `(images, captions)`, and R@k of captions by pointwise
    mutual information. same: True where caption and image belong together, same shape. Captions without an image are
    not asked for."""
    ranked = {
        "likelihood_image_to_text": ranks(scores, same),
        "likelihood_text_to_image": ranks(scores.T, same.T)[same.any(0)],
        "pmi_image_to_text": ranks(mutual_information(scores), same),
    }
    return {f"{name}_r{k}": float((rank <= k).double().mean()) for name, rank in ranked.items() for k in KS}


def mutual_information(scores: Tensor) -> Tensor:
    """Returns the pointwise mutual information of images and captions: log p(caption | image) - log p(caption), with
    p(caption) as the mean over the images. scores: log likelihoods, `(images, captions)`."""
    return scores - (scores.logsumexp(0) - math.log(len(scores)))


def ranks(scores: Tensor, same: Tensor) -> Tensor:
    """Returns the rank of the best correct candidate of each query, `(n,)`, from 1. Ties count against the query, so
    that a model with equal scores for all is always wrong. scores, same (bool): `(queries, candidates)`."""
    best = scores.masked_fill(~same, -torch.inf).amax(1, keepdim=True)
    return ((scores >= best - TIE) & ~same).sum(1) + 1


# wording


def chance_of(labelled: LabelledSet, model_class: type[PretextModel], split: str = "test") -> Metrics:
    """Levels to compare with: for bits, those of a unigram model of the train captions; for generated captions, the
    captions of rows that are drawn from train; for retrieval, random scores."""
    text, captions, train = labelled.inputs.by_name["text"], captions_asked(labelled, split), labelled.texts("train")
    bits = bits_per_character(text, captions, unigram_likelihoods(text, train, captions))
    drawn = np.random.default_rng(SEED).integers(len(train), size=len(captions))
    names = [normalised(caption) for caption in captions]
    expected = retrieval.chance([names[i] for i in evenly(len(names), IMAGES)], [*dict.fromkeys(names)], KS)
    return {
        "caption_bits": bits,
        "caption_bits_baseline": bits,
        "caption_bits_gain": 0.0,
        **generated_metrics(text, as_tokenised(text, [train[i] for i in drawn]), captions),
        **{f"likelihood_{name}": value for name, value in expected.items() if not name.endswith("rank")},
        **{f"pmi_{name}": expected[name] for name in (f"image_to_text_r{k}" for k in KS)},
    }


WORDS = {
    "caption_bits": "captioning, bits per character",
    "caption_bits_baseline": "captioning, bits per character without the image",
    "caption_bits_gain": "captioning, bits per character saved by the image",
    "caption_exact": "generated captions, exact match",
    "caption_cider": "generated captions, CIDEr-D",
}
DIRECTIONS = {"image_to_text": "image to caption", "text_to_image": "caption to image"}
SCORES = {"likelihood": "likelihood", "pmi": "mutual information"}


def words(name: str) -> str | None:
    """Wording of a metric: "image to caption by likelihood, R@10" for "likelihood_image_to_text_r10"."""
    match = re.fullmatch(r"(likelihood|pmi)_(image_to_text|text_to_image)_r(\d+)", name)
    return f"{DIRECTIONS[match[2]]} by {SCORES[match[1]]}, R@{match[3]}" if match else WORDS.get(name)


def protocol(results: dict) -> str:
    """Describes the protocol of a run, for its model card."""
    several = (results.get("captions") or {}).get("caption_languages")
    languages = " They include the choice of the main caption's language." if several else ""
    return (
        f"Captioning: up to {ROWS:,} labelled rows of the test split, evenly spaced. Bits per character: the sum of "
        "-log2 p(token) over the tokens of the captions and their ends, given the images, divided by the number of "
        f"characters; lower is better.{languages} "
        "Captions longer than the maximum length are left out of it. Chance is a unigram "
        "model of the tokens of the train captions, with add-one smoothing. Without the image: by the mean probability "
        f"of the caption over up to {IMAGES} images with another caption, by the same model. Generated captions: beam "
        f"search with {BEAMS} beams, of at most as many tokens as the longest train caption. Exact match: the share "
        "that equals the caption, regardless of case and spaces. "
        "CIDEr-D is 0 to 10, with document frequencies of the measured captions; a correct caption of one word has "
        "2.5, of two words 5, of three words 7.5. Chance is the caption of a random train row. Retrieval by "
        f"likelihood: up to {IMAGES} images and all distinct captions, ranked by log p(caption | image), or by mutual "
        "information: minus log p(caption), the mean probability over these images. For one caption, the two rank "
        "images in the same order. Ties count against the query."
    )


MEASURE = Measure(
    needs=("describe",),
    kinds=("image", "text"),
    compute=compute,
    chance=chance_of,
    words=words,
    protocol=protocol,
    headlines=(
        "caption_bits",
        "caption_bits_gain",
        "caption_exact",
        "caption_cider",
        "likelihood_image_to_text_r10",
        "pmi_image_to_text_r10",
        "likelihood_text_to_image_r10",
    ),
    order=6,
)
