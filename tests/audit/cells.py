"""Images of a grid of cells of one colour each, whose colours are known."""

import numpy as np
import PIL.Image
import torch

from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modules.lab import rgb_of

SIDE, GRID = 32, 4
CELL = SIDE // GRID
ROWS = {"train": 300, "validation": 100, "test": 150}
COLOURS = 6


def palette(lightness: list[float]) -> np.ndarray:
    """Colours of `COLOURS` hues, each with one lightness of Lab, uint8 `(COLOURS, 3)`."""
    angle = 2 * np.pi * np.arange(COLOURS) / COLOURS
    lab = np.stack([np.array(lightness), 28 * np.cos(angle), 28 * np.sin(angle)], 1)
    rgb = rgb_of(torch.tensor(lab, dtype=torch.float32)[:, :, None, None])[..., 0, 0]
    return (rgb * 255).round().byte().numpy()


EQUAL = palette([61] * COLOURS)  # the same grey
STEPS = palette(list(range(40, 40 + 6 * COLOURS, 6)))  # each hue has a grey of its own


def of_arrays(arrays: dict[str, np.ndarray]) -> LabelledSet:
    """A labelled set of images, uint8 `(n, SIDE, SIDE, 3)` of each split, with two labels that nothing depends on."""
    splits = {
        split: [{"image": PIL.Image.fromarray(image), "label": number % 2} for number, image in enumerate(images)]
        for split, images in arrays.items()
    }
    return LabelledSet(splits, Inputs(Image(default_processor(SIDE))), "label")


def of_cells(colours: np.ndarray, numbers: dict[str, np.ndarray]) -> LabelledSet:
    """A labelled set whose cells have colours by their numbers, `(n, GRID, GRID)`."""
    return of_arrays({split: colours[some].repeat(CELL, 1).repeat(CELL, 2) for split, some in numbers.items()})


def random_numbers(seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {split: random.integers(0, COLOURS, (rows, GRID, GRID)) for split, rows in ROWS.items()}
