"""Small data sets that are part of the package, for first runs and tests without a network: `--dataset emoji`.

emoji: images with names, keywords and classes. shakespeare: passages of plays and poems. emoji_films: films with sound.
babyai_films: films with sentences, in three folders. The README.md of each and NOTICE name its sources.
"""

from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent
EMOJI = (
    "The emoji are 4,552 images in up to three styles (Noto, the first edition of Noto, Fluent), split by name. 9 of "
    "the 669 test images show an emoji that is also in train, in another style and under another name."
)
PLAYED = {"limits": "The data set is made for first runs and tests: it is too small to learn much from."}
MISSIONS = {"eval_label": "json.level", "text_column": "json.text", "eval_text_column": "json.text", **PLAYED}
DATA_SETS: dict[str, dict[str, Any]] = {  # with the options for training on it and for its evaluation
    "emoji": {
        "eval_label": "group",
        "audit_nuisance": ["style"],
        "audit_same": "name",
        "text_column": "text",
        "other_captions": ["keywords"],
        "caption_weights": [0.5, 0.5],
        "prompts": ["{}", "a drawing of {}", "an emoji of {}"],
        "license": "apache-2.0",  # NOTICE has the licences of the images
        "language": ["en"],
        "limits": EMOJI,
    },
    "shakespeare": {"eval_label": "kind", "language": ["en"], **PLAYED},
    "emoji_films": {"eval_label": "json.game", **PLAYED},
    "babyai_films/babyai": MISSIONS,
    "babyai_films/babyai_heldout": MISSIONS,
    "babyai_films/babyai_narrated": PLAYED,
}


def located(dataset: str) -> str:
    """Returns the folder of a bundled data set. Returns any other name, and a path that exists, unchanged."""
    embedded = dataset in DATA_SETS and not Path(dataset).exists()
    return str(SAMPLES / dataset) if embedded else dataset
