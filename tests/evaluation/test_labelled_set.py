"""The labelled set: images, texts, and images with captions; what is left out of it, and in what order it comes."""

import datasets
import pytest
import torch
from captioned import NAMES, captioned, captioned_inputs, rows_of, tokenizer_of_names
from conftest import CONFIGS, EMOJI, REPOSITORY

from hf_pretext.data.sources import open_source
from hf_pretext.data.tokenizer import train_tokenizer
from hf_pretext.encoders import build_encoder
from hf_pretext.evaluation import labelled_set as module
from hf_pretext.evaluation.labelled_set import LabelledSet
from hf_pretext.features import extract, pool
from hf_pretext.modalities import Inputs
from hf_pretext.modalities.image import Image, default_processor
from hf_pretext.modalities.text import Corpus

SHAKESPEARE = str(REPOSITORY / "recipes" / "data" / "shakespeare")
AB = ["a", "b"] * 6


def labelled_images(data=str(EMOJI), limit=None, **options):
    return LabelledSet(data, Inputs(Image(default_processor(16))), "group", limit=limit, **options)


@pytest.fixture(scope="module")
def images():
    return labelled_images(limit=60)


# images


def test_images_have_three_splits_and_classes_in_order(images):
    assert list(images.labels.splits) == ["train", "validation", "test"]
    assert all(50 < len(y) <= 60 for y in images.labels.splits.values())  # some rows have no group
    assert images.labels.names == sorted(images.labels.names)
    pixels = torch.cat([batch["pixel_values"] for batch in images.batches("test")])
    assert pixels.shape == (60, 3, 16, 16)


def test_a_set_too_large_for_memory_gives_the_same_batches(images, monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    streamed = labelled_images(limit=60, batch_size=25)
    assert streamed.pixels is None
    batches = list(streamed.batches("test"))
    assert [len(b["pixel_values"]) for b in batches] == [25, 25, 10]
    kept = torch.cat([b["pixel_values"] for b in images.batches("test")])
    assert torch.equal(torch.cat([b["pixel_values"] for b in batches]), kept)


def test_bad_images_and_empty_labels_are_left_out_and_counted(emoji):
    rows = emoji(count=60).cast_column("image", datasets.Image(decode=False)).to_list()
    rows[3]["image"]["bytes"] = rows[3]["image"]["bytes"][:40]
    rows[7]["group"] = ""
    rows[8]["group"] = None
    labelled = labelled_images(datasets.Dataset.from_list(rows, emoji(count=1).features))
    assert labelled.left_out == {"rows without a label": 2, "images that can't be read": 1}
    assert len(labelled) == 57
    for split, labels in labelled.labels.splits.items():
        assert len(labels) == sum(len(b["pixel_values"]) for b in labelled.batches(split))


# texts


@pytest.fixture(scope="module")
def tokenizer(cache):
    return train_tokenizer(open_source(SHAKESPEARE, needed=("text",)), size=50)


@pytest.fixture(scope="module")
def texts(tokenizer):
    return LabelledSet(SHAKESPEARE, Inputs(Corpus(tokenizer, 40)), "kind", limit=60)


def test_texts_and_labels_stay_together(texts, tokenizer):
    rows = datasets.load_dataset("json", data_files=f"{SHAKESPEARE}/test.jsonl", split="train")
    kinds = {row["text"]: row["kind"] for row in rows}
    assert texts.labels.names == ["comedy", "sonnets", "tragedy"]
    names = [texts.labels.names[i] for i in texts.labels.splits["test"]]
    assert names == [kinds[text] for text in texts.texts("test")]
    ids = torch.cat([batch["input_ids"] for batch in texts.batches("test")])
    first = tokenizer(texts.texts("test")[0], truncation=True, max_length=40)["input_ids"]
    assert ids[0, : len(first)].tolist() == first


def test_batches_are_of_like_length_and_features_those_of_each_text_alone(texts, tokenizer, monkeypatch):
    monkeypatch.setattr(module, "BATCH_TOKENS", 200)
    encoder = build_encoder(CONFIGS["bert"]()).eval()
    batches = texts.batches("test")
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
    labelled = LabelledSet(data, Inputs(Corpus(tokenizer, 10)))
    assert labelled.left_out == {"rows without a label": 5, "texts that can't be read": 20}
    assert len(labelled) == 15


# images with captions


@pytest.fixture(scope="module")
def names(cache):
    return tokenizer_of_names()


def test_rows_without_a_caption_are_left_out(names):
    rows = rows_of()
    labelled = captioned(names, [*rows, {**rows[0], "text": None}, {**rows[0], "text": ""}])
    assert labelled.left_out == {"rows without a text": 6}
    assert labelled.captions("test") == NAMES


def test_rows_without_a_label_come_after_those_that_are_classified(names):
    rows = rows_of([None if i in (2, 7, 9) else label for i, label in enumerate(AB)])
    labelled = captioned(names, [*rows, {**rows[2], "text": None}])
    assert labelled.left_out == {
        "rows without a label": 3,  # of train
        "rows without a label, but for retrieval within their split": 6,
        "rows without a text": 3,
    }
    order = [i for i in range(12) if rows[i]["colour"]] + [2, 7, 9]
    assert labelled.captions("test") == [NAMES[i] for i in order]
    assert labelled.all_pixels("test")[:, 0, 0, 0].tolist() == [20 * i for i in order]
    assert [len(labelled.labels.splits[split]) for split in ("train", "validation", "test")] == [9, 9, 9]
    batches = list(labelled.pretext_batches("test"))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 4] == [len(b["input_ids"]) for b in batches]


def test_splits_that_a_set_lacks_are_cut_of_labelled_rows_alone(names):
    rows = rows_of(AB)
    others = [{**row, "colour": None} for row in rows]
    some, all_ = (captioned(names, given, ["train"]) for given in (rows, [*rows, *others]))
    for split in ("train", "validation", "test"):
        assert all_.captions(split) == some.captions(split)
    assert all_.left_out == {"rows without a label": 12}
    as_test = captioned(names, [*rows, others[2]], ["train", "validation"])
    assert as_test.captions("test") == [*NAMES, NAMES[2]]
    assert len(as_test.captions("validation")) == 1  # of train


def test_rows_without_a_label_that_cannot_be_read_are_left_out(names):
    broken = {"image": {"bytes": b"no image", "path": None}, "text": "none", "colour": None}
    labelled = captioned(names, [*rows_of(AB), broken])
    assert labelled.left_out == {"rows without a label": 1, "images that can't be read": 2}
    assert labelled.captions("test") == NAMES


def test_batches_carry_captions_in_the_order_of_the_images(names):
    labelled = captioned(names)
    batches = list(labelled.pretext_batches("test"))
    assert [len(batch["pixel_values"]) for batch in batches] == [5, 5, 3] == [len(b["input_ids"]) for b in batches]
    assert len(labelled.pretext_batches("test")) == 3
    decoded = [text for batch in batches for text in names.batch_decode(batch["input_ids"], True)]
    assert decoded == [*NAMES, "green box"]
    assert batches[2]["labels"][-1] == batches[0]["labels"][3]


def test_a_set_without_captions_is_refused(names):
    with pytest.raises(ValueError, match=r"no column 'caption' \(--eval_text_column\)"):
        LabelledSet(str(EMOJI), captioned_inputs(names), "group", {"text": "caption"}, limit=8)
