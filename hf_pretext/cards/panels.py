"""Panels under the curves of report.png: the trained model's outputs on test examples, or without labels the nearest
neighbours of held-out images.

models, labelled set or held-out rows -> functions that draw into a figure, and the heights of their panels
"""

import itertools
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.captions import normalised
from ..evaluation.captioning import correct, generated, image_batches
from ..evaluation.health_rows import HealthRows
from ..evaluation.knn import neighbours
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.log_mel import MELS
from ..evaluation.measure import Subject, evaluated
from ..features import extract
from ..modeling import PretextModel
from ..modules.log_mel import log_mel
from ..utils.places import evenly
from .audit_panel import audit_panel
from .report import (
    PER_ROW,
    SAME,
    draw_abreast,
    draw_captions,
    draw_fractions,
    draw_neighbours,
    draw_pairs,
    draw_rows,
)

QUERIES, RANKED, STRIPS = 8, 6, 3  # rows, and images or videos in each row
IMAGE = "image"  # kind of data whose neighbours are drawn without labels
DRAWN = (IMAGE, "video")  # kinds of data that `PretextModel.illustrate` draws
SHOWN, ROW = 10, 1.25  # illustrated images, and the height of a row of them in inches
CROSSED = 4  # frames or sounds that are ranked first
NAMES = {"audio": "sounds", "video": "frames"}
DESCRIBED, CAPTIONED = 20, 1.7  # captioned images, and the height of a row of them in inches
WORDS, FILMS, GUESSES = 6, 5, 4  # masked words that are shown, of texts and of films, and predictions for each
GUESSED_FROM, LONG = 16, 4  # words shown of a text; letters of the shortest word to mask
MASKED_WORDS = "masked words of test texts, and the model's predictions"
NEXT_WORDS = "next words of test texts, and the model's predictions"
NO_FRAMES = "without labels, no frame marks neighbours of the query's class"
Models = Mapping[str, PretextModel]
Panel = tuple[Callable, float]
Nearest = Callable[[str, PretextModel], tuple[Tensor, np.ndarray]]
Prediction = tuple[str, str, dict[str, list[str]]]  # text with ____ for a word, the word, likely words by title


def panels_of(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> list[Panel]:
    """Returns the panels that fit the model: functions that draw into a figure, and their heights in inches.

    models: the first seed's models as {"trained": ..., "random": ...}. results: content of results.json."""
    panels = [
        illustration_panel(models["trained"], labelled, device),
        captions_panel(models["trained"], labelled, device),
        transfer_panel(models, labelled, results, device),
        audit_panel(results.get("audit", {})),
    ]
    return [panel for panel in panels if panel is not None]


def illustration_panel(model: PretextModel, labelled: LabelledSet, device: torch.device) -> Panel | None:
    """Returns the panel of test images or videos with what the model saw of them and what it predicted (see
    `PretextModel.illustrate`); None for a model that draws nothing."""
    if "illustrate" not in model.capabilities or labelled.pixels == {}:  # None: decoded again, a few rows
        return None
    drawn = next(modality for modality in labelled.inputs.modalities if modality.name in DRAWN)
    shown = evenly(len(labelled.labels.splits["test"]), SHOWN)
    (batch,) = labelled.reordered("test", shown).joined_batches("test")
    with evaluated(model, device), torch.no_grad():
        images = model.illustrate(**{name: value.to(device) for name, value in batch.items()})
        rows = {title: drawn.images_of({drawn.encoder_input: each.cpu()}) for title, each in images.items()}
    return partial(draw_rows, rows=rows), ROW * len(rows)


def captions_panel(model: PretextModel, labelled: LabelledSet, device: torch.device) -> Panel | None:
    """Returns the panel of the first test images with their captions and the generated ones, correct or wrong; None for
    a model that describes nothing, and for a dataset that is too large to stay in memory."""
    if "describe" not in model.capabilities or not labelled.pixels:
        return None
    captions, text = labelled.texts("test")[:DESCRIBED], labelled.inputs.by_name["text"]
    with evaluated(model, device), torch.no_grad():
        subject = Subject(model, labelled, device)
        proposed = generated(subject, image_batches(subject, "test", range(len(captions))))
    drawn = zip(captions, proposed, correct(text, proposed, captions), strict=True)
    rows = -(-len(captions) // PER_ROW)
    return partial(draw_captions, images=labelled.pixels["test"][: len(captions)], captions=[*drawn]), rows * CAPTIONED


def transfer_panel(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> Panel | None:
    """Returns the panel of what the encoders are good for: neighbours, captions or masked words."""
    model = models["trained"]
    if "embed" in model.capabilities and "text" in model.inputs and {*DRAWN} & {*model.inputs}:
        return pairs_panel(model, labelled, device)
    if "embed" in model.capabilities and set(model.inputs) == set(NAMES):
        return crossed_panel(model, labelled, device)
    if model.inputs[0] in ("image", "audio"):
        return neighbours_panel(models, labelled, results, device)
    if model.inputs[0] == "text":
        return words_panel(model, labelled, results, device)
    return None


def neighbours_panel(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> Panel | None:
    """Returns the panel of test images, or sounds as spectrograms, with their nearest train neighbours, by the trained
    and the random encoder."""
    kind = models["trained"].inputs[0]
    if labelled.pixels is None:  # the dataset is too large to stay in memory
        return None
    labels = labelled.of_kind(kind).labels.splits
    queries = np.array(evenly(len(labels["test"]), QUERIES))

    def nearest(who: str, model: PretextModel) -> tuple[Tensor, np.ndarray]:
        layer = results["transfer"]["details"][who][0]["knn"]["layer"]
        bank, asked = (
            features_of(model.encoder, labelled.batches(split, kind), layer, who, device) for split in ("train", "test")
        )
        closest = neighbours(bank, asked[queries], RANKED)
        return shown(labelled, kind, "train", closest), labels["train"][closest] == labels["test"][queries][:, None]

    return compared_panel(models, nearest, shown(labelled, kind, "test", queries))


def panels_without_labels(models: Models, rows: HealthRows, device: torch.device) -> list[Panel]:
    """Returns the panels of a run without labels, as `panels_of`: held-out images with their nearest neighbours among
    the others, by the output of the trained and of the random image encoder. `[]` for other kinds of data, and for a
    single image."""
    if IMAGE not in models["trained"].encoders or len(rows) < 2:
        return []
    queries = np.array(evenly(len(rows), QUERIES))

    def nearest(who: str, model: PretextModel) -> tuple[Tensor, np.ndarray]:
        features = features_of(model.encoders[IMAGE], rows.batches(IMAGE), -1, who, device)
        closest = neighbours(features, features[queries], RANKED + 1)  # one of them is the query
        others = np.stack([near[near != query][:RANKED] for near, query in zip(closest, queries, strict=True)])
        return rows.images(others), np.zeros(others.shape, bool)

    seen = "images that were trained on" if rows.trained_on else "held-out images"
    return [compared_panel(models, nearest, rows.images(queries), f"queries and neighbours: {seen}; {NO_FRAMES}")]


def compared_panel(models: Models, nearest: Nearest, queries: Tensor, note: str = SAME) -> Panel:
    """Returns the panel of queries with their nearest neighbours by each model.

    nearest: (name of the model, model) -> the nearest images, `(q, k, 3, H, W)` uint8, and which of them are framed,
    `(q, k)` bool. queries: `(q, 3, H, W)` uint8. note: what a frame means."""
    by_title = {f"nearest neighbours, {who} encoder": nearest(who, model) for who, model in models.items()}
    return partial(draw_neighbours, queries=queries, nearest=by_title, note=note), 0.8 * len(queries)


def features_of(
    encoder: PreTrainedModel, batches: Iterable[dict], layer: int, who: str, device: torch.device
) -> Tensor:
    """Returns the features `(n, d)` of one layer of an encoder. who: its name, for the progress bar."""
    return extract(encoder, batches, (layer,), device=device, description=f"neighbours by the {who} encoder")[layer]


def crossed_panel(model: PretextModel, labelled: LabelledSet, device: torch.device) -> Panel | None:
    """Returns the panel of test sounds with the frames that the model ranks first, and of test frames with sounds."""
    if labelled.pixels is None:  # the dataset is too large to stay in memory
        return None
    kinds, panels = tuple(model.inputs), []
    with evaluated(model, device), torch.no_grad():
        subject = Subject(model, labelled, device)
        embeddings = {kind: subject.embeddings(kind, "test") for kind in kinds}
    queries = np.array(evenly(len(embeddings[kinds[0]]), QUERIES))
    for kind, other in (kinds, kinds[::-1]):
        closest = neighbours(embeddings[other], embeddings[kind][queries], CROSSED)
        nearest = {
            f"{NAMES[other]} ranked first": (shown(labelled, other, "test", closest), closest == queries[:, None])
        }
        drawn = shown(labelled, kind, "test", queries)
        panels.append(partial(draw_neighbours, queries=drawn, nearest=nearest, note="blue frame: of the same clip"))
    return partial(draw_abreast, panels=panels), 0.8 * len(queries)


def shown(labelled: LabelledSet, kind: str, split: str, rows: np.ndarray) -> Tensor:
    """Returns images of the rows of a split, uint8 `(*rows.shape, 3, H, W)`: the images, the middle frames of videos,
    or the spectrograms of sounds."""
    if kind != "audio":
        return labelled.pixels[split][torch.from_numpy(rows)]
    audio = labelled.inputs.by_name[kind]
    waves = [audio.waves_of(batch) for batch in labelled.examples(split, kind)]
    if any(each is None for each in waves):
        raise ValueError("the feature extractor gives no waveforms to draw")
    longest = max(each.shape[1] for each in waves)
    waves = torch.cat([F.pad(each, (0, longest - each.shape[1])) for each in waves])
    values = log_mel(waves[torch.from_numpy(rows.ravel())], audio.shape()["sampling_rate"], MELS)
    return colored(values.mT.flip(1)).unflatten(0, rows.shape)


def colored(values: Tensor) -> Tensor:
    """Returns images in colour of maps `(n, H, W)`, each from its lowest to its highest value: uint8 `(n, 3, H, W)`."""
    from matplotlib import colormaps

    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    scaled = ((values - low) / (high - low).clamp(min=1e-6)).numpy()
    return torch.from_numpy(colormaps["magma"](scaled, bytes=True)[..., :3]).permute(0, 3, 1, 2)


def pairs_panel(model: PretextModel, labelled: LabelledSet, device: torch.device) -> Panel | None:
    """Returns the panel of test captions with the images or videos that the model ranks first, and a t-SNE map of all
    test images or videos."""
    if not labelled.pixels:
        return None
    kind = next(kind for kind in model.inputs if kind in DRAWN)
    with evaluated(model, device), torch.no_grad():
        subject = Subject(model, labelled, device)
        images, (captions, texts) = subject.embeddings(kind, "test"), subject.caption_embeddings("test")
    asked = evenly(len(captions), QUERIES)
    closest = neighbours(images, texts[asked], RANKED if kind == "image" else STRIPS)
    names = [normalised(caption) for caption in labelled.captions("test")]
    pixels = labelled.all_pixels("test") if kind == "image" else strips_of(labelled, "test")
    ranked = {
        captions[query]: (pixels[rows], [names[row] == normalised(captions[query]) for row in rows])
        for query, rows in zip(asked, closest, strict=True)
    }
    labels, classes = labelled.labels.splits["test"], labelled.labels.names
    return partial(
        draw_pairs, ranked=ranked, images=images[: len(labels)], labels=labels, names=classes, kind=kind
    ), 6.4


def strips_of(labelled: LabelledSet, split: str) -> Tensor:
    """Returns the first, the middle and the last frame of each video next to each other, uint8 `(n, 3, H, 3 W)`."""
    videos = labelled.inputs.by_name["video"]
    chosen, strips = [0, videos.frames // 2, videos.frames - 1], []
    for part in labelled._parts(split):
        for batch in labelled.examples(part, "video"):
            strips.append(torch.cat(batch[videos.encoder_input][:, chosen].unbind(1), dim=-1))
    return torch.cat(strips)


def words_panel(model: PretextModel, labelled: LabelledSet, results: dict, device: torch.device) -> Panel:
    """Returns the panel of accuracy by share of labels, and of the model's predictions for masked words, next to videos
    with and without them; of a causal language model for the next word; without predictions of other models."""
    predictions, title, tokenizer = [], MASKED_WORDS, labelled.inputs.by_name["text"].processor
    with evaluated(model, device), torch.no_grad():
        if "predict_tokens" in model.capabilities and "video" in model.inputs:
            predictions = predicted_words_of_films(model, labelled, device)
        elif "predict_tokens" in model.capabilities:
            predictions = predicted_words(model, tokenizer, labelled.texts("test"))
        elif "log_likelihood" in model.capabilities:
            predictions, title = next_words(model, tokenizer, labelled.texts("test")), NEXT_WORDS
    return partial(draw_fractions, transfer=results["transfer"], predictions=predictions, title=title), 4.2


def predicted_words(model: PretextModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Prediction]:
    """Masks one long word in each of a few texts and predicts it. Returns a `Prediction` for each text."""
    rows = []
    for text in beginnings(texts):
        masked = one_masked(tokenizer, text, model.task.mask_token_id)
        if masked is not None:
            rows.append((masked.text, masked.word, {masked.word: masked.guesses(model, tokenizer)}))
    return rows


def next_words(model: PretextModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[Prediction]:
    """Predicts one long word in each of a few texts from the words before it. Returns a `Prediction` for each text."""
    rows = []
    for text in beginnings(texts):
        ids, at = long_word(tokenizer, text)
        if at is None:
            continue
        logits = model.full_model(input_ids=ids[None, :at].to(model.device)).logits[0, -1]
        likely = [tokenizer.decode(token).strip() for token in logits.topk(GUESSES).indices]
        word = tokenizer.decode(ids[at]).strip()
        rows.append((f"{tokenizer.decode(ids[:at], skip_special_tokens=True).strip()} ____", word, {word: likely}))
    return rows


def beginnings(texts: list[str]) -> list[str]:
    """Returns the first words of a few texts that are long enough."""
    texts = [text for text in texts if len(text.split()) >= GUESSED_FROM]
    chosen = [texts[i * len(texts) // WORDS] for i in range(WORDS if texts else 0)]
    return [" ".join(text.split()[:GUESSED_FROM]) for text in chosen]


def predicted_words_of_films(model: PretextModel, labelled: LabelledSet, device: torch.device) -> list[Prediction]:
    """Masks one long word in the texts of a few test videos, and predicts it with and without the video. Returns a
    `Prediction` for each text."""
    tokenizer, texts = labelled.inputs.by_name["text"].processor, labelled.captions("test")
    rows, shown = [], evenly(len(labelled.labels.splits["test"]), FILMS)
    videos = itertools.chain.from_iterable(
        zip(*batch.values(), strict=True) for batch in labelled.reordered("test", shown).batches("test", "video")
    )
    name = labelled.inputs.by_name["video"].encoder_input
    for number, (frames, *_) in zip(shown, videos, strict=True):
        masked = one_masked(tokenizer, texts[number], model.task.mask_token_id, last=True)
        if masked is None:
            continue
        seen = {"with video": {name: frames[None].to(device)}, "without": {}}
        guesses = {title: masked.guesses(model, tokenizer, device, **video) for title, video in seen.items()}
        rows.append((masked.text, masked.word, guesses))
    return rows


class Masked(NamedTuple):
    """A text with one masked word. text: with ____ in its place. word: the masked one. ids: `(1, L)`, with the mask
    token. place: of the mask token."""

    text: str
    word: str
    ids: Tensor
    place: int

    def guesses(
        self, model: PretextModel, tokenizer: PreTrainedTokenizerBase, device: torch.device | str = "cpu", **video
    ) -> list[str]:
        """Returns the most likely words by a model, the most likely first. video: inputs of the model."""
        masked = (torch.arange(self.ids.shape[1]) == self.place)[None].to(device)
        inputs = {"input_ids": self.ids.to(device), "attention_mask": torch.ones_like(self.ids).to(device)}
        (logits,) = model.predict_tokens(masked, **inputs, **video)
        return [tokenizer.decode(token).strip() for token in logits.topk(GUESSES).indices]


def long_word(tokenizer: PreTrainedTokenizerBase, text: str, last: bool = False) -> tuple[Tensor, int | None]:
    """Returns the tokens of a text, `(L,)`, and the place of the middle one of its long words of one token, or of the
    last one; None if it has none."""
    encoded = tokenizer(text, return_tensors="pt")
    ids, words = encoded["input_ids"][0], encoded.word_ids()
    single = [i for i, word in enumerate(words) if word is not None and words.count(word) == 1]
    long = [i for i in single if len(tokenizer.decode(ids[i]).strip()) >= LONG]
    return ids, long[-1 if last else len(long) // 2] if long else None


def one_masked(tokenizer: PreTrainedTokenizerBase, text: str, mask_token_id: int, last: bool = False) -> Masked | None:
    """Masks the middle one of the long words of a text, or the last one; None if it has none of one token."""
    ids, at = long_word(tokenizer, text, last)
    if at is None:
        return None
    around = tokenizer.decode(ids[1:at]).strip(), tokenizer.decode(ids[at + 1 : -1]).strip()
    seen = ids.clone()
    seen[at] = mask_token_id
    return Masked(f"{around[0]} ____ {around[1]}", tokenizer.decode(ids[at]).strip(), seen[None], at)
