"""Sentences of a card. Each modality, baseline and measure provides its part of them.

results -> sentences
"""

from ..evaluation import held_out
from ..evaluation.baselines import baselines
from ..evaluation.comparison import GRAY, START
from ..evaluation.fine_tune import FINE_TUNE
from ..evaluation.labelled_rows import ONLY_RETRIEVAL
from ..evaluation.measure import HELDOUT, Measure, measures
from ..registry import modality_class

OLD_ONLY_RETRIEVAL = "rows without a label, but for retrieval within their split"  # in older results
FEATURES = "The features of a layer are the mean over its feature map or its tokens."
FIRST_TOKEN = "The features of a layer are those of the first token, as in pretraining."
CHOICES = (
    "The layer and the L2 strength of the linear probe are chosen on the validation split, in the same way for trained "
    "and random encoders. For random encoders with batch norm, its statistics are chosen too: as initialised, or "
    "recomputed on the train split. All seeds use the same layer and the same choice of statistics. Linear probe: "
    "logistic regression on standardised features."
)
FEW_LABELS = (
    "Each linear probe is trained on the share of labels of the train split that its name gives. Below 100%, metrics "
    "are means over 5 random draws of the labels; all encoders and baselines use the same draws."
)
HEALTH = (
    "No labels are used. Spread: the mean standard deviation of the channels of the L2-normalised features, times the "
    "root of their number; 0 is a collapsed encoder, 1 are independent features. Effective rank (RankMe): the number "
    "of directions of the features; a warning if it is low, not a score. Dead channels: the share that is the same for "
    "all rows. Neighbours: the share of the rows whose nearest neighbour among other views of all rows is their own; "
    "views are two random augmentations (images), two halves (texts), or the start and the end (sounds, films). "
    "Untrained encoders are above chance: compare with random."
)
HEALTH_WORDS = {
    "spread": "spread",
    "effective_rank": "effective rank, a warning only",
    "dead_channels": "dead channels",
    "neighbours": "neighbours, R@1",
}

IN_GRAY = (
    "On grey images: the images of all splits are converted to grey of the same lightness, as in pretraining; linear "
    "probe with all labels."
)


def kinds(results: dict) -> list[type]:
    """Returns the modality classes of a model's inputs, in their order."""
    return [modality_class(kind) for kind in results["inputs"]]


def kinds_alone(results: dict) -> list[str]:
    """Returns the modalities that were also trained on without the others, as "images alone"."""
    return [f"{name} alone" for name, data in (results.get("alone") or {}).items() if data]


def about(results: dict, packages: str) -> str:
    """Returns the first paragraph of a card, before the lines that load the model. packages: their `pip` command."""
    encoder, classes = results["encoder"], {kind: each["class"] for kind, each in results["encoders"].items()}
    named = {kind: f" ({name})" for kind, name in classes.items()}
    encoded = [kind for kind in kinds(results) if kind.name in classes]  # SoundNet has no encoder of frames
    takes = " and ".join(kind.words(results) + named[kind.name] for kind in encoded)
    *learned, last = [" with ".join(kind.samples for kind in kinds(results)), *kinds_alone(results)]
    learned = f"{', '.join(learned)} and {last}" if learned else last
    name, size = results["objective"]["name"], f"{encoder['parameters']:,} parameters in total"
    return (
        f"This is an encoder of {takes}. It has {size}. It was pretrained with the pretext task *{name}* on "
        f"unlabelled {learned}. It can be loaded with transformers alone, without hf_pretext "
        f"({packages}):"
    )


def limits(results: dict) -> str:
    """Returns the sentences on the data: what the model was trained on, and what it was evaluated on."""
    takes = " and ".join(kind.words(results) for kind in kinds(results))
    language = results.get("card", {}).get("language")
    spoken = f" ({', '.join(language)})" if language else ""
    data = results["data"]["dataset"]
    measured = " It was evaluated only on the data under Transfer." if "transfer" in results else ""
    return f"Trained only on `{data}`{spoken}: {takes}.{measured} Results on other data are unknown."


def protocol(results: dict, transfer: dict) -> str:
    """Returns the sentences on how the transfer of one encoder is measured."""
    methods, by_kind = transfer["methods"], [each for each in baselines() if each.name in transfer["figures"]]
    sentences = [FIRST_TOKEN if results["objective"].get("pooling") == "cls" else FEATURES, CHOICES]
    if any("%" in method for method in methods):
        sentences.append(FEW_LABELS)
    if "knn" in methods and "knn" in results:
        sentences.append(f"kNN: cosine, k = {results['knn']['k']}, temperature {results['knn']['temperature']}.")
    if any(method.endswith(GRAY) for method in methods):
        sentences.append(IN_GRAY)
    if FINE_TUNE in methods:
        sentences.append(fine_tuned(transfer[FINE_TUNE]))
    return " ".join([*sentences, *(each.protocol for each in by_kind)])


def fine_tuned(settings: dict) -> str:
    """Returns the sentences on how fine-tuning is measured. settings: see `FineTuning`."""
    epochs, rates = settings["epochs"], " or ".join(map(str, settings["learning_rates"]))
    return (
        "Fine-tuning: all weights of the encoder, and a linear classifier on the mean of its output, are trained on "
        f"the train split, with {epochs} epoch{'s' * (epochs != 1)} in batches of {settings['batch_size']}. AdamW has "
        f"weight decay {settings['weight_decay']}, warmup over {settings['warmup']:.0%} of the steps and a cosine "
        f"schedule. Label smoothing is {settings['label_smoothing']}; images are cropped and flipped at random. The "
        f"learning rate, {rates}, is chosen on the validation split; a layer has {settings['layer_decay']} times the "
        "rate of the layer after it. Trained and random encoders have the same budget and the same random numbers. "
        "With more epochs, a random encoder may catch up."
    )


def prepared(results: dict) -> str:
    """Returns the sentences on how the training data was prepared."""
    return " ".join(sentence for kind in kinds(results) for sentence in kind.preparation(results))


def fitting_measures(results: dict) -> list[Measure]:
    """Returns the measures that the results contain metrics of."""
    names = results.get("measures", {}).get("trained", {})
    return [measure for measure in measures() if any(measure.words(name) for name in names)]


def measured(results: dict) -> str:
    """Returns the sentences on how the metrics of the full model are measured."""
    sentences = [measure.protocol(results) for measure in fitting_measures(results)]
    if "heldout" in results:
        sentences.append(held_out.protocol(results["heldout"]))
    return " ".join(filter(None, sentences))


def measure_words(name: str) -> str:
    """Returns the name of a metric in words: "image to caption, R@10" for "image_to_text_r10"."""
    if name.startswith(HELDOUT):
        return f"{measure_words(name.removeprefix(HELDOUT))}, held out"
    return next(filter(None, (measure.words(name) for measure in measures())), name.replace("_", " "))


def health(results: dict) -> str:
    """Returns the sentences on how the metrics without labels are measured; empty if there are none."""
    of = results.get("health")
    if of is None:
        return ""
    seen = ", **which were trained on**" if of["trained_on"] else ", which were not trained on"
    split = f"the {of['split']} split of " if of["split"] else ""
    channels = ", ".join(f"{count} channels ({kind})" for kind, count in of["channels"].items())
    start = " As it was: the pretrained encoder before this training." if START in of else ""
    return f"Measured on {of['rows']:,} rows of {split}`{of['dataset']}`{seen}; features of {channels}. {HEALTH}{start}"


def health_words(name: str) -> str:
    """Returns the name of a metric without labels in words: "neighbours, R@1 (image)" for "neighbours_image"."""
    words = next((words for begin, words in HEALTH_WORDS.items() if name.startswith(f"{begin}_")), None)
    return f"pretext {name.replace('_', ' ')}" if words is None else f"{words} ({name.rpartition('_')[2]})"


def headlines(results: dict) -> list[str]:
    """Returns the names of the measured headline metrics, in the order of their measures. Next to a metric is the same
    on a set that is held out by captions."""
    names = results.get("measures", {}).get("trained", {})
    prefixes = ("", HELDOUT) if results.get("heldout", {}).get(held_out.BY) == held_out.CAPTIONS else ("",)
    each = (f"{prefix}{name}" for measure in measures() for name in measure.headlines for prefix in prefixes)
    return [name for name in each if name in names]


def left_out(reason: str) -> str:
    """Returns why rows of the labelled set were left out, in words. Also takes the words of older results."""
    return ONLY_RETRIEVAL if reason == OLD_ONLY_RETRIEVAL else reason


def tested(results: dict) -> str:
    """Returns how the pretext task was measured, in parentheses; empty for models with one modality."""
    if len(results["inputs"]) == 1:
        return ""
    together, alone = " with ".join(kind.samples for kind in kinds(results)), " or ".join(kinds_alone(results))
    apart = f"; this loss is on {together} only, the loss in the training curves also on {alone}" if alone else ""
    return f" (batches of 256 rows, no augmentation{apart})"
