"""Small data sets that are part of the package, for first runs and tests without a network: `--dataset emoji`.

emoji: images with names, keywords and classes. shakespeare: passages of plays and poems. emoji_films: films with sound.
babyai_films: films with sentences, in three folders. The README.md of each and NOTICE name its sources.
"""

from pathlib import Path

SAMPLES = Path(__file__).parent
DATA_SETS = (
    "emoji",
    "shakespeare",
    "emoji_films",
    "babyai_films/babyai",
    "babyai_films/babyai_heldout",
    "babyai_films/babyai_narrated",
)


def located(dataset: str) -> str:
    """Returns the folder of an embedded data set. Returns any other name, and a path that exists, unchanged."""
    embedded = dataset in DATA_SETS and not Path(dataset).exists()
    return str(SAMPLES / dataset) if embedded else dataset
