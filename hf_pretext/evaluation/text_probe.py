"""Linear probe of the labels on the features of captions, from the text encoder of a model.

captions of train, validation and test -> features of every layer and pooling -> linear probe -> top-1 on test
"""

from typing import get_args

from ..features import Pooling, extract
from ..modeling import PretextModel
from .labelled_set import LabelledSet
from .measure import Measure, Metrics, Subject
from .transfer import SPLITS, linear_probe, transfer

NAME = "text_probe"


def compute(subject: Subject) -> Metrics:
    """Measures the top-1 accuracy of the probe (`text_probe`) on test. The layer and the pooling, mean over tokens or
    first token, are chosen on validation."""
    features, labels, encoder = {}, subject.labelled.labels, subject.model.encoders["text"]
    for split in SPLITS:
        captions = subject.labelled.captions(split)[: len(labels.splits[split])]
        batches = list(subject.text_batches(captions))
        for pooling in get_args(Pooling):
            pooled = extract(encoder, batches, "all", pooling, subject.device, description=None)
            for layer, values in pooled.items():
                features.setdefault((layer, pooling), {})[split] = values
    return {name: probe["test"]["top1"] for name, probe in transfer(features, labels, {NAME: linear_probe}).items()}


def chance_of(labelled: LabelledSet, model_class: type[PretextModel]) -> Metrics:
    """Chance level of `compute`: the accuracy of always predicting the majority class of train."""
    return {NAME: labelled.labels.majority()["top1"]}


MEASURE = Measure(
    needs=("predict_tokens",),
    kinds=("image", "text"),
    compute=compute,
    chance=chance_of,
    words={NAME: "linear probe of captions"}.get,
    protocol=lambda results: (
        "Linear probe of captions: logistic regression on the frozen features of the text encoder, top-1; layer and "
        "pooling (mean or first token) are chosen on validation. Its chance level is the majority class."
    ),
    headlines=(NAME,),
    order=5,
)
