"""What the report shows under its curves: the test set as the trained model sees it.

models, labelled set -> what draws into a figure, and its height
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
from .report import draw_fractions, draw_neighbours, draw_pairs

QUERIES, RANKED = 8, 6  # rows, and images of each
WORDS, GUESSES = 6, 4  # masked words that are shown, and predictions of each
GUESSED_FROM, LONG = 16, 4  # the first words of a text are shown; letters of a word that is worth predicting
Models = Mapping[str, PretextModel]
Panel = tuple[Callable, float]


def panel_of(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> Panel | None:
    """A function that draws into a figure, and the figure's height in inches; None where there is nothing to show.

    models: the first trained and the first random one, by these names."""
    model = models["trained"]
    if "embed" in model.capabilities and {"image", "text"} <= set(model.inputs):
        return pairs_panel(model, labelled, device)
    if model.inputs[0] == "image":
        return neighbours_panel(models, labelled, results, device)
    if model.inputs == ("text",):
        return words_panel(model, labelled, results)
    return None


def neighbours_panel(models: Models, labelled: LabelledSet, results: dict, device: torch.device) -> Panel | None:
    """Images of test with the nearest ones of train, by the trained and the random encoder."""
    if not labelled.pixels:  # a set too large to be kept
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
    """Captions of test with the images that the model ranks first, and a map of its images."""
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
    """How transfer grows with the labels known, and what the model predicts for masked words."""
    predictions = []
    if "predict_tokens" in model.capabilities:
        predictions = predicted_words(model.eval(), labelled.inputs.by_name["text"].processor, labelled.texts("test"))
    return partial(draw_fractions, transfer=results["transfer"], predictions=predictions), 4.2


@torch.no_grad()
def predicted_words(
    model: PretextModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> list[tuple[str, str, list[str]]]:
    """Some texts with a word masked: what stands around it, the word, and the model's likeliest predictions."""
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
    """`wanted` indices spread over `count`; all of them where there are fewer."""
    return sorted({i * count // wanted for i in range(wanted)})
