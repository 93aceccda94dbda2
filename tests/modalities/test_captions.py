"""Pictures with captions: which text is drawn, what is padded and cut, and which pairs are the same."""

import collections
import io

import numpy as np
import pytest
import torch
from conftest import Processor
from hf_pretext.data.pairs import Captions, PairProcessing, holds_captions, label_number, part_of
from hf_pretext.data.processing import ImageProcessing
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPImageProcessor, PreTrainedTokenizerFast

from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.stream.collate import collate
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.stream.settings import Augmentation, PairArguments
from hf_pretext.utils.settings import make_settings

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "square", "circle", "one", "two", "three"]
CAPTIONS = ["red square", "green circle one two three", "blue", "two red circle"]


@pytest.fixture(scope="module")
def processor():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["input_ids", "attention_mask"]
    return Processor(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names
        )
    )


def picture(level: int = 0) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (level, 255 - level, 99)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def pairs(processor, length=8, augmentation=None, **options) -> PairProcessing:
    images = ImageProcessing(processor.image_processor, augmentation)
    assert isinstance(images.processor, CLIPImageProcessor)
    return PairProcessing(images, processor, length, **options)


def test_either_alone_is_as_its_row_has_it(processor):
    drawn = pairs(processor, augmentation=Augmentation(horizontal_flip=0.0))
    random = np.random.default_rng(0)
    assert set(drawn({"image": picture(), "key": "a:0"}, random)) == {"pixel_values", "colors"}
    text = drawn({"text": "red square", "key": "b:0"}, random)
    assert text["input_ids"].tolist() == [2, 5] and set(text) == {"input_ids", "attention_mask", "cut"}
    batch = drawn.finish(collate([text], fills=drawn.fills))
    assert set(batch) == {"input_ids", "attention_mask"} and drawn.cut == 0
    with pytest.raises(BadSample):
        drawn({"text": "  ", "key": "b:1"}, random)


def test_of_a_long_text_a_part_is_drawn_that_begins_at_a_word():
    words = [f"w{i:03d}" for i in range(400)]
    text, random = " ".join(words), np.random.default_rng(0)
    found = [part_of(text, 100, random).split() for _ in range(300)]
    assert all(part[0] in words and len(" ".join(part)) >= 90 for part in found)
    starts = np.array([words.index(part[0]) for part in found])
    assert starts.min() < 20 and starts.max() > 360 and abs(starts.mean() - 190) < 25
    assert part_of(text, 100, None) == text[:400]
    assert part_of("short text", 100, random) == "short text"
    assert len(part_of("x" * 5000, 100, random)) >= 100  # of a language without spaces


ROW = {"text": "blue", "keywords": ["a", "b", "c", ""], "names": {"de": "blau", "fr": "bleu", "xx": None}}


def test_captions_are_drawn_as_often_as_is_said():
    draw, random = Captions(["keywords", "names"], [0.5, 0.25, 0.25]), np.random.default_rng(0)
    found = collections.Counter(draw(ROW, random) for _ in range(4000))
    assert found["blue"] == pytest.approx(2000, abs=100)
    assert found["blau"] == pytest.approx(500, abs=75)
    assert found["bleu"] == pytest.approx(500, abs=75)
    keywords = [text for text in found if set(text.split()) <= {"a", "b", "c"}]
    assert len(keywords) == 3 + 6 + 6  # one, two or three of them, in any order
    assert sum(found[text] for text in keywords) == pytest.approx(1000, abs=100)


def test_evaluation_and_rows_without_others_see_the_caption_itself():
    draw = Captions(["keywords", "names"], [0, 1, 1])
    assert draw(ROW, None) == "blue"
    assert draw({"text": "blue", "keywords": [], "names": None}, np.random.default_rng(0)) == "blue"
    with pytest.raises(BadSample, match="blank text"):
        draw({**ROW, "text": " "}, np.random.default_rng(0))
    with pytest.raises(BadSample, match="no text but NoneType"):
        draw({**ROW, "text": None}, None)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="caption_weights needs 2 numbers"):
        make_settings(PairArguments, other_captions=["keywords"], caption_weights=weights)


def test_columns_that_can_hold_captions():
    import datasets

    assert holds_captions(datasets.Value("string"))
    assert holds_captions(datasets.List(datasets.Value("string")))
    assert holds_captions({"de": datasets.Value("string"), "fr": datasets.Value("string")})
    assert not holds_captions(datasets.Value("int64"))
    assert not holds_captions(datasets.List(datasets.Value("float32")))
    assert not holds_captions(datasets.Image())


def test_labels_are_equal_where_captions_read_the_same():
    assert label_number("Red  Square ") == label_number("red square") != label_number("red squares")
    assert label_number("red square") == 4012484151335605394  # in every process
    assert label_number(3) != label_number(4)
    assert torch.tensor([label_number(str(i)) for i in range(1000)]).unique().numel() == 1000


def test_texts_are_padded_to_the_longest_of_the_batch(processor):
    batch = pairs(processor).texts(CAPTIONS)
    assert batch["input_ids"].tolist() == [[2, 5, 0, 0, 0], [3, 6, 7, 8, 9], [4, 0, 0, 0, 0], [8, 2, 6, 0, 0]]
    assert batch["attention_mask"].tolist() == (batch["input_ids"] != 0).long().tolist()
    assert pairs(processor, fixed=True).texts(CAPTIONS)["input_ids"].shape == (4, 8)


def test_longer_captions_are_cut_and_counted(processor):
    processing = pairs(processor, length=3)
    examples = [processing({"image": picture(), "text": text}, None) for text in CAPTIONS]
    batch = processing.finish(collate(examples, fills=processing.fills))
    assert batch["input_ids"].tolist() == [[2, 5, 0], [3, 6, 7], [4, 0, 0], [8, 2, 6]]
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask", "labels"}
    assert int(processing.cut) == 1


def test_pairs_with_the_same_label_column_are_the_same(processor):
    rows = [
        {"image": picture(), "text": text, "kind": kind} for text, kind in zip(CAPTIONS, [1, 2, 1, None], strict=True)
    ]
    processing = pairs(processor, pair_label="kind")
    labels = [processing(row, None)["labels"] for row in rows[:3]]
    assert labels[0] == labels[2] != labels[1]
    with pytest.raises(BadSample, match="--pair_label"):
        processing(rows[3], None)


def test_workers_pad_as_the_training_process_does(processor):
    rows = [{"image": picture(i), "text": CAPTIONS[i % 4], "keywords": ["one", "two"]} for i in range(24)]
    source = open_source(rows, columns={"keywords": "keywords"}, needed=("image", "text", "keywords"))

    def batches(workers: int) -> list[dict]:
        processing = pairs(processor, augmentation=Augmentation(), captions=Captions(["keywords"]))
        loader = StreamLoader(source, processing, 4, seed=3, num_workers=workers)
        found = [processing.finish(batch) for batch in loader]
        loader.close()
        return found

    alone, with_workers = batches(0), batches(2)
    assert len(alone) == 6
    assert len({batch["input_ids"].shape[1] for batch in alone}) > 1
    for one, other in zip(alone, with_workers, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
