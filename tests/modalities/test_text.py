"""Captions of images: choice of the caption, padding, truncation and pair labels."""

import collections
import io

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    CLIPTextConfig,
    PreTrainedTokenizerFast,
    SiglipTextConfig,
    SiglipTextModel,
)

from hf_pretext.data.captions import Captions, distinct_captions, label_number, part_of
from hf_pretext.data.columns import holds_captions
from hf_pretext.data.decoding import BadSample
from hf_pretext.data.sources import open_source
from hf_pretext.encoders import build_encoder
from hf_pretext.modalities import Context, Inputs
from hf_pretext.modalities.image import Augmentation, default_processor
from hf_pretext.modalities.image import Image as ImageModality
from hf_pretext.modalities.text import CaptionArguments, Sentences, Text, TextArguments
from hf_pretext.stream.collate import collate
from hf_pretext.stream.loader import StreamLoader
from hf_pretext.utils.settings import make_settings

WORDS = ["[PAD]", "[UNK]", "red", "green", "blue", "square", "circle", "one", "two", "three"]
CAPTIONS = ["red square", "green circle one two three", "blue", "two red circle"]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", model_input_names=names
    )


def image(level: int = 0) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (level, 255 - level, 99)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def pairs(tokenizer, length=8, augmentation=None, label="text", **options) -> Inputs:
    images = ImageModality(default_processor(16), augmentation)
    return Inputs(images, Text(tokenizer, length, **options), pair_label=label)


def test_either_alone_is_as_its_row_has_it(tokenizer):
    drawn = pairs(tokenizer, augmentation=Augmentation(horizontal_flip=0.0))
    random = np.random.default_rng(0)
    assert set(drawn({"image": image(), "key": "a:0"}, random)) == {"pixel_values", "colors"}
    text = drawn({"text": "red square", "key": "b:0"}, random)
    assert text["input_ids"].tolist() == [2, 5] and set(text) == {"input_ids", "attention_mask", "cut"}
    long = drawn({"text": "red square " * 99, "key": "b:2"}, random)
    batch = drawn.finish(collate([text, long], fills=drawn.fills))
    assert set(batch) == {"input_ids", "attention_mask"} and batch["input_ids"].shape == (2, 8)
    assert drawn.by_name["text"].cut == 0  # other epochs use other parts
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
    assert len(part_of("x" * 5000, 100, random)) >= 100  # a language without spaces


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
    with pytest.raises(BadSample, match="text is NoneType"):
        draw({**ROW, "text": None}, None)


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0]])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(ValueError, match="caption_weights needs 2 numbers"):
        make_settings(CaptionArguments, other_captions=["keywords"], caption_weights=weights)


@pytest.mark.parametrize("languages", [["es", "es"], ["es fr"], [""]])
def test_languages_that_do_not_fit_are_refused(languages):
    with pytest.raises(ValueError, match="caption_languages must be different names of letters and digits"):
        make_settings(CaptionArguments, other_captions=["names"], caption_languages=languages)
    with pytest.raises(ValueError, match="needs a column with texts by language. Name it in other_captions"):
        make_settings(CaptionArguments, caption_languages=["es"])


def test_a_language_has_one_token_of_its_own(tokenizer, tmp_path, cache):
    captions = make_settings(CaptionArguments, other_captions=["names"], caption_languages=["es", "fr"])
    options = {TextArguments: make_settings(TextArguments, vocab_size=40), CaptionArguments: captions}
    source = distinct_captions([(open_source([{"text": "un escudo"}], needed=("text",)), ("text",))])
    text = Text.from_options(options, Context(texts=lambda: source))
    text.tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    spanish, french = saved.convert_tokens_to_ids(["[es]", "[fr]"])
    row = {"image": b"", "text": "un", "other_captions/names": {"es": "un escudo", "de": "ein Schild"}}
    drawn = {tuple(text(row, np.random.default_rng(seed))["input_ids"].tolist()) for seed in range(9)}
    tokens = saved("un escudo")["input_ids"]
    assert drawn == {(tokens[0], spanish, *tokens[1:]), tuple(saved("un")["input_ids"])}
    assert len({spanish, french, saved.unk_token_id}) == 3
    assert saved.decode([spanish, *tokens], skip_special_tokens=True) == "un escudo"
    plain = Text.from_options({**options, CaptionArguments: CaptionArguments()}, Context(texts=lambda: source))
    assert len(text.tokenizer) == len(plain.tokenizer) + 2  # another tokenizer in the cache
    tokenizer.save_pretrained(tmp_path / "brought")
    brought = {**options, TextArguments: make_settings(TextArguments, tokenizer=str(tmp_path / "brought"))}
    with pytest.raises(ValueError, match=r"has no token \[es\], \[fr\]. Leave --tokenizer out"):
        Text.from_options(brought, Context())


def test_columns_that_can_hold_captions():
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


def test_texts_are_padded_to_the_longest_of_the_batch(tokenizer):
    batch = Text(tokenizer, 8).batch(CAPTIONS)
    assert batch["input_ids"].tolist() == [[2, 5, 0, 0, 0], [3, 6, 7, 8, 9], [4, 0, 0, 0, 0], [8, 2, 6, 0, 0]]
    assert batch["attention_mask"].tolist() == (batch["input_ids"] != 0).long().tolist()
    assert Text(tokenizer, 8, padded=True).batch(CAPTIONS)["input_ids"].shape == (4, 8)


def test_longer_captions_are_cut_and_counted(tokenizer):
    processing = pairs(tokenizer, length=3)
    examples = [processing({"image": image(), "text": text}, None) for text in CAPTIONS]
    batch = processing.finish(collate(examples, fills=processing.fills))
    assert batch["input_ids"].tolist() == [[2, 5, 0], [3, 6, 7], [4, 0, 0], [8, 2, 6]]
    assert set(batch) == {"pixel_values", "input_ids", "attention_mask", "labels"}
    assert processing.by_name["text"].end_of_training().startswith("1 of the captions")
    assert processing.by_name["text"].end_of_training() is None


def test_pairs_with_the_same_label_column_are_the_same(tokenizer):
    rows = [
        {"image": image(), "text": text, "kind": kind} for text, kind in zip(CAPTIONS, [1, 2, 1, None], strict=True)
    ]
    processing = pairs(tokenizer, label="kind")
    labels = [processing(row, None)["labels"] for row in rows[:3]]
    assert labels[0] == labels[2] != labels[1]
    with pytest.raises(BadSample, match="--pair_label"):
        processing(rows[3], None)


def test_workers_pad_as_the_training_process_does(tokenizer):
    rows = [{"image": image(i), "text": CAPTIONS[i % 4], "keywords": ["one", "two"]} for i in range(24)]
    source = open_source(rows, columns={"keywords": "keywords"}, needed=("image", "text", "keywords"))

    def batches(workers: int) -> list[dict]:
        processing = pairs(tokenizer, augmentation=Augmentation(), captions=Captions(["keywords"]))
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


def text_encoder(vocab_size=10, positions=16, **options):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    return build_encoder(
        CLIPTextConfig(**{**sizes, "vocab_size": vocab_size, "max_position_embeddings": positions, **options})
    )


def bert(vocab_size=10, positions=16):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    return build_encoder(BertConfig(**sizes, vocab_size=vocab_size, max_position_embeddings=positions))


def test_length_and_padding_fit_the_encoder(tokenizer):
    text = Text(tokenizer, 8)
    text.fit(bert())
    assert text.max_length == 8 and not text.padded
    last = SiglipTextModel(
        SiglipTextConfig(
            vocab_size=10, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=16,
        )
    )  # fmt: skip
    pooled = Text(tokenizer, 8)
    pooled.fit(last)
    assert pooled.padded and pooled.max_length == 8 and pooled.batch(CAPTIONS)["input_ids"].shape == (4, 8)
    with pytest.raises(ValueError, match="--max_length 32 is more than the 16 positions of the text encoder"):
        Text(tokenizer, 32).fit(bert())
    flexible = Text(tokenizer, 32, start="there", brought_by="there", flexible=True)
    flexible.fit(last)
    assert flexible.max_length == 16 and flexible.padded
    assert flexible.noise(3)["input_ids"].shape == (3, 16) and flexible.facts()["padded"] == "to --max_length"


def test_an_encoder_that_is_not_the_tokenizers_is_refused(tokenizer):
    with pytest.raises(ValueError, match="The tokenizer has 10 tokens, but the encoder has a vocabulary of 9"):
        Text(tokenizer, 8).fit(bert(vocab_size=9))
    with pytest.raises(ValueError, match="vocabulary of 12.*set vocab_size to 10"):
        Text(tokenizer, 8).fit(bert(vocab_size=12))
    Text(tokenizer, 8, brought_by="there", start="there").fit(bert(vocab_size=12))  # with unused embeddings
    blind = text_encoder(eos_token_id=9, pad_token_id=0)  # no text has this token: the encoder pools the first token
    for name, parameter in blind.named_parameters():
        if "token_embedding" in name:
            parameter.data.copy_(parameter.data[:1].expand_as(parameter))
    with pytest.raises(ValueError, match="gives different captions the same embedding"):
        Text(tokenizer, 8).fit(blind)
    slow = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, unk_token="[UNK]")
    with pytest.raises(ValueError, match="has no padding token"):
        Text(slow, 8)


def test_texts_as_options_say(tokenizer, tmp_path, cache):
    tokenizer.save_pretrained(tmp_path)
    settings = {
        TextArguments: make_settings(TextArguments, tokenizer=str(tmp_path), max_length=8),
        CaptionArguments: make_settings(CaptionArguments, other_captions=["keywords"]),
    }
    text = Text.from_options(settings, Context())
    assert text.captions.columns == ("text", "other_captions/keywords") and text.facts()["tokenizer"]["tokens"] == 10
    assert settings[CaptionArguments].columns == {"other_captions/keywords": "keywords"}
    trained = {TextArguments: make_settings(TextArguments, vocab_size=40)}
    rows = [{"text": caption} for caption in CAPTIONS]
    source = distinct_captions([(open_source([*rows, *rows], needed=("text",)), ("text",))])
    assert len(source) == 4
    assert len(Text.from_options(trained, Context(texts=lambda: source)).tokenizer) <= 40
    numbers = datasets.Dataset.from_dict({"text": ["a"], "keywords": [3]})
    with pytest.raises(ValueError, match=r"'keywords' \(--other_captions\) has int64 values"):
        text.check_columns(
            open_source(
                numbers, columns={"other_captions/keywords": "keywords"}, needed=("text", "other_captions/keywords")
            )
        )
    with pytest.raises(ValueError, match="has no tokenizer"):
        (tmp_path / "empty").mkdir()
        Text.from_saved(str(tmp_path / "empty"), bert(), "it")
    assert Text.from_saved(str(tmp_path), bert(), "it").max_length == 16


def test_what_cards_say_of_texts(tokenizer):
    facts = {**Text(tokenizer, 8).facts(), "captions": {"other_captions": ["names"], "caption_weights": [1.0, 2.0]}}
    assert Text.words(facts) == "texts of up to 8 tokens of a vocabulary of 10"
    assert Text.preparation(facts) == [
        "Captions: for each sample, the main caption or a caption from the column `names` is drawn (weights 1.0 and "
        "2.0). Captions are padded to the longest caption of the batch.",
        "Tokenizer: WordLevel, trained on these texts.",
    ]
    facts["captions"]["caption_languages"] = ["es", "fr"]
    assert "Texts by language are in es and fr, after a token of the language." in Text.preparation(facts)[0]


def test_sentences_are_one_text_a_row_with_word_starts_and_a_negative(tokenizer):
    inputs = Inputs(Sentences(tokenizer, 8))
    random = np.random.default_rng(0)
    plain, long = inputs({"text": "red square"}, random), inputs({"text": "one two three " * 99}, random)
    assert set(plain) == {"input_ids", "attention_mask", "word_starts"} and plain["input_ids"].tolist() == [2, 5]
    assert len(long["input_ids"]) == 8 and long["word_starts"].all()
    batch = inputs.finish(collate([plain, long], fills=inputs.fills))
    assert {name: tuple(value.shape) for name, value in batch.items()} == dict.fromkeys(plain, (2, 8))
    assert batch["attention_mask"].sum(1).tolist() == [2, 8] and batch["word_starts"].all()
    drawn = {tuple(inputs({"text": "one two three " * 99}, random)["input_ids"].tolist()) for _ in range(20)}
    assert len(drawn) == 3  # parts begin at each of the words
    assert inputs({"text": "one two three " * 99}, None)["input_ids"].tolist() == [7, 8, 9, 7, 8, 9, 7, 8]

    rows = [{"text": "red square", "negative": "blue"}, {"text": "blue", "negative": ["green circle one"]}]
    batch = inputs.finish(collate([inputs(row, random) for row in rows], fills=inputs.fills))
    assert batch["negative_input_ids"].tolist() == [[4, 0, 0], [3, 6, 7]]
    assert batch["negative_attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
    with pytest.raises(BadSample):
        inputs({"text": "red", "negative": " "}, random)
    assert set(inputs.by_name["text"].batch(["red", "two three"])) == {"input_ids", "attention_mask"}
    facts = {**Sentences(tokenizer, 8).facts(), "inputs": ["text"]}
    assert Text.preparation(facts)[0] == (
        "Texts: one in each row. Of a text much longer than 8 tokens, each epoch uses a random part. Texts are padded "
        "to the longest of a batch."
    )
