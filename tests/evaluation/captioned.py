"""A labelled set of images with captions, and models that know all of it, for the tests of measures."""

import datasets
import torch
import torch.nn.functional as F
from PIL import Image as PillowImage
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modalities.text import Text

NAMES = [f"{colour} {shape}" for colour in ("red", "green", "blue", "grey") for shape in ("box", "bar", "dot")]
WIDTH = 100  # of embeddings: more than there are tokens


def image_of(number: int) -> PillowImage.Image:
    """The image of a name: the more red, the later it stands in `NAMES`."""
    return PillowImage.new("RGB", (8, 8), (20 * number, 0, 0))


def number_of(pixel_values: torch.Tensor) -> list[int]:
    """Where the names of normalised images (`(B, 3, 8, 8)`) stand in `NAMES`."""
    return ((pixel_values[:, 0, 0, 0] + 1) * 127.5 / 20).round().long().tolist()


def rows_of(colours: list[str | None] | None = None) -> list[dict]:
    """A row for each name, its label the colour in it, or the one given."""
    colours = colours or [name.split()[0] for name in NAMES]
    return [{"image": image_of(i), "text": name, "colour": colours[i]} for i, name in enumerate(NAMES)]


def tokenizer_of_names() -> PreTrainedTokenizerFast:
    return train_tokenizer(open_source([{"text": name} for name in NAMES], needed=("text",)), size=60)


def captioned_inputs(tokenizer: PreTrainedTokenizerFast) -> Inputs:
    return Inputs(Image(default_processor(8)), Text(tokenizer, 12), pair_label="text")


def captioned(tokenizer, rows: list[dict] | None = None, splits=("train", "validation", "test")) -> LabelledSet:
    """The labelled set of rows, the same ones in each split; default: each name, one with a second image of it."""
    rows = [*rows_of(), {**rows_of()[3], "text": " Green  BOX"}] if rows is None else rows
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "colour": datasets.Value("string")}
    )
    data = datasets.DatasetDict({split: datasets.Dataset.from_list(rows, features) for split in splits})
    return LabelledSet(data, captioned_inputs(tokenizer), "colour", batch_size=5)


class Knowing(nn.Module):
    """Reads an image's name off its red, so that it embeds an image and its caption alike."""

    inputs = ("image", "text")
    capabilities = ("embed",)
    match_is_cosine = False

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__()
        self.names = [tokenizer(name)["input_ids"] for name in NAMES]

    def vector(self, ids: list[int]) -> torch.Tensor:
        vector = torch.zeros(WIDTH)
        vector[ids] = 1.0
        return vector

    def embed(self, kind: str, **batch: torch.Tensor) -> torch.Tensor:
        return F.normalize(torch.stack(self.image(**batch) if kind == "image" else self.text(**batch)), dim=1)

    def image(self, pixel_values):
        return [self.vector(self.names[i]) for i in number_of(pixel_values)]

    def text(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        return [self.vector(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
