"""Measures the data of `hf-pretext train`, on which the defaults of an objective depend.

objective, options -> sources -> number of samples
"""

from collections.abc import Mapping
from typing import Any

from ..data.lines import Reading
from ..data.sources import Source, open_source
from ..modalities import columns_to_read, modality_classes
from ..modalities.text import TextArguments
from ..modeling import PretextModel
from ..stream.settings import StreamSettings

BYTES_OF_TOKEN = 4  # of a text, about
TEXTS = ("text",)


def samples_of(objective: type[PretextModel], values: Mapping[str, Any]) -> int | None:
    """Returns the number of training samples: rows, or for packed texts about the number of sequences; None if it is
    unknown.

    values: options by name; `dataset` is a list. Raises `ValueError` for data that can't be opened."""
    if not values["dataset"]:
        raise ValueError("--dataset is missing. Give a folder, files or a Hub id.")
    sources = [opened(objective, dataset, values) for dataset in values["dataset"]]
    if any(source.endless for source in sources):
        return None
    if objective.inputs != TEXTS or objective.one_text_a_row:
        return sum(map(len, sources))
    size = sum(len(source) * source.row_bytes() for source in sources)
    return max(int(size / (BYTES_OF_TOKEN * values.get("max_length", TextArguments.max_length))), 1)


def opened(objective: type[PretextModel], dataset: str, values: Mapping[str, Any]) -> Source:
    """Opens a dataset as training does."""
    columns = {kind: values.get(f"{kind}_column") for kind in objective.inputs}
    classes = modality_classes(objective.inputs, objective.views, objective.one_text_a_row)
    needed = tuple(columns_to_read(classes.values()).values())
    sample_by = values.get("sample_by", TextArguments.sample_by) if objective.inputs == TEXTS else None
    bad = values.get("max_bad_fraction", StreamSettings.max_bad_fraction)
    reading = Reading(sample_by, values.get("encoding"), values.get("separator"), bad)
    return open_source(dataset, values.get("split", "train"), columns, needed, reading)
