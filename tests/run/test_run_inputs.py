"""From options to data: which columns, which processors and tokenizers, what is packed; and data that does not fit."""

from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import transformers
from conftest import CONFIGS, EMOJI
from PIL import Image
from recipe_runs import (
    BRIEFLY,
    CONTRASTIVE,
    FLAVA,
    MASKED_LM,
    MATCHING,
    MULTIWAY,
    ROTATION,
    main,
    pair_shapes,
    refused,
    requested,
    saved,
    shakespeare_tokenizer,
)
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from hf_pretext.modalities import PairArguments
from hf_pretext.run.build import Start
from hf_pretext.run.inputs import (
    alone,
    asked_columns,
    check_kinds_alone,
    facts,
    further_columns,
    label_column,
    plan_inputs,
    start_of,
    texts_to_learn_from,
)

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture(scope="module")
def tokenizer(cache):
    return shakespeare_tokenizer()


# what options say


def test_a_start_is_what_options_name():
    assert start_of(requested(ROTATION)) == Start()
    assert start_of(requested(ROTATION, "--encoder", "a")) == Start("a")
    assert start_of(requested(CONTRASTIVE, "--text_encoder", "b")) == Start(None, {"text": "b"})


def test_data_alone_of_a_kind_that_the_objective_does_not_take_is_refused():
    with pytest.raises(ValueError, match="--videos_alone: flava takes image and text, no video. Leave it out"):
        check_kinds_alone(requested(FLAVA, "--videos_alone", "films"))
    check_kinds_alone(requested(FLAVA))


def test_a_tokenizer_learns_from_the_narrations_of_films(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.mp4").write_bytes(b"x")
    (tmp_path / "a.srt").write_text(
        "00:01,000 --> 00:02,000\n<i>open</i> the door\n\n00:02,000 --> 00:03,000\nclose it\n"
    )
    table = tmp_path / "texts" / "rows.jsonl"
    table.parent.mkdir()
    table.write_text('{"text": ["later", "close it"], "start": [0.0, 1.0], "end": [1.0, 2.0]}')
    request = SimpleNamespace(
        objective=SimpleNamespace(inputs=("video", "text"), columns_of=lambda task: {}),
        task=None,
        options=SimpleNamespace(split="train"),
        pairs=PairArguments(texts_alone=[str(table)]),
        datasets=[str(tmp_path)],
        settings={},
        reading=None,
    )
    texts = texts_to_learn_from(request, Start(), None)
    assert [row["text"] for row in texts.read(0, 0, 3)] == ["open the door", "close it", "later"]


def test_columns_are_those_asked_for_by_kind():
    request = requested(CONTRASTIVE, "--image_column", "photo", "--eval_text_column", "name")
    assert asked_columns(request) == {"image": "photo", "text": "text"}  # the recipe's own text column
    assert asked_columns(request, "eval_") == {"image": None, "text": "name"}
    assert asked_columns(requested(ROTATION)) == {"image": None}


def test_further_columns_are_captions_and_the_label_of_pairs():
    assert further_columns(requested(ROTATION)) == {}
    assert "keywords" in further_columns(requested(CONTRASTIVE)).values()
    labelled = further_columns(requested(CONTRASTIVE, "--pair_label", "group"))
    assert labelled["pair_label"] == "group" and "keywords" in labelled.values()


@pytest.mark.parametrize(
    ("recipe", "options", "column"),
    [(ROTATION, [], None), (CONTRASTIVE, [], "text"), (CONTRASTIVE, ["--pair_label", "group"], "pair_label")],
)
def test_pairs_belong_together_by_their_label_else_by_their_caption(recipe, options, column):
    assert label_column(requested(recipe, *options)) == column


def test_data_of_one_kind_is_what_options_name():
    request = requested(CONTRASTIVE, "--texts_alone", "a.txt", "b.txt")
    assert alone(request, "text") == ["a.txt", "b.txt"] and alone(request, "image") == []
    assert alone(requested(ROTATION), "image") == []


def test_results_say_what_pairs_are_made_of():
    assert facts(requested(ROTATION)).keys() == {"knn"}
    plain, more = facts(requested(CONTRASTIVE)), facts(requested(CONTRASTIVE, "--texts_alone", "a.txt"))
    assert "alone" not in plain and plain["pair_label"] is None and "{}" in plain["eval_prompts"]
    assert more["alone"] == {"images": None, "texts": ["a.txt"]}


def test_the_size_of_images_is_the_encoders_else_the_recipes(tmp_path):
    inputs, full, start, _ = plan_inputs(requested(ROTATION))
    assert inputs.shape()["image_size"] == 64 and full.model_type == "resnet" and start == Start()
    request = requested(ROTATION, "--encoder", saved(CONFIGS["vit"](), tmp_path))
    inputs, full, start, _ = plan_inputs(request)
    assert inputs.shape()["image_size"] == 32 and full.model_type == "vit" and start.encoder == str(tmp_path)


# columns and datasets


def test_missing_column():
    message = refused(ROTATION, "--image_column", "photo")
    assert "no column 'photo' (--image_column)" in message and "image (Image)" in message
    message = refused(ROTATION, "--eval_label", "kind")
    assert "no column 'kind' (--eval_label)" in message and "group (string)" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--other_captions", "colour"], "no column 'colour' (--other_captions"),
        (["--other_captions", "image"], "'image' (--other_captions) has Image values"),
        (["--text_column", "image"], "contains no texts"),
        (["--other_captions", "translations", "--caption_languages", "es", "xx"], "no texts of the language xx"),
        (["--other_captions", "keywords", "--caption_languages", "es"], "They have no texts by language."),
    ],
    ids=[
        "a column that is not there",
        "an image for a caption",
        "texts that are images",
        "a language that is not there",
        "no languages",
    ],
)
def test_captions_of_a_wrong_column(options, words):
    assert words in refused(CONTRASTIVE, *options)


def test_empty_dataset(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "contains no image" in refused(ROTATION, "--dataset", tmp_path / "empty")
    empty = datasets.Dataset.from_dict({"image": []}, datasets.Features({"image": datasets.Image()}))
    empty.to_parquet(tmp_path / "empty.parquet")
    assert "has no rows" in refused(ROTATION, "--dataset", tmp_path / "empty.parquet")


def test_empty_corpus(tmp_path):
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n{"text": "  "}\n')
    assert "has no text in its column 'text'" in refused(MASKED_LM, "--dataset", tmp_path / "empty.jsonl")
    (tmp_path / "empty.txt").write_text("")
    assert "empty.txt" in refused(MASKED_LM, "--dataset", tmp_path / "empty.txt")


def test_a_column_of_numbers(tmp_path):
    (tmp_path / "numbers.jsonl").write_text('{"text": 1}\n{"text": 2}\n')
    assert "no column of texts was detected" in refused(MASKED_LM, "--dataset", tmp_path / "numbers.jsonl")
    message = refused(MASKED_LM, "--dataset", tmp_path / "numbers.jsonl", "--text_column", "text")
    assert "the column 'text' (--text_column) contains no texts" in message and "text (int64)" in message


def test_dataset_that_does_not_exist():
    assert "--dataset /no/such: no such file or folder" in refused(ROTATION, "--dataset", "/no/such")
    assert "no split 'dev'" in refused(ROTATION, "--split", "dev")


def test_labelled_set_of_ones_users(tmp_path, emoji):
    assert "--eval_dataset /no/such: no such file" in refused(ROTATION, "--eval_dataset", "/no/such")
    twice = emoji(count=20).rename_column("group", "label").rename_column("image", "front")
    features = datasets.Features(twice.features | {"side": datasets.Image()})
    twice = twice.map(lambda row: {"side": row["front"]}, features=features)
    twice.to_parquet(tmp_path / "twice.parquet")
    message = refused(ROTATION, "--eval_dataset", tmp_path / "twice.parquet")
    assert "has several columns of images" in message and "Choose one with --eval_image_column" in message


def test_a_weight_for_each_dataset():
    assert "a positive number for each of the 1 datasets" in refused(ROTATION, "--mixture_weights", 1, 2)


def test_a_rare_kind():
    assert "each must be at least a twentieth" in refused(FLAVA, "--mixture_weights", 98, 1, 1)


@pytest.mark.parametrize("recipe", [FLAVA, MULTIWAY, MATCHING])
def test_texts_for_a_recipe_that_needs_pairs(recipe, tmp_path):
    (tmp_path / "texts.txt").write_text("one\ntwo\nthree\n")
    assert "no column of images" in refused(recipe, "--dataset", tmp_path / "texts.txt")


def test_what_learns_from_pairs_alone():
    message = refused(MATCHING, "--images_alone", EMOJI)
    assert "--images_alone: matching can learn only from pairs" in message


# processors


def test_image_size_of_nothing():
    assert "image_size must be at least 1 pixel, but is 0" in refused(ROTATION, "--image_size", 0)


@pytest.mark.parametrize("white", [0, -1])
def test_white_of_nothing(white):
    assert f"image_white must be at least 1, but is {white}" in refused(ROTATION, "--image_white", white)


def test_a_folder_of_12_bits_is_trained_on_with_its_white(tmp_path):
    folder, random = tmp_path / "images", np.random.default_rng(0)
    folder.mkdir()
    for i in range(20):
        Image.fromarray(random.integers(0, 4096, (64, 64), np.uint16)).save(folder / f"{i}.png")
    options = ("--dataset", folder, "--image_white", 4095, *BRIEFLY)
    results = main(ROTATION, *options, output_dir=tmp_path / "run")
    assert results["image_white"] == 4095 and not sum(results["seeds"][0]["bad_samples"].values())
    assert "4095 is the value of white" in (tmp_path / "run" / "README.md").read_text()
    inputs, *_ = plan_inputs(requested(ROTATION, *options))
    assert inputs.evaluation().facts()["image_white"] == 4095
    assert "image_white" not in plan_inputs(requested(ROTATION))[0].facts()


def test_processor_that_does_what_ours_does_not(tmp_path):
    AutoModel.from_config(CONFIGS["vit"]()).save_pretrained(tmp_path / "vit")
    size = {"height": 32, "width": 32}
    transformers.EfficientNetImageProcessor(size=size).save_pretrained(tmp_path / "vit")
    assert "image processor, EfficientNetImageProcessor" in refused(ROTATION, "--encoder", tmp_path / "vit")


# tokenizers


def test_the_tokenizer_of_an_open_clip_model(tmp_path):
    done = main(CONTRASTIVE, "--tokenizer", "open_clip:ViT-B-32", *BRIEFLY, output_dir=tmp_path)
    assert done["tokenizer"] == {"from": "open_clip:ViT-B-32", "class": "CLIPTokenizer", "kind": "BPE", "tokens": 49408}
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 49408


def test_a_tokenizer_without_a_mask_token(tokenizer, tmp_path):
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="[PAD]")
    assert "has no mask token" in refused(MASKED_LM, "--tokenizer", saved(bare, tmp_path / "bare"))


def test_a_tokenizer_that_is_not_present():
    assert "--tokenizer /no/such is neither a folder" in refused(MASKED_LM, "--tokenizer", "/no/such")


def test_longer_than_the_encoder_can_see(tokenizer, tmp_path):
    config = transformers.RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=66, pad_token_id=0,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "roberta")
    options = ["--encoder", tmp_path / "roberta", "--tokenizer", saved(tokenizer, tmp_path / "tokenizer")]
    message = refused(MASKED_LM, *options, "--max_length", 80)
    assert "--max_length 80 is more than the 65 positions" in message and "--max_length 65 or less" in message
    assert "max_length 2 leaves no room" in refused(MASKED_LM, "--max_length", 2)
    assert "Give at least 3" in refused(MASKED_LM, "--max_length", -1)


def test_captions_longer_than_a_tower_can_see(tmp_path):
    config = CONFIGS["bert"]()
    config.max_position_embeddings, config.vocab_size = 8, 4000
    options = ["--text_encoder", saved(config, tmp_path / "short"), "--vocab_size", 4000, "--max_length", 20]
    assert "--max_length 20 is more than the 8 positions" in refused(CONTRASTIVE, *options)


def test_vocabularies_that_differ(tokenizer, tmp_path):
    CONFIGS["bert"]().save_pretrained(tmp_path / "bert")
    options = ["--encoder", tmp_path / "bert", "--tokenizer", saved(tokenizer, tmp_path / "tokenizer")]
    message = refused(MASKED_LM, *options)
    assert "The tokenizer has 300 tokens" in message and "a vocabulary of 50" in message
    config = transformers.BertConfig(vocab_size=280, num_hidden_layers=1)
    AutoModel.from_config(config).save_pretrained(saved(shakespeare_tokenizer(280), tmp_path / "with"))
    message = refused(MASKED_LM, "--encoder", tmp_path / "with", "--tokenizer", tmp_path / "tokenizer")
    assert "differs from the tokenizer of --encoder" in message


def test_a_tower_that_pools_at_different_token_is_refused(tmp_path):
    config = pair_shapes(500)["clip"]
    config.text_config.eos_token_id = 499
    message = refused(CONTRASTIVE, "--encoder", saved(config, tmp_path / "shape"), "--vocab_size", 500)
    assert "at the token with id 499" in message
    assert "the tokenizer ends texts with id 3" in message


# a corpus


def test_an_architecture_that_can_not_pack_takes_batches_of_like_length(tmp_path, tokenizer):
    """DeBERTa's attention takes no mask between documents."""
    config = transformers.DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        relative_attention=True, pos_att_type=["c2p", "p2c"], pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "deberta")
    results = main(
        MASKED_LM, "--encoder", tmp_path / "deberta", "--tokenizer", saved(tokenizer, tmp_path / "tokenizer"),
        "--eval_rows", 30, "--max_steps", 6, "--unit", "word", output_dir=tmp_path / "run",
    )  # fmt: skip
    assert results["packed"] is False and results["encoder"]["class"] == "DebertaV2Model"
    assert results["padding"] < 0.1  # of batches of like length
    assert all(entry["loss"] > 0 for entry in results["seeds"][0]["history"])
    AutoModelForMaskedLM.from_pretrained(tmp_path / "run")
