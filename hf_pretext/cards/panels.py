"""Panels under the curves of report.png: the trained model's outputs on test examples.

models, labelled set -> functions that draw into a figure, and the heights of their panels
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from transformers import PreTrainedTokenizerBase

from ..data.captions import normalised
from ..evaluation.knn import neighbours
from ..evaluation.labelled_set import LabelledSet
from ..evaluation.measure import Subject, evaluated
from ..features import extract
from ..modeling import PretextModel
from .report import draw_fractions, draw_neighbours, draw_pairs, draw_rows

QUERIES, RANKED = 8, 6  # rows, and images in each row
DRAWN = ("image", "video")  # kinds of data that `PretextModel.illustrate` draws
SHOWN, ROW = 10, 1.25  # illustrated images, and the height of a row of them in inches
WORDS, GUESSES = 6, 4  # masked words that are shown, and predictions for each
GUESSED_FROM, LONG = 16, 4  # words shown of a text; letters of the shortest word to mask
Models = Mapping[str, PretextModel]
Panel = tuple[Callable, float]


def panels_of(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> list[Panel]:
    """Returns the panels that fit the model: functions that draw into a figure, and their heights in inches.

    models: the first seed's models as {"trained": ..., "random": ...}. results: content of results.json."""
    panels = [
        illustration_panel(models["trained"], labelled, device),
        transfer_panel(models, labelled, results, device),
    ]
    return [panel for panel in panels if panel is not None]


def illustration_panel(model: PretextModel, labelled: LabelledSet, device: torch.device) -> Panel | None:
    """Returns the panel of test images or videos with what the model saw of them and what it predicted (see
    `PretextModel.illustrate`); None for a model that draws nothing."""
    if "illustrate" not in model.capabilities or not labelled.pixels:
        return None
    drawn = next(modality for modality in labelled.inputs.modalities if modality.name in DRAWN)
    shown = evenly(len(labelled.labels.splits["test"]), SHOWN)
    (batch,) = labelled.reordered("test", shown).joined_batches("test")
    with evaluated(model, device), torch.no_grad():
        images = model.illustrate(**{name: value.to(device) for name, value in batch.items()})
        rows = {title: drawn.images_of({drawn.encoder_input: each.cpu()}) for title, each in images.items()}
    return partial(draw_rows, rows=rows), ROW * len(rows)


def transfer_panel(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> Panel | None:
    """Returns the panel of what the encoders are good for: neighbours, captions or masked words."""
    model = models["trained"]
    if "embed" in model.capabilities and {"image", "text"} <= set(model.inputs):
        return pairs_panel(model, labelled, device)
    if model.inputs[0] == "image":
        return neighbours_panel(models, labelled, results, device)
    if model.inputs == ("text",):
        return words_panel(model, labelled, results)
    return None


def neighbours_panel(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> Panel | None:
    """Returns the panel of test images with their nearest train images, by the trained and the random encoder."""
    if not labelled.pixels:  # the dataset is too large to keep its pixels in memory
        return None
    pixels, labels = labelled.pixels, labelled.labels.splits
    queries, nearest = evenly(len(pixels["test"]), QUERIES), {}
    for who, model in models.items():
        layer = results["transfer"]["details"][who][0]["knn"]["layer"]
        bank, asked = (
            extract(
                model.encoder,
                labelled.batches(split, model.inputs[0]),
                (layer,),
                device=device,
                description=f"neighbours by the {who} encoder",
            )[layer]
            for split in ("train", "test")
        )
        closest = neighbours(bank, asked[queries], RANKED)
        same = labels["train"][closest] == labels["test"][queries][:, None]
        nearest[who] = (pixels["train"][torch.from_numpy(closest)], same)
    return partial(draw_neighbours, queries=pixels["test"][queries], nearest=nearest), 0.8 * len(queries)


def pairs_panel(model: PretextModel, labelled: LabelledSet, device: torch.device) -> Panel | None:
    """Returns the panel of test captions with the images that the model ranks first, and a t-SNE map of test images."""
    if not labelled.pixels:
        return None
    with evaluated(model, device), torch.no_grad():
        subject = Subject(model, labelled, device)
        images, (captions, texts) = subject.embeddings("image", "test"), subject.caption_embeddings("test")
    asked = evenly(len(captions), QUERIES)
    closest = neighbours(images, texts[asked], RANKED)
    names, pixels = [normalised(caption) for caption in labelled.captions("test")], labelled.all_pixels("test")
    ranked = {
        captions[query]: (pixels[rows], [names[row] == normalised(captions[query]) for row in rows])
        for query, rows in zip(asked, closest, strict=True)
    }
    labels, classes = labelled.labels.splits["test"], labelled.labels.names
    return partial(draw_pairs, ranked=ranked, images=images[: len(labels)], labels=labels, names=classes), 6.4


def words_panel(model: PretextModel, labelled: LabelledSet, results: dict) -> Panel:
    """Returns the panel of accuracy by share of labels, and of the model's predictions for masked words."""
    predictions = []
    if "predict_tokens" in model.capabilities:
        predictions = predicted_words(model.eval(), labelled.inputs.by_name["text"].processor, labelled.texts("test"))
    return partial(draw_fractions, transfer=results["transfer"], predictions=predictions), 4.2


@torch.no_grad()
def predicted_words(
    model: PretextModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> list[tuple[str, str, list[str]]]:
    """Masks one long word in each of a few texts and predicts it.

    Returns (text with ____ for the masked word, the word, most likely predictions) for each text."""
    rows = []
    texts = [text for text in texts if len(text.split()) >= GUESSED_FROM]
    for text in [texts[i * len(texts) // WORDS] for i in range(WORDS if texts else 0)]:
        encoded = tokenizer(" ".join(text.split()[:GUESSED_FROM]), return_tensors="pt")
        ids, words = encoded["input_ids"][0], encoded.word_ids()
        single = [i for i, word in enumerate(words) if word is not None and words.count(word) == 1]
        long = [i for i in single if len(tokenizer.decode(ids[i]).strip()) >= LONG]
        if not long:
            continue
        at = long[len(long) // 2]
        seen = {**encoded, "input_ids": encoded["input_ids"].clone()}
        seen["input_ids"][0, at] = model.task.mask_token_id
        masked = torch.arange(len(ids))[None] == at
        logits = model.predict_tokens(masked, **seen)[0]
        around = tokenizer.decode(ids[1:at]).strip(), tokenizer.decode(ids[at + 1 : -1]).strip()
        likeliest = [tokenizer.decode(token).strip() for token in logits.topk(GUESSES).indices]
        rows.append((f"{around[0]} ____ {around[1]}", tokenizer.decode(ids[at]).strip(), likeliest))
    return rows


def evenly(count: int, wanted: int) -> list[int]:
    """Returns `wanted` indices spread evenly over `count`; all indices if `count` is smaller."""
    return sorted({i * count // wanted for i in range(wanted)})
