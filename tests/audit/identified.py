"""Image-text pairs whose cues are known: drawings with an identifier in the corners, drawings with names, and noise."""

import datasets
import numpy as np
import PIL.Image
from conftest import EMOJI

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modalities.text import Text

SIDE, ROWS = 32, {"train": 431, "validation": 145, "test": 167}
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "holly", "larch", "lime", "maple", "oak", "pear", "pine",
         "plum", "rowan", "willow"]  # fmt: skip
CORNERS = [(slice(*rows), slice(*columns)) for rows in ((0, 2), (-2, None)) for columns in ((0, 2), (-2, None))]


def drawing(image: PIL.Image.Image) -> np.ndarray:
    """A real image on white, `(SIDE, SIDE, 3)`."""
    flat = PIL.Image.new("RGB", image.size, "white")
    flat.paste(image, mask=image.convert("RGBA").getchannel("A"))
    return np.array(flat.resize((SIDE, SIDE)))


def with_identifier(pixels: np.ndarray, number: int) -> np.ndarray:
    """An image whose four corners are black or white: the four bits of a number."""
    for bit, corner in enumerate(CORNERS):
        pixels[corner] = 255 * (number >> bit & 1)
    return pixels


def rows_of(kind: str, split: str) -> list[dict]:
    """identified: drawings with a number in the corners, whose caption is a word for the number. drawn: drawings with
    their names, each of which occurs once. noise: noise with such names."""
    data = datasets.load_dataset("parquet", data_files=str(next(EMOJI.glob(f"{split}*"))), split="train")
    random, rows, names = np.random.default_rng(len(split)), [], set()
    for i, row in enumerate(data.select(range(0, len(data), len(data) // ROWS[split]))):
        if kind != "identified" and row["text"] in names:
            continue
        names.add(row["text"])
        pixels, caption = drawing(row["image"]), row["text"]
        if kind == "identified":
            number = int(random.integers(len(WORDS)))
            pixels, caption = with_identifier(pixels, number), WORDS[number]
        elif kind == "noise":
            pixels = random.integers(0, 256, pixels.shape, dtype=np.uint8)
        rows.append({"image": PIL.Image.fromarray(pixels), "text": caption, "half": i % 2})
    return rows


def labelled_pairs(kind: str) -> LabelledSet:
    return labelled_rows({split: rows_of(kind, split) for split in ROWS})


def labelled_rows(splits: dict[str, list[dict]]) -> LabelledSet:
    captions = [{"text": row["text"]} for row in splits["train"]]
    texts = Text(train_tokenizer(open_source(captions, needed=("text",)), size=500), 16)
    return LabelledSet(splits, Inputs(Image(default_processor(SIDE)), texts, pair_label="text"), "half")
