"""Numbered rows and what streams them, for the tests of the stream."""

import datasets
import numpy as np
import torch
from PIL import Image

from hf_pretext.data.decoding import BadSample, to_image
from hf_pretext.data.sources import open_source
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.settings import StreamSettings

ROWS = 101


def numbered(pieces: int = 5, rows: int = ROWS, first: int = 0):
    """A source whose images' first pixel is the row's number."""
    images = [Image.fromarray(np.full((4, 4, 3), i, np.uint8)) for i in range(first, first + rows)]
    data = datasets.Dataset.from_dict({"image": images}, datasets.Features({"image": datasets.Image()}))
    return open_source(data.to_iterable_dataset(num_shards=pieces) if pieces else data)


class Number:
    """Row -> its number, and a draw from its generator. Module level, so that workers can be given it."""

    def __init__(self, bad=()):
        self.bad = bad

    def __call__(self, row, random):
        number = int(to_image(row["image"])[0, 0, 0])
        if number in self.bad:
            raise BadSample("broken on purpose: truly")
        return {"number": torch.tensor(number), "draw": random.random()}


def batches(count, source=None, process=None, **options):
    options = {"batch_size": 8, "seed": 3, **options}
    loader = StreamLoader(numbered() if source is None else source, process or Number(), **options)
    outcome = []
    while len(outcome) < count:
        outcome += [batch for _, batch in zip(range(count - len(outcome)), loader, strict=False)]
    loader.close()
    return outcome, loader


def numbers(outcome) -> list[int]:
    return torch.cat([batch["number"] for batch in outcome]).tolist()


def lenient(**options):
    return StreamSettings(max_bad_fraction=1.0, **options)


class Words(Number):
    """Row {"text": "7 ..."} -> its number."""

    def __call__(self, row, random):
        number = int(row["text"].split()[0])
        if number in self.bad:
            raise BadSample("broken on purpose: truly")
        return {"number": torch.tensor(number)}


class Counter:
    """A plain iterable of images, 50 long; nobody knows."""

    def __iter__(self):
        return ({"image": Image.fromarray(np.full((4, 4, 3), i, np.uint8))} for i in range(50))
