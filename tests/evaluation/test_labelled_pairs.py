"""Labelled pictures with captions: what a model that knows everything, or nothing, is found to be worth."""

import datasets
import pytest
import torch
import torch.nn.functional as F
from conftest import EMOJI, Processor
from PIL import Image
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_pretext.data.pairs import PairProcessing
from hf_pretext.data.processing import ImageProcessing, default_processor
from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.evaluation.labelled_pairs import LabelledPairs, chance_figures, pair_figures

NAMES = [f"{colour} {shape}" for colour in ("red", "green", "blue", "grey") for shape in ("box", "bar", "dot")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> PreTrainedTokenizerFast:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path_factory.mktemp("home")))
        yield train_tokenizer(open_source([{"text": name} for name in NAMES], needed=("text",)), size=60)


def labelled_pairs(tokenizer, rows: list[dict], splits=("train", "validation", "test")) -> LabelledPairs:
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "colour": datasets.Value("string")}
    )
    data = datasets.DatasetDict({split: datasets.Dataset.from_list(rows, features) for split in splits})
    processing = PairProcessing(ImageProcessing(default_processor(8)), Processor(tokenizer), 12)
    return LabelledPairs(data, processing, "colour", batch_size=5)


@pytest.fixture(scope="module")
def labelled(tokenizer):
    rows = [
        {"image": Image.new("RGB", (8, 8), (20 * i, 0, 0)), "text": name, "colour": name.split()[0]}
        for i, name in enumerate(NAMES)
    ]
    again = {**rows[3], "text": " Green  BOX", "image": rows[3]["image"]}  # another picture of the same
    return labelled_pairs(tokenizer, [*rows, again, {**rows[0], "text": None}, {**rows[0], "text": ""}])


class Knowing(nn.Module):
    """Reads a picture's name off its red, and knows which colours a text speaks of."""

    capabilities = ("embed",)

    def __init__(self, tokenizer):
        super().__init__()
        self.names = [tokenizer(name)["input_ids"] for name in NAMES]

    def vector(self, ids: list[int]) -> torch.Tensor:
        vector = torch.zeros(100)
        vector[ids] = 1.0
        return vector

    def embed(self, kind, **batch):
        return self.embed_images(**batch) if kind == "image" else self.embed_texts(**batch)

    def embed_images(self, pixel_values):
        numbers = ((pixel_values[:, 0, 0, 0] + 1) * 127.5 / 20).round().long()
        return F.normalize(torch.stack([self.vector(self.names[i]) for i in numbers.tolist()]), dim=1)

    def embed_texts(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        return F.normalize(
            torch.stack(
                [self.vector(ids[mask.bool()].tolist()) for ids, mask in zip(input_ids, attention_mask, strict=True)]
            ),
            dim=1,
        )


def test_rows_without_a_caption_are_left_out(labelled):
    assert labelled.left_out == {"rows without a text": 6}
    assert labelled.captions("test") == [*NAMES, " Green  BOX"]


def test_pictures_without_a_label_are_found_and_find_but_are_not_told_apart(tokenizer):
    rows = [
        {"image": Image.new("RGB", (8, 8), (20 * i, 0, 0)), "text": name, "colour": "ab"[i % 2]}
        for i, name in enumerate(NAMES)
    ]
    for i in (2, 7, 9):
        rows[i]["colour"] = None
    some = labelled_pairs(tokenizer, [*rows, {**rows[2], "text": None}])
    assert some.left_out == {
        "rows without a label": 3,  # of train
        "rows without a label, but for retrieval within their split": 6,
        "rows without a text": 3,
    }
    order = [i for i in range(12) if rows[i]["colour"]] + [2, 7, 9]
    assert some.captions("test") == [NAMES[i] for i in order]
    assert some.all_pixels("test")[:, 0, 0, 0].tolist() == [20 * i for i in order]
    figures = pair_figures(Knowing(tokenizer), some, ["{}"])
    assert figures["image_to_text_r1"] == figures["text_to_image_r1"] == 1.0
    assert chance_figures(some)["image_to_text_r1"] == pytest.approx(1 / 12)  # among all names
    assert [len(some.labels.splits[split]) for split in ("train", "validation", "test")] == [9, 9, 9]
    batches = list(some.pretext_batches("test"))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 4] == [len(b["input_ids"]) for b in batches]


def test_splits_that_a_set_lacks_are_cut_of_labelled_pictures_alone(tokenizer):
    rows = [
        {"image": Image.new("RGB", (8, 8), (20 * i, 0, 0)), "text": name, "colour": "ab"[i % 2]}
        for i, name in enumerate(NAMES)
    ]
    others = [{**row, "colour": None} for row in rows]
    some, all_ = (labelled_pairs(tokenizer, given, ["train"]) for given in (rows, [*rows, *others]))
    for split in ("train", "validation", "test"):
        assert all_.captions(split) == some.captions(split)
    assert all_.left_out == {"rows without a label": 12}
    as_test = labelled_pairs(tokenizer, [*rows, others[2]], ["train", "validation"])
    assert as_test.captions("test") == [*NAMES, NAMES[2]]
    assert len(as_test.captions("validation")) == 1  # of train


def test_pictures_without_a_label_that_cannot_be_read_are_left_out(tokenizer):
    rows = [
        {"image": Image.new("RGB", (8, 8), (20 * i, 0, 0)), "text": name, "colour": "ab"[i % 2]}
        for i, name in enumerate(NAMES)
    ]
    broken = {"image": {"bytes": b"no picture", "path": None}, "text": "none", "colour": None}
    some = labelled_pairs(tokenizer, [*rows, broken])
    assert some.left_out == {"rows without a label": 1, "pictures that can't be read": 2}
    assert some.captions("test") == NAMES


def test_batches_carry_captions_in_the_order_of_the_pictures(labelled):
    batches = list(labelled.pretext_batches("test"))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 5, 3] == [len(b["input_ids"]) for b in batches]
    assert len(labelled.pretext_batches("test")) == 3
    decoded = [text for batch in batches for text in labelled.pairs.tokenizer.batch_decode(batch["input_ids"], True)]
    assert decoded == [*NAMES, "green box"]
    assert batches[2]["labels"][-1] == batches[0]["labels"][3]


def test_a_model_that_knows_finds_everything(labelled, tokenizer):
    figures = pair_figures(Knowing(tokenizer), labelled, ["{}"])
    assert figures["image_to_text_r1"] == figures["text_to_image_r1"] == 1.0
    assert figures["zero_shot_top1"] == figures["zero_shot_mean_class"] == 1.0
    assert figures["image_to_text_median_rank"] == 1.0


def test_a_model_that_gives_all_the_same_finds_nothing(labelled, tokenizer):
    class Same(Knowing):
        def vector(self, ids):
            return torch.ones(100)

    figures = pair_figures(Same(tokenizer), labelled, ["{}"])
    assert figures["image_to_text_r1"] == figures["image_to_text_r10"] == figures["zero_shot_top1"] == 0.0


def test_chance_has_the_same_names(labelled, tokenizer):
    chance = chance_figures(labelled)
    figures = pair_figures(Knowing(tokenizer), labelled, ["{}"])
    assert chance.keys() == {name for name in figures if not name.endswith("left_out")}
    assert chance["image_to_text_r1"] == pytest.approx(1 / 12)
    assert chance["zero_shot_top1"] == 0.25


def test_a_set_without_captions_is_refused(tokenizer):
    processing = PairProcessing(ImageProcessing(default_processor(8)), Processor(tokenizer), 12)
    with pytest.raises(ValueError, match=r"no column 'caption' \(--eval_text_column\)"):
        LabelledPairs(str(EMOJI), processing, "group", text_column="caption", limit=8)
