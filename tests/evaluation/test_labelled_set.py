"""The labelled set: which rows are in it, what is left out, and what each encoder and the objective are given."""

import hashlib

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from captioned import NAMES, rows_of
from captioned import captioned as from_rows
from conftest import CONFIGS, EMOJI, REPOSITORY

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation import labelled_set as module
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.features import extract, pool
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Augmentation, Image, default_processor
from hf_pretext.modalities.text import Corpus, Text

SHAKESPEARE = str(REPOSITORY / "hf_pretext" / "samples" / "shakespeare")
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def tokenizer(cache):
    return train_tokenizer(open_source(str(EMOJI), needed=("text",)), size=500)


def images(side=16) -> Inputs:
    return Inputs(Image(default_processor(side), Augmentation()))


def pairs(tokenizer, side=8, length=12) -> Inputs:
    return Inputs(Image(default_processor(side), Augmentation()), Text(tokenizer, length), pair_label="text")


def digest(*batches) -> str:
    content = hashlib.blake2b(digest_size=8)
    for batch in batches:
        for name in sorted(batch):
            content.update(name.encode())
            content.update(np.ascontiguousarray(torch.as_tensor(batch[name]).numpy()).tobytes())
    return content.hexdigest()


def test_sets_are_bit_equal_to_recorded_ones(tokenizer):
    """The digests are of the classes that this one replaced."""
    some = LabelledSet(str(EMOJI), images(), "group", limit=90)
    assert digest(some.pixels, some.labels.splits) == "179044453023ee85"
    assert some.left_out == {"rows without a label": 3}
    some = LabelledSet(str(EMOJI), pairs(tokenizer, 16, 6), "group", limit=90, batch_size=32)
    texts = [{k: v for k, v in batch.items() if k != "pixel_values"} for batch in some.pretext_batches("test")]
    assert digest(some.pixels, some.labels.splits, *texts) == "ca5e2a5f38450af8"
    some = LabelledSet(SHAKESPEARE, Inputs(Corpus(tokenizer, 40)), "kind", limit=90)
    assert digest(some.labels.splits, *some.pretext_batches("test"), *some.batches("train")) == "f45f764c8886a886"


# images


@pytest.fixture(scope="module")
def labelled():
    return LabelledSet(str(EMOJI), images(), "group", limit=60)


def test_three_splits_and_classes_in_order(labelled):
    assert tuple(labelled.labels.splits) == SPLITS
    assert all(50 < len(y) <= 60 for y in labelled.labels.splits.values())  # some rows have no group
    assert labelled.labels.names == sorted(labelled.labels.names)
    pixels = torch.cat([batch["pixel_values"] for batch in labelled.batches("test")])
    assert pixels.shape == (60, 3, 16, 16) and labelled.pixels["test"].dtype == torch.uint8
    assert torch.equal(labelled.all_pixels("test"), labelled.pixels["test"])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_set_too_large_for_memory_gives_the_same_batches(labelled, monkeypatch, workers):
    monkeypatch.setattr(module, "KEPT_BYTES", 60 * 3 * 16 * 16)  # a split fits, all three do not
    streamed = LabelledSet(str(EMOJI), images(), "group", limit=60, batch_size=25, workers=workers)
    assert streamed.pixels is None
    batches = list(streamed.batches("test"))
    assert [len(b["pixel_values"]) for b in batches] == [25, 25, 10]
    kept = torch.cat([b["pixel_values"] for b in labelled.batches("test")])
    assert torch.equal(torch.cat([b["pixel_values"] for b in batches]), kept)


def test_bad_images_and_empty_labels_are_left_out_and_counted(emoji):
    rows = emoji(count=60).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:40]
    rows[7]["group"] = ""
    rows[8]["group"] = None
    found = LabelledSet(datasets.Dataset.from_list(rows, emoji(count=1).features), images(), "group")
    assert found.left_out == {"rows without a label": 2, "images that can't be read": 1}
    assert len(found) == 57
    for split, labels in found.labels.splits.items():
        assert len(labels) == sum(len(b["pixel_values"]) for b in found.batches(split)) == len(found.pixels[split])


def test_a_split_that_cannot_be_read_is_refused():
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    rows = [{"image": {"bytes": b"no image", "path": None}, "label": label} for label in "ab" * 10]
    with pytest.raises(ValueError, match="The train split of Dataset has no images that can be read"):
        LabelledSet(datasets.Dataset.from_list(rows, features), images())


def test_a_column_that_is_not_there_is_refused(emoji):
    with pytest.raises(ValueError, match=r"no column 'side' \(--eval_image_column\)"):
        LabelledSet(emoji(count=40), images(), "group", columns={"image": "side"})


def test_views_are_drawn_always_the_same():
    inputs = Inputs(Image(default_processor(16), Augmentation()), views={"image": 2})
    some = LabelledSet(str(EMOJI), inputs, "group", limit=20, batch_size=8)
    first, second = ([batch["pixel_values"] for batch in some.pretext_batches("test")] for _ in range(2))
    assert [tuple(batch.shape) for batch in first] == [(8, 2, 3, 16, 16)] * 2 + [(4, 2, 3, 16, 16)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0][:, 0], first[0][:, 1])
    assert next(iter(some.batches("test")))["pixel_values"].shape == (8, 3, 16, 16)


# images with captions


def of_rows(tokenizer, rows: list[dict]) -> LabelledSet:
    features = datasets.Features(
        {"image": datasets.Image(), "text": datasets.Value("string"), "colour": datasets.Value("string")}
    )
    data = datasets.DatasetDict({split: datasets.Dataset.from_list(rows, features) for split in SPLITS})
    return LabelledSet(data, pairs(tokenizer), "colour", batch_size=5)


def drawing(i: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (8, 8), (20 * i, 0, 0))


@pytest.fixture(scope="module")
def captioned(tokenizer):
    rows = [{"image": drawing(i), "text": name, "colour": name.split()[0]} for i, name in enumerate(NAMES)]
    same = {**rows[3], "text": " Green  BOX", "image": rows[3]["image"]}  # a further image of the same
    return of_rows(tokenizer, [*rows, same, {**rows[0], "text": None}, {**rows[0], "text": ""}])


def test_rows_without_a_caption_are_left_out(captioned):
    assert captioned.left_out == {"rows without a text": 6}
    assert captioned.captions("test") == captioned.texts("test") == [*NAMES, " Green  BOX"]


def test_images_without_a_label_are_kept_for_retrieval(tokenizer):
    rows = [{"image": drawing(i), "text": name, "colour": "ab"[i % 2]} for i, name in enumerate(NAMES)]
    for i in (2, 7, 9):
        rows[i]["colour"] = None
    some = of_rows(tokenizer, [*rows, {**rows[2], "text": None}])
    assert some.left_out == {
        "rows without a label": 3,  # of train
        "unlabelled rows, which only the retrieval metrics use": 6,
        "rows without a text": 3,
    }
    order = [i for i in range(12) if rows[i]["colour"]] + [2, 7, 9]
    assert some.captions("test") == [NAMES[i] for i in order]
    assert some.texts("test") == [NAMES[i] for i in order[:9]]
    assert some.all_pixels("test")[:, 0, 0, 0].tolist() == [20 * i for i in order]
    assert [len(batch["pixel_values"]) for batch in some.all_batches("test")] == [5, 4, 3]
    assert [len(batch["input_ids"]) for batch in some.all_batches("test", "text")] == [5, 4, 3]
    assert [len(some.labels.splits[split]) for split in SPLITS] == [9, 9, 9]
    batches = list(some.pretext_batches("test"))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 4] == [len(b["input_ids"]) for b in batches]
    alone = LabelledSet(
        datasets.Dataset.from_list([{"text": name, "label": name.split()[0]} for name in NAMES]),
        Inputs(Corpus(tokenizer, 12)),
    )
    assert not alone.keeps_captions


def test_images_without_a_label_that_cannot_be_read_are_left_out(tokenizer):
    rows = [{"image": drawing(i), "text": name, "colour": "ab"[i % 2]} for i, name in enumerate(NAMES)]
    broken = {"image": {"bytes": b"no image", "path": None}, "text": "none", "colour": None}
    some = of_rows(tokenizer, [*rows, broken])
    assert some.left_out == {"rows without a label": 1, "images that can't be read": 2}
    assert some.captions("test") == NAMES


def test_splits_that_a_set_lacks_are_cut_of_labelled_rows_alone(tokenizer):
    rows = rows_of(["a", "b"] * 6)
    others = [{**row, "colour": None} for row in rows]
    some, all_ = (from_rows(tokenizer, given, ["train"]) for given in (rows, [*rows, *others]))
    for split in SPLITS:
        assert all_.captions(split) == some.captions(split)
    assert all_.left_out == {"rows without a label": 12}
    as_test = from_rows(tokenizer, [*rows, others[2]], ["train", "validation"])
    assert as_test.captions("test") == [*NAMES, NAMES[2]]
    assert len(as_test.captions("validation")) == 1  # of train


def test_batches_carry_captions_in_the_order_of_the_images(captioned, tokenizer):
    batches = captioned.pretext_batches("test")
    assert len(batches) == 3 == len(list(batches))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 5, 3] == [len(b["input_ids"]) for b in batches]
    decoded = [text for batch in batches for text in tokenizer.batch_decode(batch["input_ids"], True)]
    assert decoded == [" ".join(text.lower().split()) for text in captioned.captions("test")]
    first, _, last = (batch["labels"] for batch in batches)
    assert last[-1] == first[3]  # they read the same


def test_a_set_without_captions_is_refused(tokenizer):
    with pytest.raises(ValueError, match=r"no column 'caption' \(--eval_text_column\)"):
        LabelledSet(str(EMOJI), pairs(tokenizer), "group", columns={"text": "caption"}, limit=8)


# texts alone


@pytest.fixture(scope="module")
def texts(tokenizer):
    return LabelledSet(SHAKESPEARE, Inputs(Corpus(tokenizer, 40)), "kind", limit=60)


def test_texts_and_labels_stay_together(texts, tokenizer):
    rows = datasets.load_dataset("json", data_files=f"{SHAKESPEARE}/test.jsonl", split="train")
    kinds = {row["text"]: row["kind"] for row in rows}
    assert texts.labels.names == ["comedy", "sonnets", "tragedy"]
    labels = [texts.labels.names[i] for i in texts.labels.splits["test"]]
    assert labels == [kinds[text] for text in texts.texts("test")]
    ids = torch.cat([batch["input_ids"] for batch in texts.batches("test")])
    first = tokenizer(texts.texts("test")[0], truncation=True, max_length=40)["input_ids"]
    assert ids[0, : len(first)].tolist() == first


def test_batches_are_of_like_length_and_features_those_of_each_text_alone(texts, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 200)
    config = CONFIGS["bert"]()
    config.vocab_size = len(tokenizer)
    encoder, batches = build_encoder(config).eval(), texts.batches("test")
    assert len(batches) == len(list(batches)) > 5
    assert all(batch["input_ids"].numel() <= 200 for batch in batches)
    together = extract(encoder, batches, description=None)[-1]
    for i in (0, 20, len(together) - 1):
        alone = tokenizer(texts.texts("test")[i], truncation=True, max_length=40, return_tensors="pt")
        with torch.no_grad():
            expected = pool(encoder(alone["input_ids"]).last_hidden_state)
        torch.testing.assert_close(together[i : i + 1], expected, atol=1e-5, rtol=1e-4)


def test_what_an_objective_needs_of_a_text(texts, tokenizer):
    (batch,) = texts.pretext_batches("validation")
    text, size = texts.texts("validation")[-1], int(batch["num_bytes"][-1])
    decoded = text.encode()[:size].decode()  # the part that its tokens stand for
    assert tokenizer(decoded)["input_ids"] == batch["input_ids"][-1].tolist()
    assert size < len(text.encode()) and batch["word_starts"][-1][:2].all()


def test_blank_texts_and_missing_labels_are_left_out_and_counted(tokenizer):
    data = datasets.Dataset.from_dict(
        {"text": ["a b", " ", None, "c"] * 10, "label": ["x", "y", "x", None] * 5 + ["y"] * 20}
    )
    found = LabelledSet(data, Inputs(Corpus(tokenizer, 10)))
    assert found.left_out == {"rows without a label": 5, "texts that can't be read": 20}
    assert len(found) == 15
