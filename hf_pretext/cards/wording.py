"""What a card says in sentences: put together from what each kind of data, baseline and measure says of itself.

results -> sentences
"""

from ..evaluation.baselines import baselines
from ..evaluation.measure import Measure, measures
from ..registry import modality_class

FEATURES = "Features are the mean over each layer's map or tokens."
CHOICES = (
    "The layer, the linear probe's L2 strength and, for random encoders, the statistics of batch norm (as initialised "
    "or recomputed on train) are chosen on validation, for trained and random encoders alike; layer and statistics "
    "once for all seeds. Linear probe: logistic regression on standardised features."
)
FEW_LABELS = (
    "Each probe knows the labels of the share of train that its name says; below 100%, metrics are means over 5 draws "
    "of the labels, the same ones for all."
)


def kinds(results: dict) -> list[type]:
    """The kinds of data that a model takes."""
    return [modality_class(kind) for kind in results["inputs"]]


def about(results: dict, packages: str) -> str:
    """What it is, in a paragraph before the lines that load it. packages: what these take."""
    encoder, classes = results["encoder"], {kind: each["class"] for kind, each in results["encoders"].items()}
    named = {kind: f" ({name})" for kind, name in classes.items()}
    takes = " and ".join(kind.words(results) + named.get(kind.name, "") for kind in kinds(results))
    learned = " with ".join(kind.samples for kind in kinds(results))
    alone = [f"{kind} alone" for kind, data in results.get("alone", {}).items() if data]
    name, size = results["objective"]["name"], f"{encoder['parameters']:,} parameters in all"
    return (
        f"An encoder of {takes}: {size}. It learned from unlabelled {', '.join([learned, *alone])} by the "
        f"pretext task *{name}*. Plain transformers loads it ({packages}):"
    )


def limits(results: dict) -> str:
    """What nothing was measured of."""
    takes = " and ".join(kind.words(results) for kind in kinds(results))
    language = results.get("card", {}).get("language")
    spoken = f" ({', '.join(language)})" if language else ""
    data = results["data"]["dataset"]
    measured = " but for what is under Transfer" if "transfer" in results else ""
    return f"Learned from `{data}` alone{spoken}, {takes}: of other data nothing was measured{measured}."


def protocol(results: dict, transfer: dict) -> str:
    """How transfer of one encoder is measured."""
    methods, by_kind = transfer["methods"], [each for each in baselines() if each.name in transfer["figures"]]
    sentences = [FEATURES, CHOICES]
    if any("%" in method for method in methods):
        sentences.append(FEW_LABELS)
    if "knn" in methods and "knn" in results:
        sentences.append(f"kNN: cosine, k = {results['knn']['k']}, temperature {results['knn']['temperature']}.")
    return " ".join([*sentences, *(each.protocol for each in by_kind)])


def prepared(results: dict) -> str:
    """How the data was prepared."""
    return " ".join(sentence for kind in kinds(results) for sentence in kind.preparation(results))


def fitting_measures(results: dict) -> list[Measure]:
    """The measures that results hold metrics of."""
    names = results.get("measures", {}).get("trained", {})
    return [measure for measure in measures() if any(measure.words(name) for name in names)]


def measured(results: dict) -> str:
    """How the measures of the full model are measured."""
    return " ".join(filter(None, (measure.protocol(results) for measure in fitting_measures(results))))


def measure_words(name: str) -> str:
    """A metric's name in words: "image_to_text_r10" as "image to caption, R@10"."""
    return next(filter(None, (measure.words(name) for measure in measures())), name.replace("_", " "))


def headlines(results: dict) -> list[str]:
    """The headline metrics that were measured, in the order of their measures."""
    names = results.get("measures", {}).get("trained", {})
    return [name for measure in measures() for name in measure.headlines if name in names]


def tested(results: dict) -> str:
    """How the pretext task was measured, where that needs saying."""
    if len(results["inputs"]) == 1:
        return ""
    alone = "; its loss is of rows of all kinds, that of the curves also of one kind alone"
    apart = alone if results.get("alone") else ""
    return f" (in batches of 256 rows, unaugmented{apart})"
